"""Images that the reference pack must not grade, shown to the whole pipe and to its grader alone."""

from __future__ import annotations

import pytest
from shared_data import shared_data

from stenosis_trt.bench.unlike_training import VOLUMES, judge


@pytest.mark.shared_data
def test_what_is_no_cervical_t2_gets_no_grade_and_the_grader_alone_refuses_it_too() -> None:
    found = judge(shared_data("volumes").parent, None)
    assert [item.graded for item in found] == [False] * len(VOLUMES) + [None, None]
    for item in found:
        assert item.regions >= 20, item.kind
        assert item.refused >= 0.9, item.kind
        assert item.sure <= 0.05, item.kind
