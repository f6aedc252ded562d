"""Reading DICOM: find files, scan headers, build series, decode pixels, all under limits."""
