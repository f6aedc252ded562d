"""Semi-synthetic studies: one patient imaged by two series, and the source of a set from several subjects."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from pathlib import Path

import numpy as np

from stenosis_trt.bench.phantom.conditions import ORDINARY, Conditions, condition_rng, conditions_of
from stenosis_trt.bench.phantom.painting.finding_tissue import with_findings
from stenosis_trt.bench.phantom.painting.tissue import TissueSource
from stenosis_trt.bench.phantom.painting.tissue_traits import Signals
from stenosis_trt.bench.phantom.patient.findings import draw_findings
from stenosis_trt.bench.phantom.patient.tall_spine import extended, extended_source
from stenosis_trt.bench.phantom.scan.position import turned
from stenosis_trt.bench.phantom.scan.tall_field import needs_long_spine
from stenosis_trt.bench.phantom.study import PhantomStudy, plan_series
from stenosis_trt.bench.semisynthetic.anatomy import SemisyntheticPatient, sample_patient
from stenosis_trt.bench.semisynthetic.landmarks import shown_landmarks
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
    """Sample study `index` of the set of a subject and `seed`.

    It depends on these, `grade` and `conditions` alone.
    """
    rng = np.random.default_rng([seed, index, *subject.name.encode()])
    own = partial(condition_rng, seed, index)
    patient = sample_patient(rng, subject, grade, findings=draw_findings(conditions, own("findings")))
    if needs_long_spine(conditions):
        patient = _continued(patient, own("long spine"))
    sagittal, axial = plan_series(rng, patient.anatomy, conditions, own)
    shown = (subject.canal.last - subject.canal.first) * patient.anatomy.scale
    painted = bool(rng.random() < _PAINTED_SHARE) or conditions.field_mm > shown
    patient = replace(patient, anatomy=turned(patient.anatomy, conditions))
    patient = replace(patient, anatomy=replace(patient.anatomy, landmarks=shown_landmarks(patient, painted)))
    return SemisyntheticStudy(
        seed, index, grade, patient.anatomy, sagittal, axial, conditions, patient, painted
    )


def _continued(patient: SemisyntheticPatient, own: np.random.Generator) -> SemisyntheticPatient:
    """The patient with a painted spine beyond the subject's; see `tall_spine`."""
    scale = patient.anatomy.scale
    return replace(
        patient, anatomy=extended(patient.anatomy, own), source_s=extended_source(patient.source_s, scale)
    )


def _default_folder() -> Path:
    return cache_folder() / "straight"


@dataclass(frozen=True)
class SemisyntheticSource:
    """Source of semi-synthetic studies; study k uses subject k modulo the number of subjects.

    Attributes:
        subjects: names in `SUBJECTS`.
        volumes: folder with one folder per subject.
        straightened_folder: cache folder of straightened volumes, created if missing.
        conditions: of every study.
        varied: draw the conditions of each study that `conditions` does not name; see `draw_conditions`.

    Raises:
        ValueError: `subjects` is empty or has an unknown name.
        OSError: a subject's volume is missing.
    """

    subjects: tuple[str, ...]
    volumes: Path
    straightened_folder: Path = field(default_factory=_default_folder)
    conditions: Conditions = ORDINARY
    varied: bool = False

    def __post_init__(self) -> None:
        unknown = [name for name in self.subjects if name not in SUBJECTS]
        if unknown or not self.subjects:
            known = ", ".join(SUBJECTS)
            raise ValueError(f"Subject {', '.join(unknown) or '(none)'} is not known. Give one of {known}.")
        for name in self.subjects:
            SUBJECTS[name].path(self.volumes).stat()

    def sample(self, seed: int, index: int, grade: int | None = None) -> PhantomStudy:
        """Sample study `index` of set `seed`; see `sample_semisynthetic`."""
        name = self.subjects[index % len(self.subjects)]
        return sample_semisynthetic(
            _straight(name, self.volumes, self.straightened_folder),
            seed,
            index,
            grade,
            conditions_of(self.conditions, self.varied, seed, index),
        )


@lru_cache(maxsize=len(SUBJECTS))
def _straight(name: str, volumes: Path, folder: Path) -> StraightenedSubject:
    return load_straightened(SUBJECTS[name], volumes, folder)
