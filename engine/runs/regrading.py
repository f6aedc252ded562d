"""Which graded studies are graded again when a run is resumed: those that may have more images now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stenosis_trt.engine.records import Problem, Stage
from stenosis_trt.engine.runs.stored_results import StoredStudy

_MOST_TRIES = 3
"""Gradings of a study of which a file ends its reading process each time."""


def lost_image(problem: Problem) -> bool:
    """Whether a problem that was kept with a study is of a file whose pixels were lost."""
    return problem.stage is Stage.PIXELS and not problem.harmless and not problem.of_study


def should_regrade(kept: StoredStudy, read_with: Mapping[str, Any]) -> bool:
    """Whether a study lost images that may be read now: under other limits or with other decoders, or where
    what lost them may have passed.

    What ends a reading process each time is the file's fault in the end: after three gradings under the same
    limits and decoders the study is done.

    Args:
        kept: what was kept of the study.
        read_with: what decides now which files can be read.
    """
    lost = list(filter(lost_image, kept.problems))
    if kept.read_with != read_with:
        return bool(lost)
    return any(problem.temporary for problem in lost) and kept.tries < _MOST_TRIES


def grading_attempts(kept: StoredStudy, read_with: Mapping[str, Any]) -> int:
    """How often a study was graded under the limits and decoders of now."""
    return kept.tries if kept.read_with == read_with else 0
