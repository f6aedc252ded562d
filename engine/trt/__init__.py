"""TensorRT and TensorRT-RTX behind one interface. The only importer of either."""
