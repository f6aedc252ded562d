"""LoadGen's summaries."""

from __future__ import annotations

import pytest

from stenosis_trt.bench.load.summary import parse_summary
from stenosis_trt.engine.errors import StenosisError

_INVALID = """\
================================================
MLPerf Results Summary
================================================
SUT name : PySUT
Scenario : Server
Mode     : PerformanceOnly
Completed samples per second    : 18.47
Result is : INVALID
  Performance constraints satisfied : NO
  Min duration satisfied : Yes
  Min queries satisfied : Yes
  Early stopping satisfied: NO
Recommendations:
 * Reduce target QPS to improve latency.

================================================
Additional Stats
================================================
99.00 percentile latency (ns)   : 21214867

================================================
Test Parameters Used
================================================
target_qps : 20
min_duration (ms): 2000

1 warning encountered. See detailed log.

3 ERRORS encountered. See detailed log.
"""


def test_verdict_rules_and_figures_are_read() -> None:
    summary = parse_summary(_INVALID)
    assert not summary.valid
    assert summary.broken_rules() == ("Performance constraints satisfied", "Early stopping satisfied")
    assert summary.figure("99.00 percentile latency") == 21214867
    assert summary.figure("Completed samples per second") == 18.47
    assert (summary.figures["target_qps"], summary.figures["min_duration (ms)"]) == (20, 2000)
    assert summary.early_stopping_ns is None
    assert summary.errors == 3


def test_a_text_without_a_verdict_is_an_error() -> None:
    with pytest.raises(StenosisError, match="no verdict"):
        parse_summary("SUT name : PySUT\n")
    with pytest.raises(StenosisError, match="no 'Samples per second'"):
        parse_summary(_INVALID).figure("Samples per second")
