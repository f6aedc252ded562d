"""The levels model is run on the slices that count, and finds what it finds on the whole stack."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from level_peaks import MAP_NAMES, level_peaks, sagittal_stack, straight_neck
from level_peaks import MODEL as LANDMARK_MODEL
from tiny_pack import input_spec

from stenosis_trt.engine.backends.base import Peaks, Roi
from stenosis_trt.engine.geometry import SlicePose, Vector
from stenosis_trt.engine.grading.level_slices import locate_in_range
from stenosis_trt.engine.grading.levels import LevelPoint
from stenosis_trt.engine.grading.numbering import locate_levels
from stenosis_trt.engine.packs.models import ModelSpec, OutputSpec
from stenosis_trt.engine.records import LEVELS, FrameHeader, LoadedSlice

MODEL = ModelSpec(
    "levels", "", "", "fp32", input_spec(256, 1.0, 1, "sagittal"), OutputSpec("heatmaps", LEVELS, 4, 0.3)
)
STEP_MM = 3.3
NECK: list[Vector] = [(0.0, float(0.006 * z * z - 30.0), float(z)) for z in (40, 24, 8, -8, -25, -44)]


def _stack(slices: int) -> list[LoadedSlice]:
    """Sagittal slices around x = 0, from right to left."""
    stack = []
    for k in range(slices):
        x = (k - (slices - 1) / 2) * STEP_MM
        pose = SlicePose((x, -120.0, 120.0), (0, 1, 0), (0, 0, -1), 0.8, 0.8, 300, 300, 3.0)
        stack.append(
            LoadedSlice(FrameHeader(Path(f"s{k}"), 0, f"s{k}", pose), pose, np.zeros((300, 300), np.uint16))
        )
    return stack


class _Network:
    """Levels whose peaks fade with the distance from their points, and the slices that it was run on."""

    def __init__(
        self, stack: Sequence[LoadedSlice], points: Sequence[Vector | None], peak: float = 0.95
    ) -> None:
        self.calls: list[list[int]] = []
        x = np.array([item.pose.origin[0] for item in stack])
        self.whole = Peaks(
            np.zeros((len(stack), 6, 1, 3)), np.full((len(stack), 6, 1), 0.01), np.zeros((len(stack), 6, 6))
        )
        for level, point in enumerate(points):
            if point is not None:
                self.whole.points[:, level, 0] = np.column_stack([x, np.tile(point[1:], (len(x), 1))])
                self.whole.heights[:, level, 0] = peak * np.exp(-0.5 * ((x - point[0]) / 6.0) ** 2)
        index = np.arange(6)
        self.whole.support[:, index, index] = self.whole.heights[:, :, 0]

    def locate(self, rois: Sequence[Roi]) -> Peaks:
        chosen = [roi.slices[0] for roi in rois]
        self.calls.append(chosen)
        whole = self.whole
        return Peaks(whole.points[chosen], whole.heights[chosen], whole.support[chosen])

    @property
    def slices(self) -> list[int]:
        """Every slice that it was run on, as often as it was."""
        return sorted(k for call in self.calls for k in call)


def _both(
    stack: list[LoadedSlice], network: _Network
) -> tuple[tuple[LevelPoint, ...], tuple[LevelPoint, ...]]:
    """Levels from the slices that were chosen, and from the whole stack."""
    rois = [Roi((k,), np.eye(2, 3)) for k in range(len(stack))]
    some = locate_in_range(network.locate, rois, [item.pose for item in stack])
    return locate_levels(stack, some, MODEL).levels, locate_levels(stack, network.whole, MODEL).levels


@pytest.mark.parametrize("middle", [0.0, 1.5, -9.0, 14.0])
def test_slices_far_from_the_mid_line_are_not_run_wherever_it_lies(middle: float) -> None:
    stack = _stack(19)
    network = _Network(stack, [(middle, y, z) for _, y, z in NECK])
    found, expected = _both(stack, network)
    for one, other in zip(found, expected, strict=True):
        assert one.point is not None
        assert other.point is not None
        assert np.linalg.norm(np.subtract(one.point, other.point)) < 0.05
        assert (one.confidence, one.warnings) == (other.confidence, other.warnings)
    # No slice twice, and all from the first to the last.
    assert network.slices == list(range(network.slices[0], network.slices[-1] + 1))
    assert len(network.slices) <= 15


def test_a_mid_line_in_the_middle_takes_one_call() -> None:
    stack = _stack(19)
    network = _Network(stack, NECK)
    _both(stack, network)
    assert network.calls == [list(range(6, 13))]


def test_levels_of_a_scoliotic_spine_are_followed_to_both_sides() -> None:
    stack = _stack(21)
    network = _Network(
        stack, [(x, *point[1:]) for x, point in zip((-12, -7, -2, 3, 8, 13), NECK, strict=True)]
    )
    found, expected = _both(stack, network)
    for one, other in zip(found, expected, strict=True):
        assert one.point == pytest.approx(other.point, abs=0.05)
        assert one.warnings == other.warnings


@pytest.mark.parametrize("side", [-1.0, 1.0])
def test_a_mid_line_beyond_the_stack_is_out_of_view_as_in_the_whole_stack(side: float) -> None:
    stack = _stack(13)
    network = _Network(stack, [(side * 6.5 * STEP_MM, y, z) for _, y, z in NECK])
    found, expected = _both(stack, network)
    assert found == expected
    assert all(item.warnings == ("level_out_of_view",) for item in found)


def test_a_level_that_is_not_seen_clearly_is_looked_for_in_the_whole_stack() -> None:
    stack = _stack(19)
    points: list[Vector | None] = [*NECK]
    points[5] = None
    network = _Network(stack, points)
    found, expected = _both(stack, network)
    assert network.slices == list(range(19))
    assert len(network.calls) == 2
    assert found == expected
    assert found[5].warnings == ("level_not_found",)


def test_a_stack_that_is_not_wider_than_the_middle_is_run_at_once() -> None:
    stack = _stack(7)
    network = _Network(stack, NECK)
    found, expected = _both(stack, network)
    assert network.calls == [list(range(7))]
    assert found == expected


def test_a_stack_with_no_slice_near_its_middle_is_run_whole() -> None:
    stack = [item for item in _stack(19) if abs(item.pose.origin[0]) > 13.0]
    network = _Network(stack, NECK)
    _both(stack, network)
    assert network.slices == list(range(len(stack)))


def test_faint_landmarks_do_not_make_more_slices_run() -> None:
    """T1/2 is seen at the ends of the stack alone, and the dens nowhere."""
    stack = sagittal_stack(slices=19)
    neck = straight_neck(x=0.0)
    maps = neck.maps()
    del maps["dens"]
    whole = level_peaks(stack, maps)
    whole.heights[:, MAP_NAMES.index("T1/2")] = 0.1
    whole.heights[[0, -1], MAP_NAMES.index("T1/2"), 0] = 0.6
    network = _Network(stack, NECK)
    network.whole = whole
    rois = [Roi((k,), np.eye(2, 3)) for k in range(len(stack))]
    some = locate_in_range(network.locate, rois, [item.pose for item in stack])
    assert network.calls == [list(range(6, 13))]
    assert some.support.shape == (19, 10, 10)
    found = locate_levels(stack, some, LANDMARK_MODEL)
    assert all(item.point is not None and item.warnings == () for item in found.levels)
    assert set(found.landmarks) == {"C2", "T2/3"}
