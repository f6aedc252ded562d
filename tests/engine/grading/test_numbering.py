"""Numbers of the discs from maps of the discs and of the landmarks that they are counted from."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from level_peaks import (
    DISC_NAMES,
    MODEL,
    Blob,
    Neck,
    level_peaks,
    moved,
    random_neck,
    sagittal_stack,
    straight_neck,
)

from stenosis_trt.engine.grading.levels import LocatedLevels
from stenosis_trt.engine.grading.numbering import locate_levels
from stenosis_trt.engine.records import LEVELS, LoadedSlice

UNCERTAIN = ("level_number_uncertain",)
NECK = straight_neck()


def _locate(maps: dict[str, list[Blob]], stack: list[LoadedSlice] | None = None) -> LocatedLevels:
    slices = stack or sagittal_stack()
    return locate_levels(slices, level_peaks(slices, maps), MODEL)


def _warnings(located: LocatedLevels) -> set[tuple[str, ...]]:
    return {item.warnings for item in located.levels}


def _is_right(located: LocatedLevels, neck: Neck) -> bool:
    """True if each level that has a point lies at its own disc."""
    return all(
        np.linalg.norm(np.subtract(item.point, neck.discs[number])[1:]) < 8.0
        for number, item in enumerate(located.levels)
        if item.point is not None
    )


def test_discs_that_the_landmarks_fit_are_numbered_without_doubt() -> None:
    # By the discs alone this would be in doubt: they are almost as high one lower.
    located = _locate(NECK.maps(neighbours=0.7))
    assert [item.level for item in located.levels] == list(LEVELS)
    assert _is_right(located, NECK)
    assert _warnings(located) == {()}
    assert located.c2_shown


def test_points_of_landmarks_are_given_where_they_fit() -> None:
    located = _locate(NECK.maps())
    expected = {"T1/2": NECK.discs[6], "T2/3": NECK.discs[7], **NECK.landmarks}
    assert set(located.landmarks) == set(expected)
    for name, point in expected.items():
        assert located.landmarks[name] == pytest.approx(point, abs=0.6)
    elsewhere = _locate({**NECK.maps(), "dens": [(NECK.landmarks["dens"] + [0, 0, 18.0], 0.9)]})
    assert set(elsewhere.landmarks) == {"T1/2", "T2/3", "C2"}


@pytest.mark.parametrize("seen", ["C2", "dens"])
def test_one_landmark_is_enough(seen: str) -> None:
    maps = NECK.maps()
    del maps["dens" if seen == "C2" else "C2"]
    assert _warnings(_locate(maps)) == {()}


def test_the_number_is_in_doubt_where_c2_should_be_seen_and_is_not() -> None:
    maps = NECK.maps(neighbours=0.1)
    del maps["C2"], maps["dens"]
    located = _locate(maps)
    assert located.c2_shown
    assert _is_right(located, NECK)
    assert _warnings(located) == {UNCERTAIN}


@pytest.mark.parametrize("shift", [-1, 1])
def test_discs_one_off_are_put_right_or_doubted_by_the_landmarks(shift: int) -> None:
    for neighbours in (0.0, 0.3, 0.5, 0.7, 0.9):
        located = _locate(NECK.maps(shift, neighbours))
        assert _is_right(located, NECK) or _warnings(located) >= {UNCERTAIN}
    assert _is_right(_locate(NECK.maps(shift, 0.9)), NECK)
    assert not _is_right(_locate(NECK.maps(shift, 0.3)), NECK)


@pytest.mark.parametrize("height", [0.85, 0.5])
def test_the_number_is_in_doubt_where_the_landmarks_fit_another_one_better(height: float) -> None:
    maps = NECK.maps()
    maps["C2"] = [(NECK.landmarks["C2"] - [0, 0, 16.5], 0.9)]
    maps["dens"] = [(NECK.landmarks["dens"], height)]
    clear = height > 0.9 / 1.5
    assert _warnings(_locate(maps)) == ({()} if clear else {UNCERTAIN})


def test_the_number_is_in_doubt_where_landmarks_and_discs_fit_another_one_nearly_as_well() -> None:
    maps = NECK.maps(neighbours=0.9)
    maps["C2"] = [(NECK.landmarks["C2"] - [0, 0, 16.5], 0.9)]
    assert _warnings(_locate(maps)) == {UNCERTAIN}


def test_a_faint_second_peak_of_a_landmark_does_not_matter() -> None:
    maps = NECK.maps()
    for name in ("C2", "dens"):
        maps[name].append((NECK.landmarks[name] - [0, 0, 16.5], 0.4))
    assert _warnings(_locate(maps)) == {()}


@pytest.mark.parametrize("gap_mm", [13.5, 16.5, 20.0])
@pytest.mark.parametrize("tilt_degrees", [-20.0, 20.0])
def test_necks_of_all_sizes_are_counted_however_they_are_tilted(gap_mm: float, tilt_degrees: float) -> None:
    # C2 has the same height in all of them: worn discs are low, their vertebrae are not.
    neck = straight_neck(gap_mm, tilt_degrees)
    located = _locate(neck.maps(neighbours=0.6))
    assert _is_right(located, neck)
    assert _warnings(located) == {()}


@pytest.mark.parametrize(("above_mm", "shown"), [(17.0, True), (13.0, False), (6.0, False), (-4.0, False)])
def test_images_that_end_close_above_c2_3_do_not_show_c2(above_mm: float, shown: bool) -> None:
    located = _locate(NECK.maps(), sagittal_stack(top_mm=float(NECK.discs[0][2]) + above_mm))
    assert located.c2_shown == shown
    assert _is_right(located, NECK)


def test_levels_that_lie_above_the_images_are_out_of_view() -> None:
    located = _locate(NECK.maps(), sagittal_stack(top_mm=float(NECK.discs[1][2]) + 8.0))
    assert not located.c2_shown
    assert located.levels[0].warnings == ("level_out_of_view",)


def test_rates_of_the_doubt_on_random_necks() -> None:
    """Noise, maps that are high at other discs, landmarks that are missed or seen twice.

    One in ten landmarks is missed, and one in ten of the others is seen a second time a disc lower.
    """
    rng = np.random.default_rng(16)
    counts: Counter[tuple[bool, bool, bool]] = Counter()
    for number in range(120):
        shift = 0 if number % 2 else int(rng.choice([-1, 1]))
        neck = random_neck(rng)
        stack = sagittal_stack(top_mm=float(neck.discs[0][2]) + rng.uniform(45.0, 90.0), slices=5)
        maps = moved(neck, rng, 1.0).maps(shift, neighbours=rng.uniform(0.2, 0.8))
        for name, blobs in maps.items():
            scale = rng.uniform(0.6 if name in DISC_NAMES else 0.4, 1.05)
            maps[name] = [(point, scale * height) for point, height in blobs]
        for name in ("C2", "dens"):
            if rng.random() < 0.1:
                maps[name] = []
            elif rng.random() < 0.1:
                point, height = maps[name][0]
                maps[name].append((point - [0, 0, 16.5], height * rng.uniform(0.2, 0.9)))
        located = _locate(maps, stack)
        counts[shift != 0, _is_right(located, neck), UNCERTAIN in _warnings(located)] += 1
    right = {doubted: counts[False, True, doubted] for doubted in (False, True)}
    wrong = {doubted: sum(counts[off, False, doubted] for off in (False, True)) for doubted in (False, True)}
    assert sum(right.values()) >= 55
    assert right[True] <= 0.1 * sum(right.values())
    assert sum(wrong.values()) >= 50
    assert wrong[True] >= 0.95 * sum(wrong.values())
