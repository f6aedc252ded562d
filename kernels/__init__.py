"""The device kernels and the NumPy reference of each, which is also the CPU path."""
