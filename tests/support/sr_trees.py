"""Content trees of structured reports, and the tools that check them."""

from __future__ import annotations

import io
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset

from stenosis_trt.engine.reports.dicom.coded_values import IMAGING_MEASUREMENTS, Code
from stenosis_trt.engine.reports.dicom.structured_report import make
from stenosis_trt.engine.reports.study_report import ReportOptions, StudyReport


def documents(report: StudyReport, sr_for: str = "ohif") -> dict[str, Dataset]:
    """Return the documents of a study by their names without suffix."""
    files = make(report, ReportOptions(sr_for=sr_for))
    return {name.removesuffix(".dcm"): read(content) for name, content in files.items()}


def read(content: bytes) -> Dataset:
    """Parse a DICOM file in memory."""
    return pydicom.dcmread(io.BytesIO(content))


def name_of(item: Dataset) -> Code:
    """Return the concept name of a content item."""
    return _code(item.ConceptNameCodeSequence[0])


def value_of(item: Dataset) -> Code:
    """Return the value of a CODE item."""
    return _code(item.ConceptCodeSequence[0])


def children(item: Dataset, name: Code | None = None, value_type: str = "") -> list[Dataset]:
    """Return the items directly below one, of a name and a value type where they are given."""
    return [
        child
        for child in item.get("ContentSequence", [])
        if (name is None or name_of(child) == name) and value_type in ("", child.ValueType)
    ]


def descendants(item: Dataset) -> Iterator[Dataset]:
    """Yield every item below one."""
    for child in children(item):
        yield child
        yield from descendants(child)


def groups(document: Dataset) -> list[Dataset]:
    """Return the measurement groups of a document."""
    (measurements,) = children(document, IMAGING_MEASUREMENTS)
    return children(measurements)


def dciodvfy_errors(content: bytes, path: Path) -> list[str]:
    """Return the errors that dciodvfy of dicom3tools finds in a file, which is written to `path`."""
    path.write_bytes(content)
    command = [tool("dciodvfy", "dicom3tools"), str(path)]
    found = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    lines = (found.stdout + found.stderr).splitlines()
    assert "Comprehensive3DSR" in lines, "dciodvfy did not take it for a structured report"
    return [line for line in lines if line.startswith("Error")]


def tool(command: str, package: str) -> str:
    """Return the path of a command; the test is skipped where it is not installed."""
    found = shutil.which(command)
    if found is None:
        pytest.skip(f"needs {command} of Debian's package {package}")
    return found


def _code(item: Dataset) -> Code:
    return Code(item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning)
