"""Helpers for every room: atomic files, the terminal, interrupts, hardware, worker processes."""
