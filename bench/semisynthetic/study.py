"""One semi-synthetic study: a patient made from a subject, seen by a sagittal and an axial T2 series."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stenosis_trt.bench.phantom.study import PhantomStudy, plan_series
from stenosis_trt.bench.phantom.tissue import TissueSource
from stenosis_trt.bench.phantom.tissue_traits import Signals
from stenosis_trt.bench.semisynthetic.anatomy import SemisyntheticPatient, sample_patient
from stenosis_trt.bench.semisynthetic.straight import StraightenedSubject
from stenosis_trt.bench.semisynthetic.tissue import RealTissues

_PAINTED = 0.35
"""Share of studies whose images go on, painted, beyond what the subject's volume shows."""


@dataclass(frozen=True)
class SemisyntheticStudy(PhantomStudy):
    """A study whose tissue is a subject's; `painted` says what lies beyond its volume."""

    patient: SemisyntheticPatient
    painted: bool

    @property
    def origin(self) -> tuple[object, ...]:
        """What the study was sampled from, for its UIDs."""
        return ("stenosis-trt semisynthetic", self.patient.subject.name, *super().origin)

    @property
    def patient_id(self) -> str:
        """The identifier the patient carries."""
        return f"SEMISYNTHETIC-{self.patient.subject.name}-{self.seed}-{self.index:04d}"

    def tissues(self, signals: Signals) -> TissueSource:
        """See `PhantomStudy`."""
        return RealTissues(self.patient, signals, self.painted)


def sample_semisynthetic(
    subject: StraightenedSubject, seed: int, index: int, grade: int | None = None
) -> SemisyntheticStudy:
    """Study `index` of the set that a subject and `seed` define; it depends on nothing else but `grade`."""
    rng = np.random.default_rng([seed, index, *subject.name.encode()])
    patient = sample_patient(rng, subject, grade)
    sagittal, axial = plan_series(rng, patient.anatomy)
    painted = bool(rng.random() < _PAINTED)
    return SemisyntheticStudy(seed, index, grade, patient.anatomy, sagittal, axial, patient, painted)
