"""Which graded studies are graded again when a run is resumed: those that may have more images now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stenosis_trt.engine.records import Stage

_MOST_TRIES = 3
"""Gradings of a study of which a file ends its reading process each time."""


def lost_an_image(problem: Mapping[str, Any]) -> bool:
    """Whether a problem that was kept with a study, a `Problem` as a dictionary, is of a file whose pixels
    were lost."""
    file = not (problem["harmless"] or problem.get("of_study", False))
    return file and problem["stage"] == Stage.PIXELS.value


def may_read_more(kept: Mapping[str, Any], read_with: Mapping[str, Any]) -> bool:
    """Whether a study lost images that may be read now: under other limits or with other decoders, or where
    what lost them may have passed.

    What ends a reading process each time is the file's fault in the end: after three gradings under the same
    limits and decoders the study is done.

    Args:
        kept: what was kept of the study.
        read_with: what decides now which files can be read.
    """
    lost = list(filter(lost_an_image, kept["problems"]))
    if kept.get("read_with") != read_with:
        return bool(lost)
    return any(problem.get("temporary", False) for problem in lost) and kept.get("tries", 1) < _MOST_TRIES


def tries(kept: Mapping[str, Any], read_with: Mapping[str, Any]) -> int:
    """How often a study was graded under the limits and decoders of now."""
    number: int = kept.get("tries", 1) if kept.get("read_with") == read_with else 0
    return number
