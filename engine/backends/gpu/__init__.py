"""Parts of the GPU backend: device memory, kernel descriptors and model stages."""
