"""CUDA through PyCUDA: device, driver errors, memory, modules, graphs. The only importer of PyCUDA."""
