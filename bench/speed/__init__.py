"""Speed of kernels, networks and whole studies, and its limits."""
