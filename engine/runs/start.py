"""The start of a run: models, which take longest, are begun with before the rest of the program is imported.

This module, `opening` and `options` import little.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stenosis_trt.engine.runs.opening import Opening
from stenosis_trt.engine.runs.options import GradeOptions
from stenosis_trt.engine.runs.summary import RunSummary


def start_run(paths: Sequence[Path], out: Path, options: GradeOptions) -> RunSummary:
    """Grade all studies below `paths`; see `batch.grade_paths`, which is imported meanwhile."""
    with Opening(options) as opening:
        from stenosis_trt.engine.runs.batch import grade_paths

        return grade_paths(paths, out, options, opening=opening)
