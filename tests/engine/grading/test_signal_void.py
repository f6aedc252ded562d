"""Signal voids beside the canal: drawn ones are found, dark discs and images without a reference are not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest
from made_study import made_study

from stenosis_trt.engine.grading.cord import canal_line
from stenosis_trt.engine.grading.levels import LevelPoint
from stenosis_trt.engine.grading.signal_void import MAXIMUM_VOID_SIGNAL, levels_in_voids, void_signals
from stenosis_trt.engine.records import LEVELS, LoadedSlice

MARROW, AIR = 400, 20
HEIGHTS = (45.0, 27.0, 9.0, -9.0, -27.0, -45.0)


def levels(shown: Sequence[float] = HEIGHTS) -> list[LevelPoint]:
    return [LevelPoint(name, (0.0, 0.0, z), 0.9) for name, z in zip(LEVELS, shown, strict=False)]


def slices(*boxes: tuple[float, float, float], lateral: float = 20.0) -> list[LoadedSlice]:
    """Marrow from y = −80 to 60 mm, air elsewhere, and at each (z, height, signal) a box 16 mm deep.

    Boxes reach `lateral` mm to both sides of the mid-line.
    """
    found = []
    for item in made_study().sagittal:
        y, z = (
            item.pose.to_patient(grid)[..., k] for grid, k in ((pixel_grid(item), 1), (pixel_grid(item), 2))
        )
        image = np.where((y > -80) & (y < 60), MARROW, AIR)
        for centre, height, signal in boxes:
            inside = (np.abs(z - centre) < height / 2) & (y < -1) & (y > -17)
            if abs(item.pose.origin[0]) <= lateral:
                image[inside] = signal
        found.append(replace(item, stored=image.astype(np.uint16)))
    return found


def pixel_grid(item: LoadedSlice) -> npt.NDArray[np.int64]:
    rows, columns = item.stored.shape
    return np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1)


def signals(shown: Sequence[LoadedSlice], of: Sequence[LevelPoint] | None = None) -> list[float]:
    found = levels() if of is None else list(of)
    return [float(value) for value in void_signals(shown, found, canal_line(found))]


def test_a_void_is_found_at_its_level_alone() -> None:
    found = signals(slices((9.0, 14.0, AIR)))
    assert found[2] == pytest.approx(0.0, abs=0.02)
    assert all(value > 0.6 for k, value in enumerate(found) if k != 2)
    assert levels_in_voids(slices((9.0, 14.0, AIR)), levels(), canal_line(levels())) == {"C4/5"}


@pytest.mark.parametrize(("height", "signal"), [(6.0, AIR), (8.0, AIR), (9.0, 60), (14.0, 160)])
def test_a_dark_disc_and_dark_marrow_are_no_void(height: float, signal: int) -> None:
    shown = slices((9.0, height, signal))
    assert min(signals(shown)) > MAXIMUM_VOID_SIGNAL + 0.05
    assert levels_in_voids(shown, levels(), canal_line(levels())) == set()


def test_a_void_that_hides_all_marrow_of_two_levels_is_compared_with_that_of_others() -> None:
    found = signals(slices((0.0, 50.0, AIR)))
    assert found[2:4] == pytest.approx([0.0, 0.0], abs=0.02)
    assert found[0] == found[5] == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(("centre", "height", "hidden"), [(0.0, 84.0, 4), (-9.0, 102.0, 5)])
def test_a_void_over_most_of_the_neck_is_found(centre: float, height: float, hidden: int) -> None:
    found = signals(slices((centre, height, AIR)))
    assert sum(value <= MAXIMUM_VOID_SIGNAL for value in found) == hidden
    assert found[0] > MAXIMUM_VOID_SIGNAL + 0.1


def test_a_coil_that_sees_little_of_the_foot_makes_no_void() -> None:
    """The signal falls by a factor of 3 from C5 to T1; discs have a third of the marrow's."""
    shown = []
    for item in slices(*[(z, 6.0, 130) for z in HEIGHTS]):
        z = item.pose.to_patient(pixel_grid(item))[..., 2]
        fall = np.interp(z, [-45.0, 0.0], [1 / 3, 1.0])
        shown.append(replace(item, stored=np.asarray(AIR + (item.stored - AIR) * fall, dtype=np.uint16)))
    assert min(signals(shown)) > MAXIMUM_VOID_SIGNAL + 0.1


def test_the_airway_in_front_of_a_small_neck_is_no_void() -> None:
    """Vertebral bodies of 9 mm, 4 mm of tissue before them, then air; discs of 5 mm."""
    shown = []
    for item in slices(*[(z, 5.0, 120) for z in HEIGHTS]):
        y = item.pose.to_patient(pixel_grid(item))[..., 1]
        shown.append(replace(item, stored=np.where(y < -13.0, AIR, item.stored).astype(np.uint16)))
    assert min(signals(shown)) > MAXIMUM_VOID_SIGNAL


def test_what_one_slice_of_three_shows_is_no_void() -> None:
    assert min(signals(slices((9.0, 14.0, AIR), lateral=1.0))) > 0.9


def test_neither_offset_nor_inverted_values_change_the_signal() -> None:
    shown = slices((9.0, 14.0, AIR), (-27.0, 6.0, 100))
    shifted = [
        replace(item, stored=item.stored + np.uint16(500), frame=replace(item.frame, intercept=-500.0))
        for item in shown
    ]
    inverted = [
        replace(
            item,
            stored=np.asarray(2000 - item.stored.astype(int), dtype=np.uint16),
            frame=replace(item.frame, slope=-1.0, intercept=2000.0),
        )
        for item in shown
    ]
    assert signals(shifted) == pytest.approx(signals(shown))
    assert signals(inverted) == pytest.approx(signals(shown))


def test_in_an_image_without_air_its_darkest_tissue_is_not_air() -> None:
    shown = [
        replace(item, stored=np.where(item.stored == AIR, MARROW, item.stored).astype(np.uint16))
        for item in slices((9.0, 14.0, 160))
    ]
    assert min(signals(shown)) > MAXIMUM_VOID_SIGNAL


def test_without_marrow_or_outside_of_the_images_there_is_no_void() -> None:
    black = [replace(item, stored=np.zeros_like(item.stored)) for item in slices()]
    assert signals(black) == [1.0] * 6
    beyond = levels((95.0, 77.0, 59.0, 41.0, 23.0, 5.0))
    assert signals(slices(), beyond)[0] == pytest.approx(1.0)
    assert void_signals(slices(), [], canal_line(levels())).shape == (0,)


def test_levels_that_were_not_found_are_left_out() -> None:
    found = levels()
    missing = [*found[:2], replace(found[2], point=None), *found[3:]]
    assert levels_in_voids(slices((9.0, 14.0, AIR)), missing, canal_line(missing)) == set()
