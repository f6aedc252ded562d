"""TensorRT plans of a pack: building, storing, checking and signing them."""
