"""Phantoms with exact truth, comparison against truth, and benchmarks."""
