"""Condense the cords of healthy adults to norms by disc level, measured as `engine.grading` measures a level.

    python -m stenosis_trt.bench.accuracy.healthy_norms ../shared/norms/pam50_spine_generic.csv OUT.json

The source has the diameters of 203 persons by slice of the PAM50 template, 0.5 mm apart and numbered from
foot to head, with the vertebra of each slice; a disc lies where the vertebra changes.

A level's compression ratio is the smallest of a few slices of 3 to 4 mm near the disc, and the smallest
of several values is lower than their mean: by norms of the mean at the disc, healthy persons look
compressed. So the norms repeat the measurement. Of contiguous slabs of 3.5 mm, those with their middle
within 6 mm of the disc compete, and the one with the lowest ratio gives ratio and diameters. Where the
first slab begins is chance, so each of the seven positions counts as a measurement of the person.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from stenosis_trt.engine.geometry import FloatArray
from stenosis_trt.engine.grading.compression import DISTANCE_MM, EXTENT_MM
from stenosis_trt.engine.grading.healthy import QUANTITIES
from stenosis_trt.engine.records import LEVELS

_SLICE_MM = 0.5
"""Distance of the template's slices."""
_SLAB_SLICES = 7
"""3.5 mm: thickness and distance of clinical axial slices, as in `semisynthetic.acquired`."""
_SEARCH_RADIUS_MM = 6.0
"""As in `engine.grading.match`."""
_FIRST_VERTEBRA = 2
"""C2, above the disc C2/3; vertebrae count C1 = 1 to T2 = 9."""
_PERCENTS = np.arange(101)


@dataclass(frozen=True)
class Person:
    """Cord of one person, float64 (N, 2): anteroposterior and transverse diameter in mm of each slice.

    Attributes:
        diameters: NaN where the source has none.
        vertebrae: vertebra of each slice, int64 (N,).
        age: in years.
        female: from the source's `sex`.
    """

    diameters: FloatArray
    vertebrae: np.ndarray
    age: float
    female: bool


