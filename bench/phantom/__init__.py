"""Synthetic cervical spine studies whose grades and diameters are known exactly.

spine        the canal's course, and coordinates along it
anatomy      one patient: sizes, stenoses, truth
tissue       T2 signal at a point, painted by soft_tissue, vertebrae and canal_contents
tissue_traits  contrast, and sizes that no truth depends on
texture      grain of tissue
shapes       outlines, and points that are painted
acquisition  protocols, coil, slice profile, k-space
slice_profile  what of a slice's thickness its image shows
study        one patient seen by two series
dicom_files  a study as DICOM files
writing      many studies and truth.csv
"""

from stenosis_trt.bench.phantom.dicom_files import TRANSFER_SYNTAXES
from stenosis_trt.bench.phantom.writing import PhantomOptions, ResumeError, write_studies

__all__ = ["TRANSFER_SYNTAXES", "PhantomOptions", "ResumeError", "write_studies"]
