"""The systems under test, and the studies that they are measured on."""
