"""Landmarks of a semi-synthetic patient: the marks of the subject, moved as its tissue is."""

from __future__ import annotations

from stenosis_trt.bench.phantom.patient.landmarks import painted_landmarks
from stenosis_trt.bench.semisynthetic.anatomy import SemisyntheticPatient
from stenosis_trt.engine.geometry import Vector


def shown_landmarks(patient: SemisyntheticPatient, painted: bool) -> dict[str, Vector]:
    """Points of `engine.records.LANDMARKS` that the patient's images can show, LPS, mm.

    Args:
        patient: the patient.
        painted: the images go on beyond the subject's volume. Where it ends below the apex of the dens, the
            apex is then that of the painted one, and else there is none.
    """
    anatomy, subject = patient.anatomy, patient.subject
    scale, first = anatomy.scale, float(subject.discs[0])

    def along(s: float) -> float:
        """Arc length in the patient of one above C2/3 in the subject."""
        return float(anatomy.discs[0]) + (s - first) * scale

    found = {
        "T1/2": anatomy.wall_point(float(anatomy.discs[6])),
        "T2/3": anatomy.wall_point(float(anatomy.discs[7])),
        "C2": anatomy.wall_point(along(subject.dens_base)),
    }
    if subject.dens_apex is not None:
        u, v, s = subject.dens_apex
        place = along(s)
        row = anatomy.curve.index(place)
        before_sac = v + float(subject.canal.sac_ap[subject.canal.curve.index(s)]) / 2
        side = u * scale * (-1.0 if patient.mirrored else 1.0)
        x, y, z = anatomy.curve.to_patient(side, before_sac * scale - float(anatomy.sac_ap[row]) / 2, place)
        found["dens"] = (float(x), float(y), float(z))
    elif painted:
        found["dens"] = painted_landmarks(anatomy)["dens"]
    return found
