"""Draws of patients that all figures of an evaluation share."""

from __future__ import annotations

from dataclasses import dataclass, field

from stenosis_trt.bench.evaluation.cohort import FEWEST_PATIENTS
from stenosis_trt.bench.statistics.bootstrap import patient_weights
from stenosis_trt.bench.statistics.confusion import IntArray

ROUNDS = 2000
"""Draws for each interval, unless the user asks for another number."""


@dataclass
class Draws:
    """Bootstrap samples, made once for each number of patients.

    Attributes:
        rounds: number of samples. seed: equal seeds give equal intervals.
    """

    rounds: int = ROUNDS
    seed: int = 0
    _made: dict[int, IntArray] = field(default_factory=dict, repr=False)

    def of(self, patients: int) -> IntArray | None:
        """Return weights (rounds, patients); None below ten patients, which give no interval."""
        if patients < FEWEST_PATIENTS:
            return None
        if patients not in self._made:
            self._made[patients] = patient_weights(patients, self.rounds, self.seed)
        return self._made[patients]
