"""Scan conditions: protocol, contrast and artefacts of a series, changed from those of an ordinary scan.

What a condition draws comes from `own`, a generator of the series. Draws do not depend on strengths, so
studies of several strengths differ in the strength alone.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from stenosis_trt.bench.phantom.conditions import Conditions
from stenosis_trt.bench.phantom.painting.tissue_traits import Signals
from stenosis_trt.bench.phantom.scan.acquisition import Scanner, SeriesProtocol
from stenosis_trt.bench.phantom.scan.artefacts import Artefacts, Shading, acquired_size
from stenosis_trt.engine.geometry import SlicePose

_USUAL_ECHO_MS = 100.0
_LONGEST_ECHO_MS = 150.0
_SHORTEST_ECHO_MS = 65.0
_T2_MS = {
    "cord": 76.0,
    "grey_matter": 84.0,
    "marrow": 90.0,
    "disc": 110.0,
    "disc_degenerated": 55.0,
    "muscle": 38.0,
    "fat": 140.0,
    "ligament": 40.0,
    "mucosa": 100.0,
}
"""Effective T2 at 3 T in a train of spin echoes: Stanisz et al., MRM 2005;54:507 (cord, muscle); others are
chosen so that images at 65 and 150 ms look as acquired ones do. Fat decays slowly in echo trains."""
_T2_CSF_MS = 1800.0
_BRIGHTEST_CORD = 0.72
_MOST_GAP = 1.3
"""Largest distance of slices, as a multiple of their thickness."""
_COARSEST_MM, _COARSEST_TALL_MM = 1.4, 1.3
"""Largest pixels that `spacing` makes, in mm; those of tall images are large already."""
_FEWEST_SAGITTAL = 9
_FAT_LEFT = 0.1
_MARROW_FAT = 0.6
"""Signal of fat that suppression leaves, and share of the marrow's signal that is fat."""


def scanned_protocol(protocol: SeriesProtocol, conditions: Conditions) -> SeriesProtocol:
    """Protocol of a series with what `conditions` change in it; the field of view is kept."""
    echo = conditions.echo
    step = _LONGEST_ECHO_MS - _USUAL_ECHO_MS if echo > 0 else _USUAL_ECHO_MS - _SHORTEST_ECHO_MS
    changed = replace(
        protocol,
        echo_time_ms=round(max(protocol.echo_time_ms + echo * step, 62.0), 1),
        fat_suppressed=conditions.fat_suppression > 0,
    )
    if conditions.spacing == 1.0:
        return changed
    coarsest = _COARSEST_MM if protocol.plane == "axial" or not conditions.field_mm else _COARSEST_TALL_MM
    spacing = min(protocol.pixel_spacing * conditions.spacing, max(coarsest, protocol.pixel_spacing))
    spacing = round(spacing, 3)
    distance = round(protocol.slice_distance * conditions.spacing, 2)
    slices = protocol.slices
    if protocol.plane == "sagittal":
        slices = max(round(slices / conditions.spacing / 2 - 0.5) * 2 + 1, _FEWEST_SAGITTAL)
    return replace(
        changed,
        rows=_matrix(protocol.rows * protocol.pixel_spacing / spacing),
        columns=_matrix(protocol.columns * protocol.pixel_spacing / spacing),
        pixel_spacing=spacing,
        thickness=max(protocol.thickness, round(distance / _MOST_GAP, 1)),
        slice_distance=distance,
        slices=slices,
    )


def _matrix(size: float) -> int:
    return round(size / 16.0) * 16


def interpolated(
    protocol: SeriesProtocol, poses: list[SlicePose], conditions: Conditions
) -> tuple[SeriesProtocol, list[SlicePose]]:
    """Protocol and poses with the matrix that zero-filling enlarges; the field of view is kept."""
    if not conditions.interpolation:
        return protocol, poses
    rows, columns = (_written(size, conditions.interpolation) for size in (protocol.rows, protocol.columns))
    fine = [
        replace(
            pose,
            rows=rows,
            columns=columns,
            row_spacing=pose.row_spacing * pose.rows / rows,
            column_spacing=pose.column_spacing * pose.columns / columns,
        )
        for pose in poses
    ]
    return replace(protocol, rows=rows, columns=columns, pixel_spacing=fine[0].column_spacing), fine


