"""Comparison with healthy adults: the norms that ship, numbers by hand, and what is left out."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shared_data import shared_data

from stenosis_trt.bench.accuracy.healthy_norms import (
    Person,
    condense,
    disc_index,
    level_compression,
    level_measurements,
    norms_json,
    read_persons,
)
from stenosis_trt.engine.grading import healthy
from stenosis_trt.engine.grading.healthy import (
    QUANTITIES,
    Norm,
    compare_with_healthy,
    healthy_norms,
    is_comparable,
    was_measured,
)
from stenosis_trt.engine.packs.pack import open_pack
from stenosis_trt.engine.records import LEVELS, CordMeasurement, HealthyComparison

NORMS = Path(healthy.__file__).parent / "norms"


@pytest.fixture
def all_comparable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(healthy, "is_comparable", lambda level, quantity: True)


def _cord(ap: float, transverse: float, angle: float) -> CordMeasurement:
    """A measurement across the cord, on a slice at an angle to it in degrees."""
    points = ((0.0, 0.0, 0.0),) * 4
    return CordMeasurement("1", points, ap, transverse, ap / transverse, 0.9, (), None, angle)  # type: ignore[arg-type]


def _person(diameters: np.ndarray, disc: int) -> Person:
    """A person whose slices from foot to head change from C5 to C4 between `disc` − 1 and `disc`."""
    return Person(diameters, np.where(np.arange(len(diameters)) < disc, 5, 4), 30.0, True)


def test_a_disc_lies_where_the_vertebra_changes() -> None:
    assert disc_index(np.array([6, 6, 5, 5, 5, 4]), "C5/6") == 1.5
    assert disc_index(np.array([6, 6, 5, 5, 5, 4]), "C4/5") == 4.5
    assert disc_index(np.array([6, 6, 5, 5, 5, 4]), "C3/4") is None


def test_a_level_is_measured_on_the_slab_with_the_lowest_ratio_for_each_place_of_the_slabs() -> None:
    """Cord of 8 by 12 mm, but for 3.5 mm (seven slices) of 6 by 12 mm right at the disc."""
    diameters = np.tile([8.0, 12.0], (40, 1))
    diameters[17:24, 0] = 6.0
    found = [*level_measurements(_person(diameters, 20), "C4/5")]
    assert len(found) == 7
    # A slab that meets the seven exactly shows 6 mm; one that is shifted by three slices meets four of them.
    assert min(ap for _, ap, _ in found) == pytest.approx(6.0)
    assert max(ap for _, ap, _ in found) == pytest.approx((4 * 6.0 + 3 * 8.0) / 7)
    assert all(ratio == pytest.approx(ap / transverse) for ratio, ap, transverse in found)


def test_a_narrow_place_farther_than_6_mm_from_the_disc_does_not_count() -> None:
    diameters = np.tile([8.0, 12.0], (60, 1))
    # Middles of slabs lie within 12 slices of 29.5, and a slab reaches 3 slices to both sides: 15 to 44.
    diameters[:15, 0] = 1.0
    diameters[45:, 0] = 1.0
    assert {ap for _, ap, _ in level_measurements(_person(diameters, 30), "C4/5")} == {8.0}
    diameters[44, 0] = 1.0
    assert min(ap for _, ap, _ in level_measurements(_person(diameters, 30), "C4/5")) == 7.0


def test_a_person_whose_slices_do_not_reach_or_have_no_value_is_left_out() -> None:
    diameters = np.tile([8.0, 12.0], (40, 1))
    assert not [*level_measurements(_person(diameters, 12), "C4/5")]
    assert not [*level_measurements(_person(diameters, 20), "C3/4")]
    diameters[20, 0] = np.nan
    assert not [*level_measurements(_person(diameters, 20), "C4/5")]


def test_mscc_of_a_person_is_that_of_the_cord_10_to_30_mm_above_and_below() -> None:
    """Half a millimetre a slice, the disc at 100: 20 to 60 slices away."""
    diameters = np.tile([1.0, 12.0], (200, 1))
    diameters[81:119] = [6.0, 12.0]
    diameters[120:161, 0] = 8.0
    diameters[40:81, 0] = 7.0
    assert level_compression(_person(diameters, 100), "C4/5") == pytest.approx((0.2, 0.25, 1 / 7))
    short = _person(diameters[81:], 19)
    assert level_compression(short, "C4/5") == pytest.approx((np.nan, 0.25, np.nan), nan_ok=True)


def test_norms_that_ship_are_of_203_adults_and_rise_with_their_percentiles() -> None:
    content = json.loads((NORMS / "healthy_cord.json").read_text(encoding="utf-8"))
    assert (content["persons"], content["age_years"]) == (203, [19.0, 52.0])
    assert (NORMS / "LICENSE-PAM50-normalized-metrics.txt").read_text().startswith("MIT License")
    assert tuple(content["levels"]) == LEVELS
    for quantities in content["levels"].values():
        assert tuple(quantities) == QUANTITIES
        for item in quantities.values():
            values = np.array(item["percentiles"])
            assert len(values) == 101
            assert item["persons"] == 203
            assert (np.diff(values) >= 0).all()
            assert abs(item["mean"] - values[50]) < 0.2 * item["sd"]
            assert values[84] - values[16] == pytest.approx(2 * item["sd"], rel=0.15)


@pytest.mark.shared_data
def test_norms_that_ship_are_those_of_their_source() -> None:
    source = shared_data("..", "norms", "pam50_spine_generic.csv")
    assert norms_json(condense(read_persons(source))) == (NORMS / "healthy_cord.json").read_text("utf-8")


def test_z_score_and_percentile_of_worked_numbers() -> None:
    """Percentiles 0, 25, 50, 75, 100 at 4, 5, 6, 7, 9."""
    norm = Norm(6.0, 0.5, (4.0, 5.0, 6.0, 7.0, 9.0))
    assert norm.z_score(5.25) == pytest.approx(-1.5)
    assert norm.percentile(5.5) == pytest.approx(37.5)
    assert norm.percentile(8.0) == pytest.approx(87.5)
    assert (norm.percentile(1.0), norm.percentile(20.0)) == (0.0, 100.0)


@pytest.mark.usefixtures("all_comparable")
def test_the_mean_of_healthy_adults_has_a_z_score_of_zero_and_a_percentile_near_50() -> None:
    for level, norms in healthy_norms().items():
        section = _cord(norms["ap_mm"].mean, norms["transverse_mm"].mean, 0.0)
        found = compare_with_healthy(level, section)
        assert found is not None
        assert found.ap_z == found.transverse_z == 0.0
        assert found.compression_ratio_z == pytest.approx(0.0, abs=0.15)
        for value in (found.compression_ratio_percentile, found.ap_percentile, found.transverse_percentile):
            assert value == pytest.approx(50.0, abs=6.0)


@pytest.mark.usefixtures("all_comparable")
def test_the_flatter_the_cord_the_lower_its_z_score_and_percentile() -> None:
    sections = [_cord(float(ap), 13.0, 5.0) for ap in np.linspace(1.5, 12.0, 40)]
    for level in LEVELS:
        found = [compare_with_healthy(level, section) for section in sections]
        z = [item.compression_ratio_z for item in found if item and item.compression_ratio_z is not None]
        percentiles = [item.compression_ratio_percentile for item in found if item]
        assert len(z) == 40
        assert all(math.isfinite(value) for value in z)
        assert z == sorted(set(z))
        assert percentiles == sorted(percentiles, key=lambda value: value or 0.0)
        assert (percentiles[0], percentiles[-1]) == (0.0, 100.0)


def test_an_oblique_slice_is_not_compared() -> None:
    assert compare_with_healthy("C4/5", _cord(7.0, 13.0, 30.0)) is not None
    assert compare_with_healthy("C4/5", _cord(7.0, 13.0, 30.1)) is None


def test_a_quantity_that_is_measured_badly_is_left_out_and_the_others_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(healthy, "is_comparable", lambda level, quantity: quantity != "ap_mm")
    found = compare_with_healthy("C5/6", _cord(7.0, 13.0, 0.0))
    assert isinstance(found, HealthyComparison)
    assert found.ap_z is None
    assert found.ap_percentile is None
    assert found.compression_ratio_z is not None
    assert found.transverse_percentile is not None


@pytest.mark.parametrize(
    ("bias", "error", "comparable"),
    [(0.5, 1.0, True), (-0.5, 0.9, True), (0.51, 0.6, False), (-0.51, 0.6, False), (0.1, 1.01, False)],
)
def test_a_bias_over_half_a_standard_deviation_or_an_error_over_a_whole_one_is_too_much(
    monkeypatch: pytest.MonkeyPatch, bias: float, error: float, comparable: bool
) -> None:
    measured = {"C4/5": {"transverse_mm": {"bias_sd": bias, "mean_absolute_error_sd": error}}}
    healthy_norms()
    monkeypatch.setattr(healthy, "_file", lambda name: {"levels": measured})
    assert is_comparable.__wrapped__("C4/5", "transverse_mm") is comparable


def test_the_ratio_is_compared_at_all_levels_and_the_anteroposterior_diameter_at_none() -> None:
    """What docs/decisions/healthy-norms.md says of the reference pack."""
    assert [level for level in LEVELS if is_comparable(level, "compression_ratio")] == list(LEVELS)
    assert [level for level in LEVELS if is_comparable(level, "ap_mm")] == []
    assert [level for level in LEVELS if not is_comparable(level, "transverse_mm")] == ["C6/7"]


def test_only_the_cord_model_whose_bias_was_measured_is_compared_in_any_precision() -> None:
    cord = open_pack(None).models["cord"]
    assert was_measured(cord.fp32_sha256)
    half = replace(cord, sha256="1" * 64, precision="fp16", variant_of=cord.fp32_sha256)
    assert was_measured(half.fp32_sha256)
    assert not was_measured(replace(cord, sha256="1" * 64).fp32_sha256)
