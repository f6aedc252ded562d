"""Peers that a process of its own can import: pytest's modules it cannot."""

from __future__ import annotations

import os
import time

from stenosis_trt.bench.peers.peer import Loaded, Workload


def load_sum(workload: Workload) -> Loaded:
    """A peer whose outputs are its inputs plus one, and whose runs take 20 ms."""
    return Loaded(lambda: time.sleep(0.02), lambda: workload.batch + 1)


def load_by_first_value(workload: Workload) -> Loaded:
    """A peer that does what the first value of its batch says."""
    what = int(workload.batch.flat[0])
    if what == 1:
        raise RuntimeError("The library\nsays  no.")
    if what == 2:
        time.sleep(60.0)
    if what == 3:
        os._exit(7)
    return load_sum(workload)
