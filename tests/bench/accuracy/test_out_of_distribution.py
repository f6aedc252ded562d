"""Out-of-distribution images are rejected by the pipeline and by the grader alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from shared_data import shared_data
from tiny_pack import write_tiny_pack

from stenosis_trt.bench.accuracy import out_of_distribution
from stenosis_trt.bench.accuracy.out_of_distribution import OOD_VOLUMES, evaluate_out_of_distribution


@pytest.mark.slow
@pytest.mark.shared_data
def test_no_study_of_another_region_or_contrast_is_graded_and_the_grader_alone_refuses_it_too() -> None:
    """Measured of 40 regions each: 98 to 100 % refused, and a grade that it is sure of in 2 % at most."""
    found = evaluate_out_of_distribution(shared_data("volumes").parent, None)
    assert all(item.graded == 0 for item in found)
    assert sum(item.studies > 0 for item in found) == len(OOD_VOLUMES)
    for item in found:
        assert item.regions == 40
        assert item.refused >= 0.8, item.kind
        assert item.sure <= 0.05, item.kind


@pytest.mark.slow
@pytest.mark.shared_data
def test_a_grader_with_a_class_for_other_things_is_judged_by_what_it_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tiny pack's grader is untrained: with an extreme threshold it refuses all regions or none."""
    monkeypatch.setattr(out_of_distribution, "_REGIONS", 4)
    everything = evaluate_out_of_distribution(
        shared_data("volumes").parent, write_tiny_pack(tmp_path / "all", True, 1e-6).path
    )
    assert all((item.refused, item.sure) == (1.0, 0.0) for item in everything)
    nothing = evaluate_out_of_distribution(
        shared_data("volumes").parent, write_tiny_pack(tmp_path / "none", True, 1.0).path
    )
    assert all(item.refused == 0.0 for item in nothing)
