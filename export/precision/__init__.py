"""FP16 and INT8: calibration, conversion, the accuracy gate, and the search for a mixed precision."""
