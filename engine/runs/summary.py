"""The summary that `grade` prints: studies by worst grade, frequent warnings, where the results are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stenosis_trt.engine.runs.batch import RunSummary

_MOST_FREQUENT = 6
WARNING_MEANINGS = {
    "axial_slice_gap": "the nearest axial slice is over 4 mm away",
    "axial_slices_mixed": "axial slices of two contrasts were left out",
    "axial_unmatched": "axial series has another frame of reference",
    "body_part_not_cervical": "the header names another body region",
    "contrast_agent": "contrast agent was given",
    "cord_axes_not_crossing": "the cord's diameters do not cross",
    "cord_axes_not_orthogonal": "the cord's diameters are not orthogonal",
    "cord_low_confidence": "the cord's outline is uncertain",
    "cord_not_measured": "the cord was found and not measured",
    "cord_size_implausible": "the cord's size is implausible",
    "edge_of_stack": "a neighbouring slice is missing",
    "fat_suppressed": "fat is suppressed in the images",
    "grade_low_confidence": "no grade reached the minimum probability",
    "graded_on_cpu": "the GPU failed, and the CPU graded it",
    "level_implausible": "a disc is not where one can be",
    "level_not_found": "a disc was not recognised",
    "level_number_uncertain": "discs may be numbered one off: count them",
    "level_out_of_view": "the images do not reach a disc",
    "lossy_compression": "images were compressed with loss",
    "low_contrast": "the region is nearly flat",
    "no_axial_series": "no axial T2 series: no compression ratio",
    "no_axial_slice": "no axial slice near a level",
    "out_of_distribution": "a region is unlike the training data",
    "patient_identity_unknown": "images that name no patient",
    "patient_names_differ": "one PatientID, another name or birth date",
    "sagittal_second_choice": "a better sagittal series was not gradable",
    "sagittal_slice_gap": "a sagittal slice is missing",
    "series_repeated": "two folders repeat one another's series",
    "series_uid_per_slice": "slices with a UID each were joined",
    "slices_left_out": "images in another plane were left out",
    "slices_unreadable": "a file could not be read",
    "sop_uid_shared": "one SOP Instance UID for several slices",
    "study_uid_shared": "another patient has the same study UID",
    "thin_slices": "slices are closer than 2 mm",
    "uid_replaced": "a UID is not valid, its hash is written",
}
"""A short explanation of each warning. With its name and a count it fits into 80 columns."""


def summary_lines(run: RunSummary) -> Iterator[str]:
    """Yield the summary of a run line by line."""
    worst = run.worst_grades
    if worst:
        yield "Studies by worst grade:"
        for grade, studies in sorted(worst.items(), key=lambda item: 1 if item[0] is None else -item[0]):
            yield f"  {'no level graded' if grade is None else f'grade {grade}':24} {studies:6}"
    if run.warnings:
        # Equally frequent warnings are in alphabetical order, so that the output is reproducible.
        ranked = sorted(run.warnings.items(), key=lambda item: (-item[1], item[0]))
        yield "Most frequent warnings, by studies:"
        for warning, studies in ranked[:_MOST_FREQUENT]:
            yield f"  {warning:24} {studies:6}  {WARNING_MEANINGS.get(warning, '')}".rstrip()
        if len(ranked) > _MOST_FREQUENT:
            yield f"  and {len(ranked) - _MOST_FREQUENT} more; see studies.csv and the README"
    yield _totals(run)
    yield f"Results: {run.display_path}"


def _totals(run: RunSummary) -> str:
    parts = [f"{run.graded} of {run.studies} studies graded"] if run.studies else ["No study was found"]
    if run.skipped:
        parts.append(f"{run.skipped} done before")
    if run.failed:
        parts.append(f"{run.failed} could not be graded")
    if run.problems:
        problems = "1 problem" if run.problems == 1 else f"{run.problems} problems"
        parts.append(f"{problems} in errors.csv")
    return f"{', '.join(parts)}."
