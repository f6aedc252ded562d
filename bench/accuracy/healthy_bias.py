"""Measure how far the program's cord diameters lie from what the norms of healthy adults would have measured.

    python -m stenosis_trt.bench.accuracy.healthy_bias ../shared/data/volumes --out OUT.json

On volumes with a mask of the cord, the mask is measured as the norms were: across the canal, second
moments in planes 0.5 mm apart, slabs of 3.5 mm, the lowest ratio within 6 mm of the disc. The program
grades the volume as a clinical study, turned in five ways about the left-right axis, so that its axial
slices meet the cord in other places and at other angles. The difference of the two, in standard
deviations of the norm, is the error. The errors of the turns of a volume are averaged first: it is one
person.

`engine.grading.healthy` gives no z-score where these errors are too large. The bundled pack has learnt
from these volumes, so on other people errors are larger, not smaller.
"""

from __future__ import annotations

import argparse
import copy
import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from stenosis_trt.bench.accuracy.healthy_norms import Person, level_measurements
from stenosis_trt.bench.accuracy.real_anatomy import grade_acquired
from stenosis_trt.bench.semisynthetic.acquired import acquire_volume
from stenosis_trt.bench.semisynthetic.canal import Canal, NiftiVolume, trace_canal
from stenosis_trt.bench.semisynthetic.subjects import SUBJECTS, Subject
from stenosis_trt.engine.geometry import FloatArray
from stenosis_trt.engine.grading.healthy import MAX_ANGLE_DEGREES, QUANTITIES, healthy_norms
from stenosis_trt.engine.packs.pack import open_pack
from stenosis_trt.engine.records import LEVELS, CordMeasurement

MASKS = {
    "errsm_11": "errsm_11/t2_manual_segmentation.nii.gz",
    "errsm_18": "errsm_18/t2_manual_segmentation.nii.gz",
    # A part of errsm_30, C2 to C5.
    "errsm_30": "sct_testing_t2/t2_seg-manual.nii.gz",
    "PAM50_small": "PAM50_small/PAM50_small_cord.nii.gz",
}
"""Mask of each subject below the folder of volumes."""

TURNS_DEGREES = (-20.0, -10.0, 0.0, 10.0, 20.0)

_PLANE_MM = 0.5
_GRID_MM = 0.25
_HALF_WIDTH_MM = 12.0
_MIN_AREA_MM2 = 25.0
_MATCH_MM = 6.0
"""A level that was found farther from its mark is another one."""


@dataclass(frozen=True)
class LevelError:
    """Errors of one level of one volume, program − mask, in standard deviations of the norm.

    Attributes:
        volume, level: which.
        turns: number of turns in which it was measured.
        mask_z: z-scores of the mask: ratio, AP, transverse.
        across: errors of the columns of results.csv, measured across the cord.
        as_shown: errors of the diameters that the slice shows.
    """

    volume: str
    level: str
    turns: int
    mask_z: tuple[float, ...]
    across: tuple[float, ...]
    as_shown: tuple[float, ...]


def volume_errors(name: str, volumes: Path, pack: Path | None = None) -> list[LevelError]:
    """Grade one volume in all turns and return the errors of the levels that its mask shows.

    Args:
        name: one of MASKS.
        volumes: folder with one folder per subject.
        pack: None for the reference pack.

    Raises:
        OSError: a volume is missing.
        PackError: the pack cannot be used.
    """
    subject = SUBJECTS[name]
    volume = NiftiVolume(subject.path(volumes))
    truth = mask_measurements(volume, NiftiVolume(volumes / MASKS[name]), subject)
    found = defaultdict(list)
    for turn in TURNS_DEGREES:
        for level, cord in _graded_turned(volume, subject, turn, pack):
            if level in truth:
                across = cord.compression_ratio, cord.ap_mm, cord.transverse_mm
                found[level].append([across, _as_shown(cord)])
    errors = []
    for level in truth:
        if found[level]:
            norms = [healthy_norms()[level][quantity] for quantity in QUANTITIES]
            sd = np.array([norm.sd for norm in norms])
            across, shown = (np.mean(found[level], axis=0) - truth[level]) / sd
            z = (truth[level] - [norm.mean for norm in norms]) / sd
            errors.append(LevelError(name, level, len(found[level]), tuple(z), tuple(across), tuple(shown)))
    return errors


def mask_measurements(volume: NiftiVolume, mask: NiftiVolume, subject: Subject) -> dict[str, FloatArray]:
    """Measure a mask as the norms were: ratio, AP and transverse diameter of the levels that it shows."""
    marks = subject.disc_points
    canal = trace_canal(volume, subject, subject.origin)
    stations = canal.curve.to_canal(marks)[: len(LEVELS), 2]
    measured = {}
    for level, station in zip(LEVELS, stations, strict=True):
        # From foot to head and with the disc between two planes, as in the norms' source.
        planes = station + np.arange(10.25, -10.5, -_PLANE_MM)
        diameters = np.array([_diameters_across(mask, canal, float(s)) for s in planes])
        below = np.where(planes > station, 1, 0)
        person = Person(diameters, 2 + LEVELS.index(level) + below, np.nan, False)
        values = [*level_measurements(person, level)]
        if values:
            measured[level] = np.mean(values, axis=0)
    return measured


