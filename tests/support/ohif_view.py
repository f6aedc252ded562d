"""What OHIF has to show of a report, and what of that it does not show.

`viewers/ohif.mjs` reads what the viewer holds and draws; `deviations` compares it with the result that was
reported. Lengths are in mm.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loopback_network import LoopbackNetwork
from viewer_tools import CHROMIUM_FLAGS, command_path

from stenosis_trt.engine.geometry import SlicePose, Vector
from stenosis_trt.engine.records import LevelResult
from stenosis_trt.engine.reports.study_report import StudyReport

SCRIPT = Path(__file__).parents[1] / "viewers" / "ohif.mjs"
TOLERANCE_MM = 1.0
STEP_SECONDS = 30
"""Limit of each step in the viewer."""
VIEW_SECONDS = 100
"""Limit of opening one display set and looking at everything in it."""

View = dict[str, Any]
"""What ohif.mjs prints of one display set."""
Shape = tuple[Vector, ...]
"""A point, or the ends of a line, LPS."""


@dataclass(frozen=True)
class ExpectedMeasurement:
    """One entry of a report as the viewer has to show it.

    Attributes:
        sop: SOP Instance UID of the image that it is drawn on.
        title: first line of its text.
        values: the further lines: name and value as the viewer prints them.
        shapes: what is drawn, in the plane of the image.
    """

    sop: str
    title: str
    values: tuple[tuple[str, str], ...]
    shapes: tuple[Shape, ...]

    @property
    def texts(self) -> list[str]:
        """The lines that are drawn beside the shapes, without spaces at their ends."""
        return [f"{self.title}:", *(f"{name}: {value}" for name, value in self.values)]


@dataclass(frozen=True)
class DisplaySet:
    """A series to open.

    Attributes:
        name: for its pictures.
        series: Series Instance UID.
        drawing_seconds: limit of drawing a measurement.
    """

    name: str
    series: str
    drawing_seconds: float = STEP_SECONDS


def open_in_ohif(
    network: LoopbackNetwork,
    url: str,
    study_uid: str,
    display_sets: Sequence[DisplaySet],
    playwright_core: Path,
    chromium: str,
    pictures: Path,
) -> dict[str, View]:
    """Open each display set in a new page, step through its measurements, and return what the viewer shows.

    Args:
        network: where the pages are served and the browser runs.
        url: of the pages.
        study_uid: Study Instance UID.
        display_sets: what to open.
        playwright_core: folder of the package.
        chromium: path of the browser.
        pictures: folder for screenshots, NAME-STEP.png; it exists.

    Returns:
        The view of each display set, by its name.
    """
    task = {
        "playwright": str(playwright_core),
        "chromium": chromium,
        "flags": CHROMIUM_FLAGS,
        "url": url,
        "study": study_uid,
        "shots": str(pictures),
        "seconds": STEP_SECONDS,
        "displaySets": [
            {"name": item.name, "series": item.series, "drawingSeconds": item.drawing_seconds}
            for item in display_sets
        ],
    }
    command = [command_path("node"), str(SCRIPT)]
    done = network.run(command, json.dumps(task).encode(), VIEW_SECONDS * len(display_sets))
    assert done.returncode == 0, done.stderr.decode()[-2000:]
    return {view["name"]: view for view in json.loads(done.stdout)["views"]}


def expected_axial(report: StudyReport) -> list[ExpectedMeasurement]:
    """Return what a viewer has to show of the SR of the axial images: each level's diameters and ratio."""
    assert report.images is not None
    found = []
    for level in report.result.levels:
        if level.cord is None:
            continue
        pose = report.images.axial[level.level].pose
        anterior, posterior, left, right = (_in_plane(pose, point) for point in level.cord.points)
        found.append(
            ExpectedMeasurement(
                level.cord.sop_instance_uid,
                _title(level),
                (
                    ("Cord AP diameter", f"{level.cord.ap_mm:.2f} mm"),
                    ("Cord transverse diameter", f"{level.cord.transverse_mm:.2f} mm"),
                    ("Cord compression ratio", f"{level.cord.compression_ratio:.2f} {{ratio}}"),
                ),
                ((anterior, posterior), (left, right)),
            )
        )
    return found


def expected_sagittal(report: StudyReport) -> list[ExpectedMeasurement]:
    """Return what a viewer has to show of the SR of the sagittal images: the point of each graded level."""
    assert report.images is not None
    found = []
    for level in report.result.levels:
        if level.grade is None or level.probabilities is None or level.point is None:
            continue
        point = _in_plane(report.images.sagittal[level.level].pose, level.point)
        probability = ("Probability of the Kang grade", f"{100 * level.probabilities[level.grade]:.2f} %")
        found.append(ExpectedMeasurement(level.sagittal_sop_uid, _title(level), (probability,), ((point,),)))
    return found


