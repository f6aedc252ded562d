"""Semi-synthetic studies: one patient imaged by two series, and the source of a set from several subjects."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from stenosis_trt.bench.phantom.conditions import ORDINARY, Conditions, condition_rng
from stenosis_trt.bench.phantom.finding_tissue import with_findings
from stenosis_trt.bench.phantom.findings import draw_findings
from stenosis_trt.bench.phantom.study import PhantomStudy, plan_series
from stenosis_trt.bench.phantom.tissue import TissueSource
from stenosis_trt.bench.phantom.tissue_traits import Signals
from stenosis_trt.bench.semisynthetic.anatomy import SemisyntheticPatient, sample_patient
from stenosis_trt.bench.semisynthetic.straightened import StraightenedSubject, load_straightened
from stenosis_trt.bench.semisynthetic.subjects import SUBJECTS
from stenosis_trt.bench.semisynthetic.tissue import RealTissues
from stenosis_trt.kernels.binaries import cache_folder

_PAINTED_SHARE = 0.35
"""Share of studies whose images are painted beyond the subject's volume."""


@dataclass(frozen=True)
class SemisyntheticStudy(PhantomStudy):
    """A study with a subject's tissue. Beyond its volume, images are painted if `painted`, and else black."""

    patient: SemisyntheticPatient
    painted: bool

    @property
    def uid_source(self) -> tuple[object, ...]:
        """Values that the study's UIDs are derived from."""
        return ("stenosis-trt semisynthetic", self.patient.subject.name, *super().uid_source)

    @property
    def patient_id(self) -> str:
        """DICOM PatientID."""
        return f"SEMISYNTHETIC-{self.patient.subject.name}-{self.seed}-{self.index:04d}"

    def tissues(self, signals: Signals) -> TissueSource:
        """See `PhantomStudy`."""
        return with_findings(RealTissues(self.patient, signals, self.painted), self.patient.anatomy, signals)


def sample_semisynthetic(
    subject: StraightenedSubject,
    seed: int,
    index: int,
    grade: int | None = None,
    conditions: Conditions = ORDINARY,
) -> SemisyntheticStudy:
    """Sample study `index` of the set of a subject and `seed`; it depends on the arguments alone."""
    rng = np.random.default_rng([seed, index, *subject.name.encode()])
    findings = draw_findings(conditions, condition_rng(seed, index, "findings"))
    patient = sample_patient(rng, subject, grade, findings=findings)
    sagittal, axial = plan_series(rng, patient.anatomy)
    painted = bool(rng.random() < _PAINTED_SHARE)
    return SemisyntheticStudy(seed, index, grade, patient.anatomy, sagittal, axial, patient, painted)


def _default_folder() -> Path:
    return cache_folder() / "straight"


@dataclass(frozen=True)
class SemisyntheticSource:
    """Source of semi-synthetic studies; study k uses subject k modulo the number of subjects.

    Attributes:
        subjects: names in `SUBJECTS`.
        volumes: folder with one folder per subject.
        straightened_folder: cache folder of straightened volumes, created if missing.

    Raises:
        ValueError: `subjects` is empty or has an unknown name.
        OSError: a subject's volume is missing.
    """

    subjects: tuple[str, ...]
    volumes: Path
    straightened_folder: Path = field(default_factory=_default_folder)

    def __post_init__(self) -> None:
        unknown = [name for name in self.subjects if name not in SUBJECTS]
        if unknown or not self.subjects:
            known = ", ".join(SUBJECTS)
            raise ValueError(f"Subject {', '.join(unknown) or '(none)'} is not known. Give one of {known}.")
        for name in self.subjects:
            SUBJECTS[name].path(self.volumes).stat()

    def sample(self, seed: int, index: int, grade: int | None = None) -> PhantomStudy:
        """Sample study `index` of set `seed`; it depends on the subject, seed, index and grade alone."""
        name = self.subjects[index % len(self.subjects)]
        return sample_semisynthetic(
            _straight(name, self.volumes, self.straightened_folder), seed, index, grade
        )


@lru_cache(maxsize=len(SUBJECTS))
def _straight(name: str, volumes: Path, folder: Path) -> StraightenedSubject:
    return load_straightened(SUBJECTS[name], volumes, folder)
