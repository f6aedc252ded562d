"""Where the models run. One module per backend; `base` holds the interface."""
