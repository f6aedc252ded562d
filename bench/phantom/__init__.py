"""Synthetic cervical spine studies whose grades and diameters are known exactly.

spine          curve of the spinal canal, and coordinates along it
anatomy        one patient: sizes, stenoses, truth
stenoses       encroachments that yield a grade
landmarks      points that tell the levels apart
findings       what a patient has besides stenoses; deformity, ossified and hardware say where
finding_tissue  painted over the tissue of phantoms and of real anatomy
tissue         T2 signal at a point, painted by soft_tissue, vertebrae and canal_contents
tissue_traits  contrast, and sizes that do not enter the truth
texture        random texture of tissue
shapes         signed distances to outlines, and a canvas to paint on
acquisition    protocols, coil, k-space, noise
artefacts      ghosts, parallel imaging, zero-filling, shading
slice_profile  weights of the signal through a slice's thickness
conditions     how a study differs from an ordinary one: patient, position, scan
position       patient and axial slices turned
scan_conditions  protocol, contrast and artefacts of a scan
tall_field     fields of view of 160 to 600 mm
tall_spine     spine continued to the sacrum, canal into the head; painted by tall_tissue
study          one patient imaged by a sagittal and an axial series
dicom_files    DICOM files of a study
writing        a folder of studies with truth.csv
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
