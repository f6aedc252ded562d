"""Opened peers: in this process, and in one that can be ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from simple_peers import load_by_first_value, load_sum

from stenosis_trt.bench.peers.opened import OpenedPeer, open_peer
from stenosis_trt.bench.peers.peer import Peer, PeerAbsent, Workload

PLENTY = 30.0


def _workload(value: float) -> Workload:
    return Workload(Path("none.onnx"), np.full((2, 1, 4, 4), value, np.float32))


@pytest.fixture(scope="module")
def isolated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenedPeer]:
    peer = Peer("p", "Peer", load_by_first_value, isolated=True)
    with closing(open_peer(peer, tmp_path_factory.mktemp("work"))) as opened:
        yield opened


def test_a_peer_in_this_process_gives_outputs_and_times(tmp_path: Path) -> None:
    with closing(open_peer(Peer("p", "Peer", load_sum), tmp_path)) as opened:
        for key in ("a", "b"):
            output = opened.load(key, _workload(4.0), PLENTY)
            assert output is not None
            assert (output == 5.0).all()
        assert 0.04 <= opened.time(("a", "b")) < 5.0


def test_an_isolated_peer_gives_outputs_and_its_own_times(isolated: OpenedPeer) -> None:
    for key in ("a", "b"):
        output = isolated.load(key, _workload(4.0), PLENTY)
        assert output is not None
        assert (output == 5.0).all()
    assert 0.04 <= isolated.time(("a", "b")) < 5.0


def test_an_error_of_a_library_is_the_reason_and_the_process_stays(isolated: OpenedPeer) -> None:
    isolated.load("good", _workload(0.0), PLENTY)
    with pytest.raises(PeerAbsent, match="It cannot run this network: The library says no"):
        isolated.load("bad", _workload(1.0), PLENTY)
    assert isolated.time(("good",)) >= 0.02
    assert isolated.end_reason == ""


def test_a_network_without_time_left_is_not_loaded(isolated: OpenedPeer) -> None:
    with pytest.raises(PeerAbsent, match="no time left"):
        isolated.load("late", _workload(0.0), 0.0)
    assert isolated.end_reason == ""


def test_a_process_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    with closing(open_peer(Peer("p", "Peer", load_by_first_value, isolated=True), tmp_path)) as opened:
        opened.load("good", _workload(0.0), PLENTY)
        start = time.monotonic()
        with pytest.raises(PeerAbsent, match="took longer than the 1 s"):
            opened.load("slow", _workload(2.0), 0.6)
        assert time.monotonic() - start < 30.0
        assert "another network took too long" in opened.end_reason
        with pytest.raises(PeerAbsent, match="was ended"):
            opened.time(("good",))


def test_a_process_that_ends_by_itself_is_noticed(tmp_path: Path) -> None:
    with closing(open_peer(Peer("p", "Peer", load_by_first_value, isolated=True), tmp_path)) as opened:
        with pytest.raises(PeerAbsent, match="ended by itself"):
            opened.load("dying", _workload(3.0), PLENTY)
        with pytest.raises(PeerAbsent, match="ended by itself"):
            opened.load("good", _workload(0.0), PLENTY)
