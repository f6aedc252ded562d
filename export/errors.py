"""What keeps a pack from being converted or measured, as one line for a person."""

from __future__ import annotations


class PreparationError(Exception):
    """Something that is needed is missing or unfit. `reason` says what, `advice` how to mend it."""

    def __init__(self, reason: str, advice: str) -> None:
        super().__init__(f"{reason} {advice}")
        self.reason, self.advice = reason, advice


class StudiesError(PreparationError):
    """Studies that cannot be used."""


class PrecisionError(PreparationError):
    """A model that cannot be had in a precision."""


class ExportError(Exception):
    """A network that cannot be exported as it should be."""
