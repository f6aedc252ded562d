"""Maximum spinal cord compression (MSCC): the cord at a level against the normal cord above and below.

    MSCC = 1 − m_i / ((m_a + m_b) / 2)

m_i is the anteroposterior diameter of the cord at the level, m_a and m_b those above and below the
compression (Miyanji et al., Radiology 2007;243(3):820-827, doi 10.1148/radiol.2433060583).

What counts as above and below is taken from `sct_compute_compression` of the Spinal Cord Toolbox, with its
default distance and extent and without its normalisation by healthy persons:

- m_a is the mean over 10 to 30 mm above the highest compression, m_b that over 10 to 30 mm below the lowest
  one, along the centre of the cord. All sites of compression of a person share them.
- Where no slice is measured on one side, the other side stands for both; without either there is no value.

What differs, because nobody marks the compressions here:

- The compressions are the level itself and every level that is not known to be uncompressed, that is without
  a Kang grade of 0 or 1. The site is the slice of maximal compression near the level, or the disc where no
  slice was measured.
- Distances follow the line of the canal (`cord.canal_line`), which ends 12 mm beyond the outermost levels, so
  C2/3 and C7/T1 usually have their reference on one side alone.
- Diameters come from four points on each axial slice, measured across the cord as in the toolbox, not from a
  segmentation. Slices with a warning do not count.
- The value is a fraction; the toolbox writes percent.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from stenosis_trt.engine.geometry import FloatArray
from stenosis_trt.engine.grading.cord import CanalLine, CordSlice
from stenosis_trt.engine.grading.match import LevelMatch
from stenosis_trt.engine.records import CordMeasurement, MsccReference

DISTANCE_MM = 10.0
"""Distance from the outermost compression to the normal cord: default of the toolbox's `-distance`."""

EXTENT_MM = 20.0
"""Length of normal cord that is averaged: default of the toolbox's `-extent`."""


@dataclass(frozen=True)
class CordCompression:
    """MSCC of a level, and where its reference was measured; `mscc` is None if that is nowhere."""

    mscc: float | None
    reference: MsccReference


def cord_compression(
    line: CanalLine,
    across: Sequence[CordSlice],
    measured: Sequence[CordMeasurement],
    matches: Mapping[str, LevelMatch],
    uncompressed: Collection[str],
) -> dict[str, CordCompression]:
    """Return the MSCC of each level at which the cord was measured.

    Args:
        line: line of the canal, with the arc lengths of the levels.
        across: slices that cross it.
        measured: measurement of the cord on each of those slices, in the same order.
        matches: slice of each level.
        uncompressed: levels at which the cord is known not to be deformed.
    """
    valid = [
        (one.arc_length_mm, cord) for one, cord in zip(across, measured, strict=True) if not cord.warnings
    ]
    arcs = np.array([arc for arc, _ in valid])
    diameters = np.array([cord.ap_mm for _, cord in valid])
    sites = {level: _site(line, matches, level) for level in line.level_arc_length_mm}
    compressed = [site for level, site in sites.items() if level not in uncompressed]
    found = {}
    for level, match in matches.items():
        if match.cord is None or match.arc_length_mm is None:
            continue
        # Arc length grows towards the foot.
        highest, lowest = min([sites[level], *compressed]), max([sites[level], *compressed])
        above = _mean_diameter(arcs, diameters, highest - DISTANCE_MM - EXTENT_MM, highest - DISTANCE_MM)
        below = _mean_diameter(arcs, diameters, lowest + DISTANCE_MM, lowest + DISTANCE_MM + EXTENT_MM)
        found[level] = _compression(match.cord.ap_mm, above, below)
    return found


def _site(line: CanalLine, matches: Mapping[str, LevelMatch], level: str) -> float:
    """Return the arc length of a level's slice, or that of its disc where no slice was measured."""
    match = matches.get(level)
    if match is None or match.arc_length_mm is None:
        return line.level_arc_length_mm[level]
    return match.arc_length_mm


def _mean_diameter(arcs: FloatArray, diameters: FloatArray, first: float, last: float) -> float | None:
    """Return the mean of the diameters at arc lengths from `first` to `last`; None if there is none."""
    chosen = diameters[(arcs >= first) & (arcs <= last)]
    return float(chosen.mean()) if len(chosen) else None


def _compression(at_level: float, above: float | None, below: float | None) -> CordCompression:
    if above is not None and below is not None:
        return CordCompression(1.0 - at_level / ((above + below) / 2.0), "above and below")
    if above is not None:
        return CordCompression(1.0 - at_level / above, "above")
    if below is not None:
        return CordCompression(1.0 - at_level / below, "below")
    return CordCompression(None, "none")
