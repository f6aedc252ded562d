"""Enumerations by TensorRT's names, what a caller derives from, and what is asked to fail."""

from __future__ import annotations

import os
from enum import Enum, IntEnum

VERSION = os.environ.get("STAND_IN_TENSORRT_VERSION", "10.3.0")
IS_10 = VERSION.startswith("10.")

NetworkDefinitionCreationFlag = IntEnum("NetworkDefinitionCreationFlag", {"STRONGLY_TYPED": 1})
BuilderFlag = Enum("BuilderFlag", "TF32 VERSION_COMPATIBLE GPU_FALLBACK")
OnnxParserFlag = Enum(
    "OnnxParserFlag", "NATIVE_INSTANCENORM" if IS_10 else "NATIVE_INSTANCENORM ADJUST_FOR_DLA"
)
MemoryPoolType = Enum("MemoryPoolType", "WORKSPACE")
ProfilingVerbosity = Enum("ProfilingVerbosity", "LAYER_NAMES_ONLY DETAILED")
DeviceType = Enum("DeviceType", "GPU DLA")
HardwareCompatibilityLevel = Enum(
    "HardwareCompatibilityLevel", "NONE AMPERE_PLUS" if IS_10 else "NONE AMPERE_PLUS SAME_COMPUTE_CAPABILITY"
)
DataType = Enum("DataType", "FLOAT HALF BF16 INT8 UINT8 INT32 INT64 BOOL")
TensorIOMode = Enum("TensorIOMode", "NONE INPUT OUTPUT")
ExecutionContextAllocationStrategy = Enum(
    "ExecutionContextAllocationStrategy", "STATIC ON_PROFILE_CHANGE USER_MANAGED"
)
LayerType = Enum(
    "LayerType", "CONVOLUTION DECONVOLUTION MATRIX_MULTIPLY QUANTIZE DEQUANTIZE CAST CONSTANT ELEMENTWISE"
)


class ILogger:
    """What TensorRT logs to; a caller derives from it."""

    Severity = IntEnum("Severity", "INTERNAL_ERROR ERROR WARNING INFO VERBOSE", start=0)

    def log(self, severity: ILogger.Severity, msg: str) -> None:
        raise NotImplementedError


class IProgressMonitor:
    """What TensorRT tells how far a build is; a caller derives from it."""

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        raise NotImplementedError

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError


def refuse(logger: ILogger, text: str) -> None:
    """Log an error, in the stand-in's own words."""
    logger.log(ILogger.Severity.ERROR, f"[stand-in] {text}")


def asked_to_fail(what: str) -> bool:
    """Whether the environment says that this is to fail."""
    return what in os.environ.get("STAND_IN_TENSORRT_FAIL", "").split(",")
