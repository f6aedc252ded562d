"""Colours of the grades: apart for colour-blind readers, and in their order in grey print."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pytest

from stenosis_trt.engine.reports.pictures.grade_colours import (
    GRADE_STYLES,
    GREYS,
    INK_LEVELS,
    MEASUREMENT_COLOUR,
    PALETTE,
)

SIGHTS = {
    "normal": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
"""Linear RGB as seen: Machado, Oliveira and Fernandes, IEEE TVCG 2009, severity 1.0."""
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
"""Of linear sRGB (IEC 61966-2-1)."""


def _linear(colour: tuple[int, int, int]) -> np.ndarray:
    value = np.array(colour) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def _lab(colour: tuple[int, int, int], sight: str = "normal") -> np.ndarray:
    seen = np.clip(np.array(SIGHTS[sight]) @ _linear(colour), 0, 1)
    x, y, z = np.cbrt(np.maximum(XYZ @ seen / XYZ.sum(axis=1), 1e-9))
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def _luminance(colour: tuple[int, int, int]) -> float:
    return float((XYZ @ _linear(colour))[1])


@pytest.mark.parametrize("sight", SIGHTS)
def test_any_two_grades_are_told_apart(sight: str) -> None:
    for one, other in combinations(GRADE_STYLES, 2):
        assert np.linalg.norm(_lab(one.colour, sight) - _lab(other.colour, sight)) > 25, (one, other)


@pytest.mark.parametrize("sight", SIGHTS)
def test_a_higher_grade_is_darker_by_a_step_that_shows_in_grey_print(sight: str) -> None:
    lightness = [_lab(style.colour, sight)[0] for style in GRADE_STYLES]
    assert all(one - other > 9 for one, other in pairwise(lightness)), lightness


def test_black_digits_and_a_black_page_contrast_with_every_colour() -> None:
    # WCAG 2.2, 1.4.3: 4.5 : 1.
    for colour in (*(style.colour for style in GRADE_STYLES), MEASUREMENT_COLOUR):
        assert (_luminance(colour) + 0.05) / 0.05 > 4.5


def test_every_grade_has_a_shape_a_name_and_a_number_of_its_own() -> None:
    assert [style.grade for style in GRADE_STYLES] == [0, 1, 2, 3]
    assert len({style.shape for style in GRADE_STYLES}) == len({style.name for style in GRADE_STYLES}) == 4
    assert GRADE_STYLES[3].css == "#e6206e"


def test_the_palette_holds_greys_and_each_colour_up_to_its_full_strength() -> None:
    assert PALETTE.shape == (256, 3)
    assert tuple(PALETTE[0]) == (0, 0, 0)
    assert tuple(PALETTE[GREYS - 1]) == (255, 255, 255)
    for style in GRADE_STYLES:
        assert tuple(PALETTE[GREYS + (style.grade + 1) * INK_LEVELS - 1]) == style.colour
