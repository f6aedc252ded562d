"""Levels from heatmaps, the canal's line, the cord, and which slice stands for which level."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from tiny_pack import CORD_NAMES, input_spec

from stenosis_trt.engine.backends.base import Cords, Roi
from stenosis_trt.engine.backends.stepwise import patient_keypoints, patient_peaks
from stenosis_trt.engine.geometry import SlicePose, Vector
from stenosis_trt.engine.grading.chains import is_plausible, most_plausible
from stenosis_trt.engine.grading.cord import CanalLine, CordSlice, canal_line, crossing_slices, measure_cord
from stenosis_trt.engine.grading.levels import LevelPoint
from stenosis_trt.engine.grading.match import match_levels
from stenosis_trt.engine.grading.numbering import locate_levels
from stenosis_trt.engine.packs.crop import input_to_heatmap, slice_roi
from stenosis_trt.engine.packs.models import ModelSpec, OutputSpec
from stenosis_trt.engine.records import LEVELS, CordMeasurement, FrameHeader, LoadedSlice
from stenosis_trt.kernels.decoding import decode_peaks, keypoint_support
from stenosis_trt.kernels.reference import cord_geometry

LEVEL_MODEL = ModelSpec(
    "levels", "", "", "fp32", input_spec(256, 1.0, 1, "sagittal"), OutputSpec("heatmaps", LEVELS, 4, 0.3)
)
CORD_MODEL = ModelSpec(
    "cord", "", "", "fp32", input_spec(128, 0.5, 1, "axial"), OutputSpec("heatmaps", CORD_NAMES, 2, 0.3)
)
# A gently curved neck, C2/3 to C7/T1, in the patient's mid-plane at x = 2.
NECK = [(2.0, float(0.006 * z * z - 30.0), float(z)) for z in (40, 24, 8, -8, -25, -44)]


def _slice(pose: SlicePose, name: str) -> LoadedSlice:
    return LoadedSlice(
        FrameHeader(Path(name), 0, name, pose), pose, np.zeros((pose.rows, pose.columns), np.uint16)
    )


def _sagittal(height: float = 240.0, bottom: float = -120.0) -> list[LoadedSlice]:
    rows = int(height / 0.8)
    return [
        _slice(
            SlicePose((x, -120.0, bottom + height), (0, 1, 0), (0, 0, -1), 0.8, 0.8, rows, 300, 3.0), f"s{x}"
        )
        for x in np.arange(-13.2, 14.0, 3.3)
    ]


def _decoded(slices: list[LoadedSlice], points: list[Vector | None]) -> tuple[np.ndarray, list[np.ndarray]]:
    """What the network would answer: peaks that fade with the distance from the mid-plane."""
    decoded = np.zeros((len(slices), len(LEVELS), 3), dtype=np.float32)
    affines = []
    for row, item in enumerate(slices):
        affine = slice_roi(item.pose, item.pose.centre, LEVEL_MODEL.input)
        affines.append(affine)
        for level, point in enumerate(points):
            if point is None:
                continue
            column, line, off = item.pose.to_pixels(point)
            xy = np.linalg.inv(affine[:, :2]) @ (np.array([column, line]) - affine[:, 2])
            decoded[row, level, :2] = input_to_heatmap(xy, 4)
            decoded[row, level, 2] = 0.95 * np.exp(-0.5 * (off / 6.0) ** 2)
    return decoded, affines


def _locate(slices: list[LoadedSlice], points: list[Vector | None]) -> tuple[LevelPoint, ...]:
    return _from_decoded(slices, *_decoded(slices, points))


def _from_decoded(
    slices: list[LoadedSlice], decoded: np.ndarray, affines: list[np.ndarray]
) -> tuple[LevelPoint, ...]:
    """Levels from one peak a map, (N, K, 3), or several, (N, K, P, 3), where no other map is high."""
    rois = [Roi((k,), affine) for k, affine in enumerate(affines)]
    peaks = decoded.reshape(*decoded.shape[:2], -1, 3).astype(np.float32)
    support = peaks[:, :, :1, 2] * np.eye(len(LEVELS), dtype=np.float32)
    return locate_levels(slices, patient_peaks(slices, rois, peaks, support, 4), LEVEL_MODEL).levels


def _from_maps(
    slices: list[LoadedSlice], maps: np.ndarray, affines: list[np.ndarray]
) -> tuple[LevelPoint, ...]:
    rois = [Roi((k,), affine) for k, affine in enumerate(affines)]
    peaks = patient_peaks(slices, rois, decode_peaks(maps), keypoint_support(maps), 4)
    return locate_levels(slices, peaks, LEVEL_MODEL).levels


def _blob(x: float, y: float, height: float) -> np.ndarray:
    rows, columns = np.mgrid[0:64, 0:64]
    return np.asarray(height * np.exp(-0.5 * ((columns - x) ** 2 + (rows - y) ** 2) / 1.5**2))


def _measure(item: LoadedSlice, affine: np.ndarray, decoded: np.ndarray) -> CordMeasurement:
    keypoints = patient_keypoints([item], [Roi((0,), affine)], decoded[None], 2)
    down = np.array([0.0, 0.0, -1.0])
    angle = float(np.degrees(np.arccos(abs(item.pose.normal @ down))))
    across = [CordSlice(0, item.pose.centre, 0.0, down, angle)]
    cords = Cords(keypoints, cord_geometry(keypoints.points, [down]))
    return measure_cord([item], across, cords, CORD_MODEL)[0]


def test_levels_come_back_in_three_dimensions() -> None:
    found = _locate(_sagittal(), list(NECK))
    assert [item.level for item in found] == list(LEVELS)
    for item, truth in zip(found, NECK, strict=True):
        assert item.point is not None
        assert np.linalg.norm(np.subtract(item.point, truth)) < 0.6
        assert item.warnings == ()


def test_a_level_without_a_peak_is_not_found() -> None:
    points: list[Vector | None] = list(NECK)
    points[2] = None
    found = _locate(_sagittal(), points)
    assert found[2].point is None
    assert found[2].warnings == ("level_not_found",)


def test_a_level_far_from_its_neighbours_is_dropped_as_implausible() -> None:
    points: list[Vector | None] = list(NECK)
    points[3] = (2.0, 40.0, 10.0)
    found = _locate(_sagittal(), points)
    assert found[3].warnings == ("level_implausible",)
    assert sum(item.point is not None for item in found) == 5


def _locate_between(at_place: list[float], one_lower: list[float], swapped: int) -> tuple[LevelPoint, ...]:
    """From maps that are high at a level's own disc and at the next one: heights in the mid-plane.

    In slice `swapped` the first level's map is the higher at the next disc.
    """
    slices = _sagittal()
    decoded, affines = _decoded(slices, list(NECK))
    maps = np.zeros((len(slices), len(LEVELS), 64, 64))
    for number in range(len(slices)):
        for level in range(len(LEVELS)):
            heights = [at_place[level], one_lower[level]]
            if number == swapped and level == 0:
                heights = heights[::-1]
            for disc, height in zip((level, level + 1), heights, strict=True):
                if disc < len(LEVELS):
                    x, y, fade = decoded[number, disc]
                    blob = _blob(x, y, fade / 0.95 * height)
                    maps[number, level] = np.maximum(maps[number, level], blob)
    return _from_maps(slices, maps, affines)


def test_a_level_taken_for_its_neighbour_is_found_where_the_others_leave_it_a_place() -> None:
    torn = _locate_between([0.8, 0.5, 0.5, 0.8, 0.8, 0.8], [0.6, 0.6, 0.6, 0.5, 0.5, 0.0], swapped=5)
    for item, truth in zip(torn, NECK, strict=True):
        assert item.point is not None
        assert np.linalg.norm(np.subtract(item.point, truth)) < 2.5
        # Numbered one lower, the maps would be nearly as high.
        assert item.warnings == ("level_number_uncertain",)


def test_levels_whose_maps_are_low_elsewhere_are_numbered_without_doubt() -> None:
    clear = _locate_between([0.8] * 6, [0.2] * 6, swapped=20)
    assert all(item.point is not None and item.warnings == () for item in clear)
    doubtful = _locate_between([0.8] * 6, [0.6] * 6, swapped=20)
    assert all(item.point is not None for item in doubtful)
    assert all(item.warnings == ("level_number_uncertain",) for item in doubtful)


@pytest.mark.parametrize("hidden", [0, 2])
def test_numbers_are_in_doubt_where_the_images_end_close_above_the_first_disc(hidden: int) -> None:
    """Another disc may lie there: only C2, above which there is none, shows where counting begins."""
    points: list[Vector | None] = [None] * hidden + list(NECK[hidden:])
    for above, doubt in ((30.0, ()), (12.0, ("level_number_uncertain",))):
        # Levels that are not found have their place above, too.
        found = _locate(_sagittal(NECK[0][2] + above + 120.0), points)
        assert [item.point is None for item in found] == [index < hidden for index in range(6)]
        assert {item.warnings for item in found[hidden:]} == {doubt}


def test_discs_as_far_apart_as_lumbar_ones_are_no_cervical_spine() -> None:
    lumbar = [(2.0, -20.0, 90.0 - 36.0 * k) for k in range(6)]
    found = _locate(_sagittal(), list(lumbar))
    assert sum(item.point is not None for item in found) < 3


def test_levels_in_the_wrong_order_are_not_all_kept() -> None:
    found = _locate(_sagittal(), list(reversed(NECK)))
    assert sum(item.point is not None for item in found) < 3


def test_a_level_below_the_images_edge_is_out_of_view() -> None:
    points: list[Vector | None] = [*NECK[:4], None, None]
    found = _locate(_sagittal(height=140.0, bottom=-18.0), points)
    assert found[4].warnings == found[5].warnings == ("level_out_of_view",)


def test_a_level_found_at_the_images_edge_or_beyond_is_out_of_view() -> None:
    found = _locate(_sagittal(height=150.0, bottom=-28.0), list(NECK))
    assert [item.warnings for item in found[4:]] == [("level_out_of_view",)] * 2
    assert all(item.point is not None for item in found[:4])


def test_a_stack_beside_the_mid_plane_shows_no_level() -> None:
    found = _locate([item for item in _sagittal() if item.pose.origin[0] > 3.0], list(NECK))
    assert [item.warnings for item in found] == [("level_out_of_view",)] * 6


def test_two_levels_on_one_disc_are_not_both_believed() -> None:
    """Below C5/6 the network was a level off: C7/T1 has the higher peak, and lies where C6/7 is."""
    points = list(NECK[:4])
    slices = _sagittal()
    decoded, affines = _decoded(slices, [*points, NECK[4], (2.0, NECK[4][1], NECK[4][2] - 5.0)])
    decoded[:, 4, 2] *= 0.9
    found = _from_decoded(slices, decoded, affines)
    assert found[5].warnings == ("level_implausible",)
    assert found[4].point is not None


def test_a_peak_on_another_place_of_a_side_slice_has_no_say() -> None:
    slices = _sagittal()
    decoded, affines = _decoded(slices, list(NECK))
    decoded[0, 2, :] = (5.0, 5.0, 0.8)
    found = _from_decoded(slices, decoded, affines)
    assert found[2].point is not None
    assert np.linalg.norm(np.subtract(found[2].point, NECK[2])) < 0.8


def test_a_peak_that_changes_by_next_to_nothing_moves_the_point_by_next_to_nothing() -> None:
    slices = _sagittal()
    xs = []
    for share in np.linspace(0.0, 1.0, 201):
        decoded, affines = _decoded(slices, list(NECK))
        decoded[2, 2, 2] = share * decoded[:, 2, 2].max()
        point = _from_decoded(slices, decoded, affines)[2].point
        assert point is not None
        xs.append(point[0])
    assert np.ptp(xs) > 1.0
    assert np.abs(np.diff(xs)).max() < 0.05


def test_it_does_not_matter_which_of_two_peaks_of_a_slice_is_the_highest() -> None:
    """One slice sees the last level a disc lower as well, a little less or a little more."""
    slices = _sagittal()
    below = (2.0, NECK[5][1] + 4.0, NECK[5][2] - 18.0)
    decoded, affines = _decoded(slices, [*NECK[:5], below])
    lower = decoded[:, 5, :2]
    decoded, _ = _decoded(slices, list(NECK))
    maps = np.array([[_blob(*peak) for peak in level] for level in decoded.astype(np.float64)])
    found = []
    for change in (-1e-3, 1e-3):
        changed, blob = maps.copy(), _blob(*lower[3], 1.0)
        blob *= (maps[3, 5].max() + change) / blob.max()
        changed[3, 5] = np.maximum(maps[3, 5], blob)
        assert (decode_peaks(changed)[3, 5, 0, 1] > decoded[3, 5, 1] + 2) == (change > 0)
        found.append(_from_maps(slices, changed, affines))
    for one, other, alone in zip(*found, _from_maps(slices, maps, affines), strict=True):
        assert one.point is not None
        assert other.point is not None
        assert alone.point is not None
        assert np.linalg.norm(np.subtract(one.point, other.point)) < 0.05
        assert np.linalg.norm(np.subtract(one.point, alone.point)) < 0.05


def test_a_peak_that_leaves_a_disc_loses_its_weight_gradually() -> None:
    slices = _sagittal()
    places = []
    for away in np.linspace(0.0, 10.0, 101):
        decoded, affines = _decoded(slices, list(NECK))
        decoded[2, 2, 0] += away / 4.0
        decoded[2, 2, 2] = 0.9
        point = _from_decoded(slices, decoded, affines)[2].point
        assert point is not None
        places.append(point)
    assert np.ptp(places, axis=0).max() > 0.2
    assert np.linalg.norm(np.diff(places, axis=0), axis=1).max() < 0.2


def test_it_does_not_matter_which_of_two_slices_has_the_highest_peak() -> None:
    """The peaks of two slices are 4 mm apart; another lies beyond one of them."""
    slices = _sagittal()
    found = []
    for change in (-1e-3, 1e-3):
        decoded, affines = _decoded(slices, list(NECK))
        middle = decoded[4, 2].copy()
        decoded[3:6, 2] = middle
        decoded[3, 2, 0] -= 0.5
        decoded[4, 2, 0] += 0.5
        decoded[5, 2, 0] += 1.5
        decoded[3, 2, 2] += change
        point = _from_decoded(slices, decoded, affines)[2].point
        assert point is not None
        found.append(point)
    assert np.linalg.norm(np.subtract(*found)) < 0.05


def test_the_order_of_the_peaks_of_a_map_does_not_matter() -> None:
    slices = _sagittal()
    decoded, affines = _decoded(slices, list(NECK))
    rng = np.random.default_rng(0)
    peaks = np.stack([decoded, decoded * (1, 1, 0.5) + (0, 5, 0), np.zeros_like(decoded)], axis=2)
    expected = _from_decoded(slices, peaks, affines)
    mixed = rng.permuted(np.arange(3) * np.ones((*decoded.shape[:2], 1), int), axis=2)
    found = _from_decoded(slices, np.take_along_axis(peaks, mixed[..., None], axis=2), affines)
    assert [item.warnings for item in found] == [item.warnings for item in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.point == pytest.approx(other.point, abs=1e-9)


def test_the_chain_is_the_best_of_all_plausible_ones() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        candidates = [
            [
                LevelPoint(level, (0.0, y, z), float(rng.uniform(0.3, 1.0)))
                for y, z in rng.normal((NECK[index][1], NECK[index][2]), 6.0, (int(rng.integers(1, 4)), 2))
            ]
            for index, level in enumerate(LEVELS)
        ]
        chains = [chain for chain in product(*([*each, None] for each in candidates)) if is_plausible(chain)]
        best = max(chains, key=lambda chain: sum(item.confidence for item in chain if item is not None))
        assert most_plausible(candidates, lambda _: 0.0, 0.0) == best


def _points() -> list[LevelPoint]:
    return [LevelPoint(level, point, 0.9) for level, point in zip(LEVELS, NECK, strict=True)]


def _axial(z: float, tilt: float = 0.0) -> LoadedSlice:
    angle = np.deg2rad(tilt)
    column = np.array([0.0, np.cos(angle), np.sin(angle)])
    origin = np.array([-70.0, 0.0, z]) - column * 80.0
    pose = SlicePose(tuple(origin), (1, 0, 0), tuple(column), 0.5, 0.5, 280, 280, 3.0)  # type: ignore[arg-type]
    return _slice(pose, f"a{z}")


def test_the_canal_runs_behind_its_front_wall() -> None:
    line = canal_line(_points())
    assert set(line.level_arc_length_mm) == set(LEVELS)
    for level, wall in zip(LEVELS, NECK, strict=True):
        nearest = line.points[np.argmin(np.linalg.norm(line.points - np.array(wall), axis=1))]
        assert 5.0 < np.linalg.norm(nearest - wall) < 9.0
        assert nearest[1] > wall[1]
        assert line.level_arc_length_mm[level] >= 0.0
    assert list(line.level_arc_length_mm.values()) == sorted(line.level_arc_length_mm.values())


def _arc_of_circle(degrees: float) -> tuple[float, float, float]:
    """Point of a front wall that is bent with a radius of 150 mm, and runs straight down at 0°."""
    angle = np.deg2rad(degrees)
    return (3.0, 150.0 * (1.0 - np.cos(angle)), -150.0 * np.sin(angle))


_BENT = (-15.0, -9.0, -3.0, 3.0, 9.0, 15.0)
"""Degrees of the six discs on the circle."""


def test_the_direction_of_an_evenly_bent_canal_is_right_up_to_its_ends() -> None:
    levels = [LevelPoint(name, _arc_of_circle(at), 0.9) for name, at in zip(LEVELS, _BENT, strict=True)]
    line = canal_line(levels)
    found = line.directions_at([line.level_arc_length_mm[name] for name in LEVELS])
    truth = [[0.0, np.sin(np.deg2rad(at)), -np.cos(np.deg2rad(at))] for at in _BENT]
    assert np.degrees(np.arccos(np.clip((found * truth).sum(axis=1), -1, 1))).max() < 0.5
    assert np.linalg.norm(found, axis=1) == pytest.approx(1.0)


def test_the_direction_between_two_levels_is_that_of_their_line() -> None:
    levels = [LevelPoint(name, _arc_of_circle(at), 0.9) for name, at in (("C3/4", -9.0), ("C5/6", 3.0))]
    line = canal_line([LevelPoint("C2/3", None, 0.0), *levels])
    chord = np.subtract(levels[1].point, levels[0].point)
    assert line.directions == pytest.approx(np.tile(chord / np.linalg.norm(chord), (4, 1)))
    assert line.level_arc_length_mm["C3/4"] == 0.0


def test_points_beyond_the_levels_turn_the_line_and_are_no_levels() -> None:
    """The wall bends only above C2/3, as at the head: without C2 nothing shows it."""
    levels = [LevelPoint(name, (3.0, 0.0, -16.0 * k), 0.9) for k, name in enumerate(LEVELS)]
    alone, line = canal_line(levels), canal_line(levels, [(3.0, 0.0, -98.0), (3.0, -4.0, 11.0)])
    assert set(line.level_arc_length_mm) == set(LEVELS)
    assert line.level_arc_length_mm["C2/3"] == 0.0
    assert line.arc_length_mm[0] == pytest.approx(alone.arc_length_mm[0])
    assert line.arc_length_mm[-1] - line.level_arc_length_mm["C7/T1"] == pytest.approx(12.0)
    assert (np.diff(line.arc_length_mm) > 0).all()
    assert alone.directions_at([0.0])[0, 1] == pytest.approx(0.0, abs=1e-9)
    assert line.directions_at([0.0])[0, 1] > 0.03


def test_slices_are_met_where_they_cross_the_canal() -> None:
    slices = [_axial(200.0), _axial(8.0, 10.0), _axial(-200.0)]
    across = crossing_slices(canal_line(_points()), slices)
    assert [item.index for item in across] == [1]
    assert float(slices[1].pose.to_pixels(across[0].centre)[2]) == pytest.approx(0.0, abs=1e-9)


def _cord_decoded(
    item: LoadedSlice, centre: np.ndarray, ap: float, transverse: float
) -> tuple[np.ndarray, np.ndarray]:
    affine = slice_roi(item.pose, centre, CORD_MODEL.input)
    across, back = np.array(item.pose.row_direction), np.array(item.pose.column_direction)
    points = [
        centre - back * ap / 2,
        centre + back * ap / 2,
        centre + across * transverse / 2,
        centre - across * transverse / 2,
    ]
    pixels = np.array([item.pose.to_pixels(point)[:2] for point in points])
    xy = (pixels - affine[:, 2]) @ np.linalg.inv(affine[:, :2]).T
    return np.column_stack([input_to_heatmap(xy, 2), np.full(4, 0.9)]).astype(np.float32), affine


def test_the_cords_diameters_are_those_across_the_cord_on_a_tilted_slice() -> None:
    item = _axial(8.0, 20.0)
    decoded, affine = _cord_decoded(item, item.pose.centre, 6.5 / np.cos(np.deg2rad(20.0)), 13.0)
    measured = _measure(item, affine, decoded)
    assert measured.slice_angle_degrees == pytest.approx(20.0)
    assert measured.ap_mm == pytest.approx(6.5, abs=1e-3)
    assert measured.transverse_mm == pytest.approx(13.0, abs=1e-3)
    assert measured.compression_ratio == pytest.approx(0.5, abs=1e-3)
    assert measured.warnings == ()


@pytest.mark.parametrize(
    ("ap", "transverse", "confidence", "warning"),
    [
        (0.8, 13.0, 0.9, "cord_size_implausible"),
        (6.0, 26.0, 0.9, "cord_size_implausible"),
        (6.0, 13.0, 0.1, "cord_low_confidence"),
    ],
)
def test_a_doubtful_cord_is_flagged(ap: float, transverse: float, confidence: float, warning: str) -> None:
    item = _axial(8.0)
    decoded, affine = _cord_decoded(item, item.pose.centre, ap, transverse)
    decoded[:, 2] = confidence
    assert warning in _measure(item, affine, decoded).warnings


def test_axes_that_do_not_cross_are_flagged() -> None:
    item = _axial(8.0)
    decoded, affine = _cord_decoded(item, item.pose.centre, 7.0, 13.0)
    decoded[2:, 1] += 12.0
    assert "cord_axes_not_crossing" in _measure(item, affine, decoded).warnings


def _cord(ratio: float, *warnings: str) -> CordMeasurement:
    corner = (0.0, 0.0, 0.0)
    return CordMeasurement(f"{ratio}", (corner,) * 4, ratio * 13, 13.0, ratio, 0.9, warnings)


def _across(arcs: list[float]) -> list[CordSlice]:
    return [CordSlice(k, np.zeros(3), arc, np.array([0.0, 0.0, -1.0])) for k, arc in enumerate(arcs)]


def test_the_slice_of_maximal_compression_near_a_level_is_taken() -> None:
    line = canal_line(_points())
    arc = line.level_arc_length_mm["C4/5"]
    matches = match_levels(
        line, _across([arc - 20, arc - 4, arc, arc + 4]), [_cord(r) for r in (0.2, 0.5, 0.4, 0.6)]
    )
    assert matches["C4/5"].cord == _cord(0.4)
    assert matches["C4/5"].warnings == ()


def test_a_doubtful_slice_does_not_stand_for_a_level() -> None:
    line = canal_line(_points())
    arc = line.level_arc_length_mm["C4/5"]
    both = [_cord(0.2, "cord_size_implausible"), _cord(0.5)]
    assert match_levels(line, _across([arc, arc + 3]), both)["C4/5"].cord == _cord(0.5)
    alone = match_levels(line, _across([arc]), both[:1])["C4/5"]
    assert alone.cord is None
    assert alone.warnings == ("cord_not_measured", "cord_size_implausible")


def test_a_level_without_a_slice_near_it_says_so() -> None:
    line = canal_line(_points())
    matches = match_levels(line, _across([line.level_arc_length_mm["C2/3"]]), [_cord(0.5)])
    assert matches["C2/3"].cord is not None
    assert matches["C6/7"].warnings == ("no_axial_slice",)


def test_a_gap_in_the_axial_stack_is_flagged() -> None:
    line = canal_line(_points())
    matches = match_levels(line, _across([line.level_arc_length_mm["C3/4"] + 5.0]), [_cord(0.5)])
    assert matches["C3/4"].warnings == ("axial_slice_gap",)


def _oblique(ratio: float, degrees: float, *warnings: str) -> CordMeasurement:
    return replace(_cord(ratio, *warnings), slice_angle_degrees=degrees)


@pytest.mark.parametrize(("degrees", "warnings"), [(25.0, ()), (25.1, ("oblique_slice",))])
def test_a_slice_that_is_oblique_to_the_cord_is_flagged(degrees: float, warnings: tuple[str, ...]) -> None:
    line = canal_line(_points())
    found = match_levels(line, _across([line.level_arc_length_mm["C4/5"]]), [_oblique(0.5, degrees)])["C4/5"]
    assert found.cord is not None
    assert found.warnings == warnings


@pytest.mark.parametrize(("degrees", "warnings"), [(39.0, ()), (41.0, ("slice_too_oblique",))])
def test_a_slice_that_is_too_oblique_to_the_cord_gives_no_ratio(
    degrees: float, warnings: tuple[str, ...]
) -> None:
    item = _axial(8.0, degrees)
    decoded, affine = _cord_decoded(item, item.pose.centre, 6.5 / np.cos(np.deg2rad(degrees)), 13.0)
    measured = _measure(item, affine, decoded)
    assert measured.warnings == warnings
    line = canal_line(_points())
    found = match_levels(line, _across([line.level_arc_length_mm["C4/5"]]), [measured])["C4/5"]
    expected = ("cord_not_measured", *warnings) if warnings else ("oblique_slice",)
    assert (found.cord is None, found.warnings) == (bool(warnings), expected)


def _packs(*slices: tuple[float, int, float]) -> list[CordSlice]:
    """Slices of several series: arc in mm, series, angle in degrees."""
    down = np.array([0.0, 0.0, -1.0])
    return [CordSlice(k, np.zeros(3), arc, down, angle, of) for k, (arc, of, angle) in enumerate(slices)]


def test_of_two_axial_packs_only_the_one_on_both_sides_of_a_level_counts() -> None:
    """The neighbouring pack's lowest slice comes near, and has the lower ratio."""
    line = canal_line(_points())
    arc = line.level_arc_length_mm["C4/5"]
    across = _packs((arc - 16, 0, 5), (arc - 1, 0, 5), (arc - 3, 1, 5), (arc + 3, 1, 5))
    match = match_levels(line, across, [_cord(r) for r in (0.6, 0.3, 0.5, 0.55)])["C4/5"]
    assert match.cord == _cord(0.5)


def test_of_two_axial_packs_on_both_sides_of_a_level_the_less_tilted_counts() -> None:
    line = canal_line(_points())
    arc = line.level_arc_length_mm["C4/5"]
    across = _packs((arc - 2, 0, 25), (arc + 2, 0, 25), (arc - 4, 1, 3), (arc + 4, 1, 3))
    match = match_levels(line, across, [_cord(r) for r in (0.3, 0.35, 0.5, 0.55)])["C4/5"]
    assert match.cord == _cord(0.5)


def test_a_tilted_axial_slice_is_known_by_its_angle_to_the_canal() -> None:
    item = _axial(8.0, 20.0)
    x, y, z = item.pose.centre
    ends, down = np.array([[x, y, z + 50], [x, y, z - 50]]), np.array([[0.0, 0.0, -1.0]] * 2)
    line = CanalLine(ends, np.array([0.0, 100.0]), {"C4/5": 50.0}, down)
    (tilted,) = crossing_slices(line, [item], [3])
    assert tilted.angle_degrees == pytest.approx(20.0)
    assert (tilted.series, tilted.arc_length_mm) == (3, pytest.approx(50.0))
