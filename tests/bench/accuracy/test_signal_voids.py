"""The signals at which levels with metal and others are told apart."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from shared_data import shared_data

from stenosis_trt.bench.accuracy import signal_voids
from stenosis_trt.bench.accuracy.signal_voids import acquired_signals, described
from stenosis_trt.bench.semisynthetic.subjects import SUBJECTS


def test_signals_are_described_by_number_range_and_share_of_voids() -> None:
    assert described([0.1, 0.5, 0.62, 0.9]) == "4, signal 0.10 to 0.90, 25 % void"


def test_phantoms_with_large_voids_are_told_from_ordinary_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["signal_voids", "--studies", "1", "--condition", "metal"])
    signal_voids.main()
    printed = capsys.readouterr().out
    assert re.search(r"^ordinary, levels without metal: 6, .* 0 % void$", printed, re.MULTILINE)
    assert re.search(r"^metal 8, levels at metal: \d, .* 100 % void$", printed, re.MULTILINE)
    assert re.search(r"^all, levels without metal: 6, .* 0 % void$", printed, re.MULTILINE)


def test_an_acquired_volume_has_no_void() -> None:
    signals = acquired_signals([SUBJECTS["errsm_20"]], Path(shared_data("volumes")))
    assert len(signals) == 6
    assert min(signals) > 0.3
