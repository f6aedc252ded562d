"""Phantoms with exact truth, accuracy of results, and benchmarks of speed."""
