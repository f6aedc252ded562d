"""Coded values of the structured report: of PS3.16, SNOMED CT, UCUM, and the private scheme 99STENOSIS.

No standard scheme has codes for the Kang grade or for diameters and the compression ratio of the cord.
`PRIVATE_CODES` is the dictionary of the private scheme; docs/structured-report.md prints it.
"""

from __future__ import annotations

from typing import NamedTuple

PRIVATE_SCHEME = "99STENOSIS"
PRIVATE_SCHEME_NAME = "stenosis-trt private codes, docs/structured-report.md"


class Code(NamedTuple):
    """A coded value: code value, coding scheme designator, code meaning."""

    value: str
    scheme: str
    meaning: str


def _dcm(value: str, meaning: str) -> Code:
    return Code(value, "DCM", meaning)


def _sct(value: str, meaning: str) -> Code:
    return Code(value, "SCT", meaning)


# Document, TID 1500.
REPORT_TITLE = _dcm("126000", "Imaging Measurement Report")
LANGUAGE = _dcm("121049", "Language of Content Item and Descendants")
ENGLISH = Code("en-US", "RFC5646", "English (United States)")
PROCEDURE_REPORTED = _dcm("121058", "Procedure reported")
MR_OF_CERVICAL_SPINE = _sct("241646009", "Magnetic resonance imaging of cervical spine")
IMAGING_MEASUREMENTS = _dcm("126010", "Imaging Measurements")
FINDINGS, FINDING = _dcm("121070", "Findings"), _dcm("121071", "Finding")
SUMMARY = _dcm("121111", "Summary")
COMMENT = _dcm("121106", "Comment")

# Observer, TID 1004.
OBSERVER_TYPE, DEVICE = _dcm("121005", "Observer Type"), _dcm("121007", "Device")
DEVICE_UID = _dcm("121012", "Device Observer UID")
DEVICE_NAME = _dcm("121013", "Device Observer Name")
DEVICE_MANUFACTURER = _dcm("121014", "Device Observer Manufacturer")
DEVICE_MODEL = _dcm("121015", "Device Observer Model Name")

# Algorithm, TID 4019.
ALGORITHM_NAME = _dcm("111001", "Algorithm Name")
ALGORITHM_VERSION = _dcm("111003", "Algorithm Version")
ALGORITHM_MANUFACTURER = _dcm("122405", "Algorithm Manufacturer")
ALGORITHM_PARAMETERS = _dcm("111002", "Algorithm Parameters")
ALGORITHM_FAMILY = _dcm("111000", "Algorithm Family")
ARTIFICIAL_INTELLIGENCE = _dcm("123110", "Artificial Intelligence")

# Outcome of the algorithms, CID 6047.
PROCESSING_SUMMARY = _dcm("111017", "CAD Processing and Findings Summary")
PROCESSING_OUTCOMES = {
    (True, False): _dcm("111241", "All algorithms succeeded; without findings"),
    (True, True): _dcm("111242", "All algorithms succeeded; with findings"),
    (False, False): _dcm("111243", "Not all algorithms succeeded; without findings"),
    (False, True): _dcm("111244", "Not all algorithms succeeded; with findings"),
}
"""By whether every level was graded and measured, and whether one has a grade above 0."""

# Measurement groups, TID 1501 and 1410.
MEASUREMENT_GROUP = _dcm("125007", "Measurement Group")
TRACKING_IDENTIFIER = _dcm("112039", "Tracking Identifier")
TRACKING_UID = _dcm("112040", "Tracking Unique Identifier")
FINDING_SITE = _sct("363698007", "Finding Site")
SOURCE = _sct("260753009", "Source")
IMAGE_REGION = _dcm("111030", "Image Region")
SPINAL_STENOSIS = _sct("83561009", "Spinal stenosis in cervical region")
SPINAL_CORD = _sct("2748008", "Spinal cord")

DISCS = {
    "C2/3": _sct("1078209008", "C2/C3 disc"),
    "C3/4": _sct("58820006", "C3/C4 disc"),
    "C4/5": _sct("49400002", "C4/C5 disc"),
    "C5/6": _sct("73959003", "C5/C6 disc"),
    "C6/7": _sct("75095006", "C6/C7 disc"),
    "C7/T1": _sct("37414007", "C7/T1 disc"),
}
"""CID 7604, intervertebral discs."""

SEVERITY = _sct("246112005", "Severity")
SEVERITIES = (
    _sct("260413007", "None"),
    _sct("255604002", "Mild"),
    _sct("6736007", "Moderate"),
    _sct("24484000", "Severe"),
)
"""CID 3716, by Kang grade."""

