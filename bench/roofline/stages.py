"""Time of the stages of a study that a CPU backend computes step by step.

Networks run while the caller preprocesses the next inputs, so stages overlap: the time of a stage is the wall
time during which any part of it was under way.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from stenosis_trt.engine.backends.base import Float32Array, Pending
from stenosis_trt.engine.backends.stepwise import Inference, StepwiseBackend

PREPROCESSING, DECODING, REST = "preprocessing", "decoding", "rest"
_STEPS = {"preprocess": PREPROCESSING, "decode": DECODING, "decode_peaks": DECODING}

Interval = tuple[float, float]


@dataclass(frozen=True)
class StepTimes:
    """Seconds by stage.

    Attributes:
        wall: in which a stage was under way.
        shares: the same without what a network, or an earlier one, was under way in too: they add up to the
            time in which any stage was.
    """

    wall: Mapping[str, float]
    shares: Mapping[str, float]


@dataclass
class StepClock:
    """Intervals in which the steps of a backend were under way, by stage, since `take` was called."""

    intervals: dict[str, list[Interval]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, stage: str, start: float) -> None:
        """Add an interval that ends now."""
        with self._lock:
            self.intervals.setdefault(stage, []).append((start, time.perf_counter()))

    def take(self) -> StepTimes:
        """Return the times by stage, and start again."""
        with self._lock:
            found, self.intervals = self.intervals, {}
        shares, seen = {}, list[Interval]()
        # What runs beside a network hides behind it.
        for stage in sorted(found, key=(DECODING, PREPROCESSING).__contains__):
            before = covered(seen)
            seen += found[stage]
            shares[stage] = covered(seen) - before
        return StepTimes({stage: covered(intervals) for stage, intervals in found.items()}, shares)


def covered(intervals: Iterable[Interval]) -> float:
    """Length of the union of intervals."""
    total, end = 0.0, float("-inf")
    for first, last in sorted(intervals):
        total += max(0.0, last - max(first, end))
        end = max(end, last)
    return total


@contextmanager
def timed_steps(backend: StepwiseBackend) -> Iterator[StepClock]:
    """Time the steps of a backend: preprocessing, each network, decoding."""
    clock = StepClock()

    def timed(method: Callable[..., Any], stage: str) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            start = time.perf_counter()
            try:
                return method(*arguments)
            finally:
                clock.add(stage, start)

        return call

    inference = backend.inference

    def timed_inference(model: str, count: int) -> Inference:
        found = inference(model, count)

        def submit(batch: Float32Array) -> Pending[Float32Array]:
            start = time.perf_counter()
            pending = found.submit(batch)
            if isinstance(pending, Future):
                pending.add_done_callback(lambda done: clock.add(model, start))
            else:
                clock.add(model, start)
            return pending

        return replace(found, submit=submit)

    # On the instance: the method of the class is found again when it is deleted.
    own = vars(backend)
    for name, stage in _STEPS.items():
        own[name] = timed(getattr(backend, name), stage)
    own["inference"] = timed_inference
    try:
        yield clock
    finally:
        for name in (*_STEPS, "inference"):
            del own[name]
