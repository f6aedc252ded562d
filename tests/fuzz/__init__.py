"""Fuzz targets: what reads input that nobody vouches for. See README.md beside this file.

harness   runs a target within bounds, keeps inputs that show something new, reports what fails
mutation  changes bytes, JSON, DICOM elements and several files in one input
NAME      a target each, run by hand as `python -m fuzz.NAME --seconds 600`
"""

TARGETS = (
    "headers",
    "studies",
    "packs",
    "sidecars",
    "signatures",
    "results",
    "checkpoints",
    "dicomdirs",
    "specs",
    "external_data",
    "shared_weights",
    "reader_tables",
)
"""Modules of this package that hold a `TARGET`."""