def read_persons(path: Path) -> dict[str, Person]:
    """Read the source.

    Raises:
        OSError: it cannot be read.
        ValueError: slices of a person are missing or out of order.
        KeyError: a column is missing.
    """
    rows = defaultdict(list)
    with path.open(newline="", encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            rows[row["subject"]].append(row)
    persons = {}
    for name, own in rows.items():
        if any(int(b["slice"]) != int(a["slice"]) + 1 for a, b in pairwise(own)):
            raise ValueError(f"The slices of {name} are not contiguous.")
        persons[name] = Person(
            diameters=np.array(
                [[float(row[key] or "nan") for key in ("cord_ap_mm", "cord_transverse_mm")] for row in own]
            ),
            vertebrae=np.array([int(row["vertebra"]) for row in own]),
            age=float(own[0]["age"]),
            female=own[0]["sex"] == "F",
        )
    return persons


def disc_index(vertebrae: np.ndarray, level: str) -> float | None:
    """Return the index, between two slices, of a disc level; None if the slices do not show it."""
    upper = _FIRST_VERTEBRA + LEVELS.index(level)
    change = np.flatnonzero((vertebrae[:-1] == upper + 1) & (vertebrae[1:] == upper))
    return float(change[0]) + 0.5 if len(change) else None


def level_measurements(person: Person, level: str) -> Iterator[tuple[float, float, float]]:
    """Yield the measurement of a level for each position of the slabs: ratio, AP and transverse diameter, mm.

    Nothing is yielded where the slices do not reach 6 mm to both sides of the disc.
    """
    disc = disc_index(person.vertebrae, level)
    radius = _SEARCH_RADIUS_MM / _SLICE_MM
    half = (_SLAB_SLICES - 1) / 2
    if disc is None or disc - radius - half < 0 or disc + radius + half > len(person.vertebrae) - 1:
        return
    middles = np.arange(np.ceil(disc - radius), np.floor(disc + radius) + 1).astype(int)
    reach = np.arange(-int(half), int(half) + 1)
    slabs = person.diameters[middles[:, None] + reach].mean(axis=1)
    if np.isnan(slabs).any():
        return
    ratios = slabs[:, 0] / slabs[:, 1]
    for first in range(_SLAB_SLICES):
        k = first + int(ratios[first::_SLAB_SLICES].argmin()) * _SLAB_SLICES
        yield float(ratios[k]), float(slabs[k, 0]), float(slabs[k, 1])


def level_compression(person: Person, level: str) -> tuple[float, float, float] | None:
    """Return the MSCC of a level: by the cord above and below, above alone, below alone.

    As in `engine.grading.compression`, with the level as the only compression. NaN where the slices show less
    than one slab of the cord on that side; None where the level is not measured.
    """
    disc = disc_index(person.vertebrae, level)
    measured = [ap for _, ap, _ in level_measurements(person, level)]
    if disc is None or not measured:
        return None
    near, far = (round(mm / _SLICE_MM) for mm in (DISTANCE_MM, DISTANCE_MM + EXTENT_MM))
    diameters, k = person.diameters[:, 0], int(disc + 0.5)
    above, below = (
        float(np.nanmean(side)) if np.isfinite(side).sum() >= _SLAB_SLICES else np.nan
        for side in (diameters[k + near : k + far + 1], diameters[max(0, k - far) : max(0, k - near + 1)])
    )
    at_level = float(np.mean(measured))
    return 1.0 - 2.0 * at_level / (above + below), 1.0 - at_level / above, 1.0 - at_level / below


def condense(persons: Mapping[str, Person]) -> dict[str, Any]:
    """Return the norms: for each level and quantity the mean, standard deviation, percentiles and persons."""
    levels: dict[str, Any] = {}
    for level in LEVELS:
        measured = [values for person in persons.values() if (values := [*level_measurements(person, level)])]
        # Positions of the slabs are equally likely, so all measurements of all persons are pooled.
        pooled = np.array(measured).reshape(-1, len(QUANTITIES))
        levels[level] = {
            name: {
                "persons": len(measured),
                "mean": round(float(column.mean()), 4),
                "sd": round(float(column.std(ddof=1)), 4),
                "percentiles": [round(float(value), 4) for value in np.percentile(column, _PERCENTS)],
            }
            for name, column in zip(QUANTITIES, pooled.T, strict=True)
        }
    ages = [person.age for person in persons.values()]
    return {
        "source": "spinalcordtoolbox/PAM50-normalized-metrics, spine-generic, T2 of 0.8 mm",
        "reference": "Valosek, Bedard et al., Imaging Neuroscience 2024, doi 10.1162/imag_a_00075",
        "licence": "MIT; see LICENSE-PAM50-normalized-metrics.txt",
        "persons": len(persons),
        "women": sum(person.female for person in persons.values()),
        "age_years": [min(ages), max(ages)],
        "slice_mm": _SLAB_SLICES * _SLICE_MM,
        "search_radius_mm": _SEARCH_RADIUS_MM,
        "levels": levels,
    }


def norms_json(norms: Mapping[str, Any]) -> str:
    """Return the norms as JSON with one line for each level and quantity."""
    head = {key: value for key, value in norms.items() if key != "levels"}
    lines = [f" {json.dumps(key)}: {json.dumps(value)}," for key, value in head.items()]
    levels = []
    for level, quantities in norms["levels"].items():
        inner = ",\n".join(
            f"   {json.dumps(name)}: {json.dumps(values)}" for name, values in quantities.items()
        )
        levels.append(f"  {json.dumps(level)}: {{\n{inner}\n  }}")
    return "\n".join(["{", *lines, ' "levels": {', ",\n".join(levels), " }", "}", ""])


def main() -> None:
    """Write the norms; print means and standard deviations, of MSCC as well."""
    parser = argparse.ArgumentParser(description="Condense cords of healthy adults to norms by disc level.")
    parser.add_argument("source", type=Path, help="pam50_spine_generic.csv")
    parser.add_argument("out", type=Path, help="the norms as JSON")
    arguments = parser.parse_args()
    persons = read_persons(arguments.source)
    norms = condense(persons)
    arguments.out.write_text(norms_json(norms), encoding="utf-8")
    for level, quantities in norms["levels"].items():
        told = ", ".join(
            f"{name} {values['mean']:.3f} ± {values['sd']:.3f}" for name, values in quantities.items()
        )
        print(f"{level:6} n = {quantities['ap_mm']['persons']}: {told}")
        compressions = [found for one in persons.values() if (found := level_compression(one, level))]
        sides = zip(("above and below", "above", "below"), np.array(compressions).T, strict=True)
        told = ", ".join(
            f"{side} {np.nanmean(values):+.3f} ± {np.nanstd(values, ddof=1):.3f}" for side, values in sides
        )
        print(f"       MSCC by the cord {told}")


if __name__ == "__main__":
    main()