def _written(size: int, share: float) -> int:
    """Smallest written size whose acquired part is `size`."""
    written = int(size / (1.0 - share)) // 2 * 2
    while acquired_size(written, share) < size:
        written += 2
    return written


def scanned(scanner: Scanner, pose: SlicePose, conditions: Conditions, own: np.random.Generator) -> Scanner:
    """The scanner with the contrast and the artefacts of `conditions`.

    Args:
        scanner: of an ordinary acquisition.
        pose: of the middle slice of the series.
        conditions: see `Conditions`.
        own: draws what the strengths leave open.
    """
    shading, shift = _shading(conditions.bias_field, pose, own), float(own.uniform(0.12, 0.38))
    return replace(
        scanner,
        signals=scanned_signals(scanner.signals, conditions),
        noise=float(np.hypot(scanner.noise, conditions.noise)),
        motion=scanner.motion + conditions.motion,
        artefacts=Artefacts(
            volumetric=conditions.volumetric,
            interpolation=conditions.interpolation,
            acceleration=conditions.acceleration,
            ghosts=conditions.ghosts,
            ghost_shift=shift,
            shading=shading if conditions.bias_field else None,
        ),
    )


def scanned_signals(signals: Signals, conditions: Conditions) -> Signals:
    """Contrast at the echo time of `conditions`, with fat suppressed, and as in a 3-D sequence."""
    values = {name: getattr(signals, name) for name in _T2_MS}
    echo = conditions.echo
    if echo:
        later = echo * (_LONGEST_ECHO_MS - _USUAL_ECHO_MS if echo > 0 else _USUAL_ECHO_MS - _SHORTEST_ECHO_MS)
        for name, t2 in _T2_MS.items():
            values[name] *= float(np.exp(-later * (1.0 / t2 - 1.0 / _T2_CSF_MS)))
    share = conditions.volumetric
    if share:
        # Long trains of small refocusing angles mix T1 into the contrast, and long-T2 tissue loses signal
        # relative to the rest (Mugler, JMRI 2014;39:745).
        gap = values["grey_matter"] - values["cord"]
        for name, by in {"cord": 0.26, "muscle": 0.3, "marrow": 0.1, "disc": 0.1, "fat": 0.1}.items():
            values[name] *= 1.0 + by * share
        values["grey_matter"] = values["cord"] + gap * (1.0 - 0.4 * share)
    if values["cord"] > _BRIGHTEST_CORD:
        values["grey_matter"] += _BRIGHTEST_CORD - values["cord"]
        values["cord"] = _BRIGHTEST_CORD
    suppressed = conditions.fat_suppression
    values["fat"] *= 1.0 - (1.0 - _FAT_LEFT) * suppressed
    values["marrow"] *= 1.0 - _MARROW_FAT * suppressed
    contrast = (signals.csf - values["cord"]) / (signals.csf - signals.cord)
    return replace(signals, **values, lesion=signals.lesion * contrast, fat_suppression=suppressed)


def _shading(strength: float, pose: SlicePose, own: np.random.Generator) -> Shading:
    """Draw a ramp along any direction of the image, and a blob of half its height."""
    angle, place = own.uniform(0.0, 2.0 * np.pi), own.uniform(-0.3, 0.3, 2)
    size = np.array([pose.columns * pose.column_spacing, pose.rows * pose.row_spacing])
    across, down = np.asarray(pose.row_direction), np.asarray(pose.column_direction)
    direction = across * np.cos(angle) + down * np.sin(angle)
    blob = pose.centre + across * place[0] * size[0] + down * place[1] * size[1]
    return Shading(
        direction=(float(direction[0]), float(direction[1]), float(direction[2])),
        centre=(float(pose.centre[0]), float(pose.centre[1]), float(pose.centre[2])),
        length=float(size.max()),
        ramp=strength,
        blob_centre=(float(blob[0]), float(blob[1]), float(blob[2])),
        blob_width=float(own.uniform(0.15, 0.3) * size.min()),
        blob=strength * float(own.uniform(-0.5, 0.5)),
    )