# UCUM.
MILLIMETRE = Code("mm", "UCUM", "mm")
RATIO_UNIT = Code("{ratio}", "UCUM", "ratio")
PERCENT = Code("%", "UCUM", "percent")
NO_UNITS = Code("1", "UCUM", "no units")


def _private(value: str, meaning: str) -> Code:
    return Code(value, PRIVATE_SCHEME, meaning)


KANG_GRADE = _private("KANG", "Kang grade")
KANG_GRADES = tuple(_private(f"KANG{grade}", f"Kang grade {grade}") for grade in range(4))
AP_DIAMETER = _private("CORDAP", "Cord AP diameter")
TRANSVERSE_DIAMETER = _private("CORDTR", "Cord transverse diameter")
COMPRESSION_RATIO = _private("CORDCR", "Cord compression ratio")
MSCC = _private("MSCC", "Maximum spinal cord compression")
PROBABILITY = _private("PROB", "Probability of the Kang grade")
PROBABILITIES = tuple(_private(f"PROB{grade}", f"Probability of Kang grade {grade}") for grade in range(4))
CONFIDENCE = _private("CONF", "Confidence of the level")
CORD_CONFIDENCE = _private("CORDCONF", "Confidence of the cord measurement")
FURTHER_VALUES = _private("FURTHER", "Further values")
RATIO_Z = _private("CORDCRZ", "Cord compression ratio, z-score")
RATIO_PERCENTILE = _private("CORDCRP", "Cord compression ratio, percentile")
AP_Z = _private("CORDAPZ", "Cord AP diameter, z-score")
AP_PERCENTILE = _private("CORDAPP", "Cord AP diameter, percentile")
TRANSVERSE_Z = _private("CORDTRZ", "Cord transverse diameter, z-score")
TRANSVERSE_PERCENTILE = _private("CORDTRP", "Cord transverse diameter, percentile")

_KANG = "Kang grade of the level (Kang et al., AJR 2011):"
_HEALTHY = "compared with healthy adults: PAM50-normalized-metrics of the Spinal Cord Toolbox, 203 people"
PRIVATE_CODES: dict[Code, str] = {
    KANG_GRADE: "Kang grade of a disc level, from the sagittal T2 image. Its value is one of KANG0 to KANG3.",
    KANG_GRADES[0]: f"{_KANG} no stenosis.",
    KANG_GRADES[1]: f"{_KANG} over half of the subarachnoid space is obliterated, the cord is not deformed.",
    KANG_GRADES[2]: f"{_KANG} the cord is deformed, without change of signal.",
    KANG_GRADES[3]: f"{_KANG} raised T2 signal in the cord at the compressed level.",
    AP_DIAMETER: "Anteroposterior diameter across the spinal cord (81827009, SCT), mm.",
    TRANSVERSE_DIAMETER: "Transverse diameter across the spinal cord (81827009, SCT), mm.",
    COMPRESSION_RATIO: "Ratio (118586006, SCT) of CORDAP to CORDTR, {ratio}.",
    MSCC: "1 - d / ((a + b) / 2): d is CORDAP at the level, a and b are those above and below, {ratio}.",
    PROBABILITY: "Probability of the grade that was given, %.",
    **{code: f"Probability of Kang grade {grade}, %." for grade, code in enumerate(PROBABILITIES)},
    CONFIDENCE: "The lower one of the level's heatmap peak and of the probability of its grade, %.",
    CORD_CONFIDENCE: "The lowest of the four heatmap peaks of the cord's points, %.",
    FURTHER_VALUES: "Text with values of the level that have no place on an image; each is a NUM below.",
    RATIO_Z: f"Z-score (121416, DCM) of CORDCR, {_HEALTHY}.",
    RATIO_PERCENTILE: f"Percentile (121415, DCM) of CORDCR, {_HEALTHY}, %.",
    AP_Z: f"Z-score (121416, DCM) of CORDAP, {_HEALTHY}.",
    AP_PERCENTILE: f"Percentile (121415, DCM) of CORDAP, {_HEALTHY}, %.",
    TRANSVERSE_Z: f"Z-score (121416, DCM) of CORDTR, {_HEALTHY}.",
    TRANSVERSE_PERCENTILE: f"Percentile (121415, DCM) of CORDTR, {_HEALTHY}, %.",
}
"""Dictionary of the private scheme: each code and its definition."""
