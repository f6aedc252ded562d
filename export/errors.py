"""What keeps a pack from being converted or measured, as one line for a person."""

from __future__ import annotations

from stenosis_trt.engine.errors import StenosisError


class PreparationError(StenosisError):
    """Something that is needed is missing or unfit."""


class StudiesError(PreparationError):
    """Studies that cannot be used."""


class PrecisionError(PreparationError):
    """A model that cannot be had in a precision."""


class ExportError(StenosisError):
    """A network that cannot be exported as it should be."""
