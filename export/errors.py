"""Errors of preparing a pack."""

from __future__ import annotations

from stenosis_trt.engine.errors import StenosisError


class PreparationError(StenosisError):
    """A requirement of conversion or measurement is missing or unusable."""


class StudiesError(PreparationError):
    """Studies that cannot be used for calibration or validation."""


class PrecisionError(PreparationError):
    """A model that cannot be converted to a precision."""


class ExportError(StenosisError):
    """A network that cannot be exported."""
