"""`stenosis-trt evaluate`: results beside a truth and readers, from tables to figures, text and plots."""
