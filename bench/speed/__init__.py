"""How fast kernels, models and whole studies are, and what limits them."""
