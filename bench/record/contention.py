"""How much of a change between two runs other processes explain that took part of the cores.

A run that waits w seconds for a core, for each second that its threads run, is up to 1 + w times slower.
Beside that, a short latency may meet whole time slices of other processes, which are longer than itself: it
waits for `SLICES_SECONDS`, or the mean wait for a core if that is longer. Where the kernel does not count
waiting, a share s of the cores that others took makes a run up to 1 / (1 − s) times slower.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from stenosis_trt.bench.record.record import BenchRecord, Figure
from stenosis_trt.bench.record.wording import seconds_of

SLICES_SECONDS = 0.02
"""What a short latency may wait for a core in a disturbed run: some of Linux's time slices of 3 ms and more.
Beside eight busy processes on two cores, 99th percentiles of 1 to 2 ms became 6 to 19 ms in runs of one
build. The mean wait is no measure of it, since most turns do not wait."""
_LARGEST_SHARE = 0.95


@dataclass(frozen=True)
class Contention:
    """What other processes took of a section, in the run that they disturbed more.

    Attributes:
        effect: relative change that they explain, such as 0.5.
        tail_seconds: wait that a latency may meet besides.
    """

    effect: float = 0.0
    tail_seconds: float = 0.0

    def explained(self, old: Figure, new: Figure) -> float:
        """Return the relative change of a figure that is explained."""
        latencies = [seconds for figure in (old, new) if (seconds := seconds_of(figure)) is not None]
        return self.effect + (self.tail_seconds / min(latencies) if latencies else 0.0)


def contention_by_section(records: Iterable[BenchRecord]) -> dict[str, Contention]:
    """Return the larger contention of the records by section, of those sections that others disturbed."""
    found: dict[str, Contention] = {}
    for record in records:
        for name, load in record.busy.get("during", {}).items():
            if load.get("disturbed"):
                one, other = found.get(name, Contention()), _contention(load)
                found[name] = Contention(
                    max(one.effect, other.effect), max(one.tail_seconds, other.tail_seconds)
                )
    return found


def _contention(load: Mapping[str, Any]) -> Contention:
    waited = load.get("waited_high")
    if waited is not None:
        return Contention(float(waited), max(SLICES_SECONDS, float(load.get("turn_ms") or 0.0) / 1e3))
    share = min(_LARGEST_SHARE, max(0.0, float(load.get("others_share_high") or 0.0)))
    return Contention(1 / (1 - share) - 1, SLICES_SECONDS)
