"""The run-time of stenosis-trt: what runs beside the scanner. Never imports torch."""
