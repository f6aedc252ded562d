"""Grading of cervical spinal stenosis from MR studies: the run-time of stenosis-trt, and its public API.

    from stenosis_trt.engine import Grader

    with Grader() as grader:
        result = grader("study_folder")

Names in `__all__` are stable; everything else may change. They are imported when they are first used, so that
importing this package is fast. Nothing in it imports torch.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stenosis_trt.engine.api import Grader, UngradedStudy, grade
    from stenosis_trt.engine.backends.gpu.options import GpuOptions
    from stenosis_trt.engine.backends.model_checks import ModelOutputError
    from stenosis_trt.engine.dicom.limits import ReadLimits
    from stenosis_trt.engine.errors import (
        CannotGrade,
        DeviceError,
        InputError,
        OutputError,
        PackError,
        PlanError,
        SignatureError,
        StenosisError,
    )
    from stenosis_trt.engine.packs.signature import TrustedKeys
    from stenosis_trt.engine.records import CordMeasurement, LevelResult, Problem, StudyResult
    from stenosis_trt.engine.reports.study_report import ReportOptions
    from stenosis_trt.engine.runs.summary import RunSummary
    from stenosis_trt.engine.runs.table_files import CsvFormat

# ONNX Runtime 1.32 notes in ~/.cache/Microsoft on which machine it runs, and sends that where it can: the
# address is in its library. It reads this once, when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_MODULES = {
    "CannotGrade": "errors",
    "CordMeasurement": "records",
    "DeviceError": "errors",
    "GpuOptions": "backends.gpu.options",
    "Grader": "api",
    "InputError": "errors",
    "LevelResult": "records",
    "ModelOutputError": "backends.model_checks",
    "RunSummary": "runs.summary",
    "OutputError": "errors",
    "PackError": "errors",
    "PlanError": "errors",
    "Problem": "records",
    "ReadLimits": "dicom.limits",
    "ReportOptions": "reports.study_report",
    "SignatureError": "errors",
    "StenosisError": "errors",
    "StudyResult": "records",
    "CsvFormat": "runs.table_files",
    "TrustedKeys": "packs.signature",
    "UngradedStudy": "api",
    "grade": "api",
}
"""Every public name, and the module that defines it."""

__all__ = [
    "CannotGrade",
    "CordMeasurement",
    "CsvFormat",
    "DeviceError",
    "GpuOptions",
    "Grader",
    "InputError",
    "LevelResult",
    "ModelOutputError",
    "OutputError",
    "PackError",
    "PlanError",
    "Problem",
    "ReadLimits",
    "ReportOptions",
    "RunSummary",
    "SignatureError",
    "StenosisError",
    "StudyResult",
    "TrustedKeys",
    "UngradedStudy",
    "grade",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
