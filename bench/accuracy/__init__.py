"""Accuracy of results: against truth and readers, on acquired volumes, and on images out of distribution."""
