"""Profiles of a patient with an ossification: what presses on the sac from the front."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stenosis_trt.bench.phantom.patient.findings import Ossification
from stenosis_trt.engine.geometry import FloatArray

_KEPT_CORD = 0.5
"""Share of the cord's AP diameter that the band and what presses from behind leave, at least."""


@dataclass(frozen=True)
class Pressing:
    """Encroachment at the mid-line, and its shape across the canal; profiles along the canal in mm.

    `side` and `breadth` are centre and standard deviation of what presses from the front.
    """

    anterior: FloatArray
    posterior: FloatArray
    side: FloatArray
    breadth: FloatArray


def ossified(
    pressing: Pressing,
    band: Ossification | None,
    s: FloatArray,
    discs: FloatArray,
    sac_ap: FloatArray,
    cord_ap: FloatArray,
) -> Pressing:
    """Add a band of bone to what presses from the front.

    Args:
        pressing: of the patient's stenoses; returned where `band` is None.
        band: its thickness is a share of the reserve.
        s, discs: arc lengths in mm.
        sac_ap, cord_ap: healthy diameters, mm; their difference is the reserve.
    """
    if band is None:
        return pressing
    thickness = band.share * band.profile(s, discs) * (sac_ap - cord_ap)
    most = np.maximum(sac_ap - _KEPT_CORD * cord_ap - pressing.posterior, 0.0)
    thickness = np.minimum(thickness, most)
    # The shape is the band's where it is the thicker, and changes within 1 mm of thickness.
    ramp = np.clip((thickness - pressing.anterior) / 1.0 + 0.5, 0.0, 1.0)
    weight = ramp * np.minimum(thickness / 0.3, 1.0)
    # A Gaussian of this standard deviation has the band's width at half its height.
    breadth = max(band.width / 2.355, 3.5)
    return Pressing(
        anterior=np.maximum(pressing.anterior, thickness),
        posterior=pressing.posterior,
        side=pressing.side + weight * (band.side - pressing.side),
        breadth=pressing.breadth + weight * (breadth - pressing.breadth),
    )
