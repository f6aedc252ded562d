"""Synthetic cervical spine studies whose grades and diameters are known exactly.

conditions     how a study differs from an ordinary one: patient, position, scan
patient/       one patient: spine, stenoses, findings, and the truth that follows from them
painting/      the T2 signal of a patient at a point
scan/          position, field of view, acquisition and its artefacts
study          one patient imaged by a sagittal and an axial series
dicom_files    DICOM files of a study
writing        a folder of studies with truth.csv
shapes         signed distances to outlines, and a canvas to paint on
slice_profile  weights of the signal through a slice's thickness
"""

from stenosis_trt.bench.phantom.conditions import parse_conditions
from stenosis_trt.bench.phantom.dicom_files import TRANSFER_SYNTAXES
from stenosis_trt.bench.phantom.study import PhantomSource
from stenosis_trt.bench.phantom.writing import PhantomOptions, ResumeError, write_studies

__all__ = [
    "TRANSFER_SYNTAXES",
    "PhantomOptions",
    "PhantomSource",
    "ResumeError",
    "parse_conditions",
    "write_studies",
]
