"""Images that no pack may grade, shown to the whole pipe and to the grader alone."""

from __future__ import annotations

from pathlib import Path

import pytest
from shared_data import shared_data
from tiny_pack import write_tiny_pack

from stenosis_trt.bench import unlike_training
from stenosis_trt.bench.unlike_training import VOLUMES, judge


@pytest.fixture(autouse=True)
def few_regions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unlike_training, "_REGIONS", 4)


@pytest.mark.shared_data
def test_no_study_of_another_region_or_contrast_is_graded_by_the_reference_pack() -> None:
    found = judge(shared_data("volumes").parent, None)
    assert [item.graded for item in found] == [False] * len(VOLUMES) + [None, None]
    assert [item.regions for item in found] == [4] * len(found)


@pytest.mark.shared_data
def test_a_grader_with_a_class_for_other_things_is_judged_by_what_it_refuses(tmp_path: Path) -> None:
    """A limit that everything reaches: the tiny pack's grader has learnt nothing, and refuses all or none."""
    everything = judge(shared_data("volumes").parent, write_tiny_pack(tmp_path / "all", True, 1e-6).path)
    assert all((item.refused, item.sure) == (1.0, 0.0) for item in everything)
    nothing = judge(shared_data("volumes").parent, write_tiny_pack(tmp_path / "none", True, 1.0).path)
    assert all(item.refused == 0.0 for item in nothing)
