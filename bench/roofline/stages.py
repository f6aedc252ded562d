"""Time of the stages of a study that a CPU backend computes step by step."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from stenosis_trt.engine.backends.stepwise import StepwiseBackend

PREPROCESSING, DECODING, REST = "preprocessing", "decoding", "rest"
_STEPS = {"preprocess": PREPROCESSING, "decode": DECODING, "support": DECODING}


@dataclass
class StepSeconds:
    """Seconds by stage of what ran since `take` was called."""

    seconds: dict[str, float] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, stage: str, seconds: float) -> None:
        """Add a duration."""
        with self._lock:
            self.seconds[stage] = self.seconds.get(stage, 0.0) + seconds

    def take(self) -> Mapping[str, float]:
        """Return the seconds by stage, and start again."""
        with self._lock:
            found, self.seconds = self.seconds, {}
        return found


@contextmanager
def timed_steps(backend: StepwiseBackend) -> Iterator[StepSeconds]:
    """Time the steps of a backend: preprocessing, each network, decoding."""
    clock = StepSeconds()

    def timed(method: Callable[..., Any], stage: str | None) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            start = time.perf_counter()
            try:
                return method(*arguments)
            finally:
                # `infer` is told the model first.
                clock.add(stage or arguments[0], time.perf_counter() - start)

        return call

    names = {**_STEPS, "infer": None}
    for name, stage in names.items():
        # On the instance: the method of the class is found again when it is deleted.
        vars(backend)[name] = timed(getattr(backend, name), stage)
    try:
        yield clock
    finally:
        for name in names:
            del vars(backend)[name]
