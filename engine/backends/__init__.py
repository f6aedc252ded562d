"""Backends that run the models: one module each, and their interface in `base`."""
