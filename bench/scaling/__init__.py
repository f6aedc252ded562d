"""How latency and memory change with batch, input size, studies in flight, files and compression."""
