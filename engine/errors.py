"""The errors that a caller of stenosis-trt may have to handle. All of them are a `StenosisError`."""

from __future__ import annotations

import re

from stenosis_trt.engine.records import Stage


class StenosisError(Exception):
    """Base class of all errors that this package raises on purpose.

    Attributes:
        reason: what is wrong, as one sentence. It never quotes a value that could identify a patient.
        advice: what to do about it, as one sentence; "" where `reason` says it all.
    """

    def __init__(self, reason: str, advice: str = "") -> None:
        super().__init__(f"{reason} {advice}".rstrip())
        self.reason, self.advice = reason, advice


class InputError(StenosisError):
    """Files or a study that cannot be read or graded."""


class CannotGrade(InputError):
    """A study that must not be graded.

    Attributes:
        stage: the stage of the pipeline that refused it.
    """

    def __init__(self, stage: Stage, reason: str, advice: str) -> None:
        super().__init__(reason, advice)
        self.stage = stage


class PackError(StenosisError):
    """A model pack that cannot be used."""


class SignatureError(PackError):
    """A key that cannot be used, or a signature that is missing, wrong, or made with an untrusted key."""


class DeviceError(StenosisError):
    """A GPU, its driver or its libraries that cannot be used as requested."""


class TensorRTError(DeviceError):
    """A failure of TensorRT, or a version of it that cannot be used."""

    @property
    def out_of_memory(self) -> bool:
        """True if TensorRT ran out of memory: its message has "OutOfMemory" or "out of memory"."""
        return re.search(r"out ?of ?memory", self.reason, re.IGNORECASE) is not None


class PlanError(TensorRTError):
    """A TensorRT plan that is missing, stale or not what its sidecar says. `advice` has the command."""


class OutputError(StenosisError):
    """An output folder that cannot be used."""


class NotWritten(OutputError):
    """A valid output folder that cannot be written to, for example because the disk is full."""