def _diameters_across(mask: NiftiVolume, canal: Canal, s: float) -> tuple[float, float]:
    """AP and transverse diameter of a mask across the canal; NaN where the mask does not show the cord."""
    steps = np.arange(-_HALF_WIDTH_MM, _HALF_WIDTH_MM + _GRID_MM / 2, _GRID_MM)
    u, v = np.meshgrid(steps, steps)
    row = canal.curve.index(s)
    inside = mask.sample(canal.to_patient(u, v + canal.cord_centre[row], np.full(u.shape, s))) > 0.5
    if inside.sum() * _GRID_MM**2 < _MIN_AREA_MM2:
        return np.nan, np.nan
    return 4.0 * float(v[inside].std()), 4.0 * float(u[inside].std())


def _graded_turned(
    volume: NiftiVolume, subject: Subject, degrees: float, pack: Path | None
) -> Iterator[tuple[str, CordMeasurement]]:
    """Yield the levels whose cord is compared with healthy adults, of a volume turned about the x axis."""
    angle = np.deg2rad(degrees)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    turned = copy.copy(volume)
    turned.to_lps = turn @ volume.to_lps
    turned.from_lps = np.linalg.inv(turned.to_lps)
    marks = subject.disc_points @ turn[:3, :3].T
    with TemporaryDirectory() as work:
        study = acquire_volume(subject.name, turned, _neck(marks))
        result = grade_acquired(study, pack, Path(work))
    if result is None:
        return
    for found, mark in zip(result["levels"], marks, strict=False):
        if found["cord"] is None or "axial_slice_gap" in found["warnings"]:
            continue
        cord = CordMeasurement(**{**found["cord"], "points": tuple(map(tuple, found["cord"]["points"]))})
        near = np.linalg.norm(np.array(found["point"]) - mark) <= _MATCH_MM
        if near and cord.slice_angle_degrees <= MAX_ANGLE_DEGREES:
            yield found["level"], cord


def _as_shown(cord: CordMeasurement) -> tuple[float, float, float]:
    """Ratio, AP and transverse diameter in the plane of the slice."""
    anterior, posterior, left, right = np.array(cord.points)
    ap, transverse = float(np.linalg.norm(anterior - posterior)), float(np.linalg.norm(left - right))
    return ap / transverse, ap, transverse


def _neck(marks: FloatArray) -> tuple[float, float]:
    """Lowest and highest z of the images: 45 mm above C2/3, for discs are counted, to 15 mm below T1/2."""
    return float(marks[len(LEVELS), 2]) - 15.0, float(marks[0, 2]) + 45.0


def summarise(errors: Sequence[LevelError], kind: str = "across") -> dict[str, Any]:
    """Return bias and mean absolute error over volumes of each level and quantity.

    Args:
        errors: of several volumes.
        kind: attribute of `LevelError` that is summarised.
    """
    levels: dict[str, Any] = {}
    for level in LEVELS:
        table = np.array([getattr(item, kind) for item in errors if item.level == level])
        levels[level] = {
            quantity: {
                "volumes": len(table),
                "bias_sd": round(float(column.mean()), 2),
                "mean_absolute_error_sd": round(float(np.abs(column).mean()), 2),
            }
            for quantity, column in zip(QUANTITIES, table.T, strict=True)
        }
    return levels


def main() -> None:
    """Measure all volumes with masks, print the errors, and with `--out` write what `healthy` reads."""
    parser = argparse.ArgumentParser(description="Compare diameters of the cord with those of masks.")
    parser.add_argument("volumes", type=Path, help="folder with one folder a subject")
    parser.add_argument("--pack", type=Path, help="default: the reference pack")
    parser.add_argument("--out", type=Path, help="write the bias here as JSON")
    parser.add_argument("--details", type=Path, help="write the errors of each volume and level here as JSON")
    arguments = parser.parse_args()
    errors = [item for name in MASKS for item in volume_errors(name, arguments.volumes, arguments.pack)]
    print("errors in sd of the norm (ratio, AP, transverse); as shown in results.csv; z of the mask")
    for item in errors:
        parts = (
            "  ".join(f"{x:+5.2f}" for x in values) for values in (item.across, item.as_shown, item.mask_z)
        )
        print(f"{item.volume:12} {item.level:6} {item.turns} turns  {'   |   '.join(parts)}")
    for kind in ("across", "as_shown"):
        for level, quantities in summarise(errors, kind).items():
            told = "   ".join(
                f"{name} bias {x['bias_sd']:+.2f}, error {x['mean_absolute_error_sd']:.2f} ({x['volumes']})"
                for name, x in quantities.items()
            )
            print(f"{kind:9} {level:6} {told}")
    if arguments.out:
        model = open_pack(arguments.pack).models["cord"].sha256
        content = {
            "cord_model": model,
            "volumes": [*MASKS],
            "turns_degrees": TURNS_DEGREES,
            "levels": summarise(errors),
            "errors": [
                {"volume": item.volume, "level": item.level, "across_sd": [round(x, 3) for x in item.across]}
                for item in errors
            ],
        }
        arguments.out.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    if arguments.details:
        rows = [asdict(item) for item in errors]
        arguments.details.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