def _title(level: LevelResult) -> str:
    """The words that stand for a level in a viewer."""
    return f"{level.level} not graded" if level.grade is None else f"{level.level} Kang grade {level.grade}"


def deviations(view: View, expected: Sequence[ExpectedMeasurement]) -> list[str]:
    """Return how a view of an SR differs from what it has to show, a sentence each; [] if it does not."""
    if view["opened"]:
        return [f"it was not opened: {view['opened']}"]
    state, found = view["state"], []
    if not state["isLoaded"]:
        found.append("its display set is not loaded")
    if len(state["measurements"]) != len(expected):
        found.append(f"{len(state['measurements'])} measurements are listed, not {len(expected)}")
    for index, item in enumerate(state["measurements"]):
        if not item["loaded"]:
            found.append(f"measurement {index + 1} is not loaded")
    if len(state["annotations"]) != len(expected):
        found.append(f"{len(state['annotations'])} annotations are held, not {len(expected)}")
    for index, step in enumerate(view["steps"]):
        if not step["settled"]:
            found.append(f"measurement {index + 1} is not drawn on its image")
    for item in expected:
        found += _deviations_of(view, item)
    return [*found, *disturbances(view)]


def disturbances(view: View) -> list[str]:
    """Return the errors that a viewer showed or logged."""
    return [f"a message is shown: {text}" for text in view["toasts"]] + [
        f"the console has an error: {text}" for text in view["console"]
    ]


def _deviations_of(view: View, item: ExpectedMeasurement) -> list[str]:
    found = []
    labels = [item.title, *(f"{name}: {value}" for name, value in item.values)]
    listed = [entry for entry in view["state"]["measurements"] if _labels(entry) == labels]
    if [entry["sop"] for entry in listed] != [item.sop]:
        found.append(f"{item.title}: it is not listed once, with its values and its image")
    held = [entry for entry in view["state"]["annotations"] if _labels(entry) == labels]
    if [entry["sop"] for entry in held] != [item.sop]:
        found.append(f"{item.title}: no annotation of its image has its values")
    found += [
        f"{item.title}: no annotation is within {TOLERANCE_MM:g} mm of {_rounded(shape)}"
        for shape in item.shapes
        if not any(_is_near(shape, drawn) for entry in held for drawn in entry["shapes"])
    ]
    screens = [
        viewport for step in view["steps"] for viewport in step["value"] if viewport["sop"] == item.sop
    ]
    if not any(_reads(text, item.texts) for viewport in screens for text in viewport["texts"]):
        found.append(f"{item.title}: its text is not on the screen with its image")
    found += [
        f"{item.title}: nothing is drawn within {TOLERANCE_MM:g} mm of {_rounded(shape)}"
        for shape in item.shapes
        if not any(_is_drawn(shape, viewport["shapes"]) for viewport in screens)
    ]
    return found


def _labels(entry: dict[str, Any]) -> list[str]:
    """The labels of a measurement or an annotation, as lines."""
    return [": ".join(part for part in (label["label"], label["value"]) if part) for label in entry["labels"]]


def _reads(lines: Iterable[str], texts: Sequence[str]) -> bool:
    return [line.strip() for line in lines] == list(texts)


def _is_drawn(shape: Shape, drawn: Iterable[dict[str, Any]]) -> bool:
    """Whether a line is among the lines; for a point, which an arrow shows, whether a line ends there."""
    lines = [item["points"] for item in drawn]
    if len(shape) == 1:
        return any(_is_near(shape, (end,)) for points in lines for end in points)
    return any(_is_near(shape, points) for points in lines)


def _is_near(shape: Shape, points: Sequence[Sequence[float]]) -> bool:
    if len(shape) != len(points):
        return False
    return any(
        all(math.dist(one, other) <= TOLERANCE_MM for one, other in zip(shape, order, strict=True))
        for order in (points, points[::-1])
    )


def _in_plane(pose: SlicePose, point: Vector) -> Vector:
    """The foot of the perpendicular from a point onto the plane of an image."""
    column, row, _ = pose.to_pixels(point)
    x, y, z = (float(value) for value in pose.to_patient((column, row)))
    return x, y, z


def _rounded(shape: Shape) -> str:
    return " - ".join(f"({x:.1f}, {y:.1f}, {z:.1f})" for x, y, z in shape)
