"""Derive a patient from a subject: change posture and sizes, draw stenoses, and compute the truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stenosis_trt.bench.phantom.patient.anatomy import Anatomy, HealthyAnatomy, add_stenoses
from stenosis_trt.bench.phantom.patient.deformity import bend as bend_angles
from stenosis_trt.bench.phantom.patient.findings import NO_FINDINGS, Findings
from stenosis_trt.bench.phantom.patient.spine import CanalCurve, curve_from_angles, rotation_matrix
from stenosis_trt.bench.semisynthetic.straightened import StraightenedSubject
from stenosis_trt.engine.geometry import FloatArray

_DURA_MM = 1.2
_EPIDURAL_MM = 3.0
_ANGLE_LIMIT = 62.0


@dataclass(frozen=True)
class SemisyntheticPatient:
    """A patient derived from a subject.

    Attributes:
        anatomy: canal, stenoses and truth of the patient.
        subject: source of the tissue.
        source_s: arc length in the subject for each sample of the patient's curve, float64 (M,).
        mirrored: left and right are exchanged.
    """

    anatomy: Anatomy
    subject: StraightenedSubject
    source_s: FloatArray
    mirrored: bool


def _source_of(s: FloatArray, discs: FloatArray, subject: StraightenedSubject, scale: float) -> FloatArray:
    """Map the patient's arc lengths to the subject's: disc to disc, and by `scale` beyond the outer discs."""
    inside = np.interp(s, discs, subject.discs)
    before = np.minimum(s - discs[0], 0.0) / scale
    after = np.maximum(s - discs[-1], 0.0) / scale
    return np.asarray(inside + before + after)


def sample_patient(
    rng: np.random.Generator,
    subject: StraightenedSubject,
    grade: int | None = None,
    variety: float = 1.0,
    findings: Findings = NO_FINDINGS,
) -> SemisyntheticPatient:
    """Draw one patient from a subject.

    Args:
        rng: random generator.
        subject: source of the tissue.
        grade: see `bench.phantom.patient.stenoses.sample_grades`.
        variety: magnitude of the changes of posture and sizes; 0 keeps the subject's.
        findings: the patient's; see `draw_findings`.
    """
    scale = float(np.clip(rng.normal(1.0, 0.07 * variety), 0.84, 1.18))
    pitch = np.diff(subject.discs) * scale * rng.normal(1.0, 0.035 * variety, len(subject.discs) - 1)
    discs = np.concatenate([[0.0], np.cumsum(findings.shortened(pitch))])
    discs -= discs[2]
    curve, source = _posture(rng, subject, discs, scale, variety, findings)
    rows = subject.canal.curve.index(source)

    def profile(values: FloatArray, spread: float) -> FloatArray:
        return values[rows] * scale * float(np.clip(rng.normal(1.0, spread * variety), 0.82, 1.22))

    cord_ap = profile(subject.canal.cord_ap, 0.09) * findings.cord_depth
    cord_transverse = profile(subject.canal.cord_transverse, 0.06) * findings.cord_width
    sac_ap = np.maximum(profile(subject.canal.sac_ap, 0.07), cord_ap + 1.6)
    sac_transverse = np.maximum(profile(subject.canal.sac_transverse, 0.04), cord_transverse + 2.5)
    room = np.maximum((sac_ap - cord_ap) / 2 - 0.2, 0.0)
    centre = np.clip(subject.canal.cord_centre[rows] * scale, -room, room)
    sizes = HealthyAnatomy(
        curve=curve,
        scale=scale,
        discs=discs,
        cord_ap=cord_ap,
        cord_transverse=cord_transverse,
        cord_centre=centre,
        sac_ap=sac_ap,
        sac_transverse=sac_transverse,
        canal_ap=sac_ap + _DURA_MM,
        canal_transverse=sac_transverse + _EPIDURAL_MM,
    )
    anatomy = add_stenoses(rng, sizes, grade, findings)
    return SemisyntheticPatient(anatomy, subject, source, bool(rng.random() < 0.5))


def _posture(
    rng: np.random.Generator,
    subject: StraightenedSubject,
    discs: FloatArray,
    scale: float,
    variety: float,
    findings: Findings,
) -> tuple[CanalCurve, FloatArray]:
    """Bend, tilt and rotate the subject's canal; return the curve and the subject's arc lengths along it."""
    s = subject.canal.curve.s
    source = _source_of(s, discs, subject, scale)
    rows = subject.canal.curve.index(source)
    length = discs[5] - discs[0]
    bend = rng.normal(0.0, 9.0) * np.clip(s / length, -0.75, 0.62)
    wave = rng.normal(0.0, 3.0) * np.sin(2 * np.pi * s / rng.uniform(90.0, 170.0) + rng.uniform(0, 2 * np.pi))
    tilt = rng.normal(0.0, 5.0)
    sideways = rng.normal(0.0, 2.0) * np.sin(2 * np.pi * s / 160.0 + rng.uniform(0, 2 * np.pi))
    straightening = 1.0 - variety * rng.uniform(0.0, 0.5)
    sagittal = subject.canal.sagittal[rows] * straightening + variety * (bend + wave + tilt)
    coronal = subject.canal.coronal[rows] + variety * sideways
    sagittal, coronal = bend_angles(sagittal, coronal, s, discs, findings)
    turn = rotation_matrix(*(variety * rng.normal(0.0, [2.5, 2.5, 3.5])))
    shift = rng.normal(0.0, [4.0, 8.0, 9.0])
    return curve_from_angles(s, np.clip(sagittal, -_ANGLE_LIMIT, _ANGLE_LIMIT), coronal, turn, shift), source
