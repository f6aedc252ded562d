"""Measures the energy of a piece of work with one or more sensors."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from stenosis_trt.bench.energy.sensors import Part, Sensor
from stenosis_trt.engine.support.closeable import Closeable

SAMPLE_SECONDS = 0.05
"""Time between two samples of a gauge, and between two looks at a counter, which may start again at 0."""


@dataclass(frozen=True)
class Consumption:
    """Energy of an interval on one sensor."""

    joules: float
    seconds: float

    @property
    def watts(self) -> float:
        """Mean power."""
        return self.joules / self.seconds


@dataclass
class _Integral:
    """Energy so far on one sensor. A gauge is integrated by the trapezoidal rule."""

    joules: float = 0.0
    last_value: float | None = None
    last_time: float = 0.0
    rails: dict[str, float] = field(default_factory=dict)
    samples: int = 0


class EnergyMeter(Closeable):
    """Reads sensors in a thread of its own. Use it as a context manager.

    Args:
        sensors: at most one for each part.
        sample_seconds: time between two readings.
        clock: seconds; replaced in tests.

    Attributes:
        error: what a sensor raised; reading has then ended.
    """

    def __init__(
        self,
        sensors: Sequence[Sensor],
        sample_seconds: float = SAMPLE_SECONDS,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._sensors, self._sample_seconds, self._clock = tuple(sensors), sample_seconds, clock
        self._integrals = {sensor.part: _Integral() for sensor in sensors}
        self._lock, self._end = threading.Lock(), threading.Event()
        self.error: Exception | None = None
        self.read()
        self._thread = threading.Thread(target=self._sample, name="energy", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread. Further calls do nothing."""
        self._end.set()
        self._thread.join()

    def measure(self, work: Callable[[], object]) -> Mapping[Part, Consumption]:
        """Return the energy that each sensor counts during `work`.

        Raises:
            Exception: what `work` or a sensor raises.
        """
        before, start = self.read(), self._clock()
        work()
        after, seconds = self.read(), self._clock() - start
        if self.error is not None:
            raise self.error
        return {part: Consumption(after[part] - before[part], seconds) for part in after}

    def read(self) -> dict[Part, float]:
        """Read all sensors now; return the energy since the meter was opened, in J."""
        with self._lock:
            for sensor in self._sensors:
                self._advance(sensor, self._integrals[sensor.part])
            return {part: integral.joules for part, integral in self._integrals.items()}

    def mean_rails(self) -> dict[str, float]:
        """Return the mean power of each rail since the meter was opened, in W."""
        with self._lock:
            return {
                name: total / integral.samples
                for integral in self._integrals.values()
                for name, total in integral.rails.items()
            }

    def _advance(self, sensor: Sensor, integral: _Integral) -> None:
        if sensor.joules is not None:
            value = sensor.joules()
            if integral.last_value is not None:
                integral.joules += value - integral.last_value
        else:
            assert sensor.watts is not None
            value = sensor.watts()
            now = self._clock()
            if integral.last_value is not None:
                integral.joules += (value + integral.last_value) / 2 * (now - integral.last_time)
            integral.last_time = now
        integral.last_value = value
        if sensor.rails is not None:
            for name, watts in sensor.rails().items():
                integral.rails[name] = integral.rails.get(name, 0.0) + watts
            integral.samples += 1

    def _sample(self) -> None:
        try:
            while not self._end.wait(self._sample_seconds):
                self.read()
        except Exception as error:  # noqa: BLE001 - raised in the thread that measures
            self.error = error
