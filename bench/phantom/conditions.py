"""What a study differs in from an ordinary one: the patient, the position, the scan.

The defaults of `Conditions` change nothing: a seed gives the same study, byte for byte, with and without this
module. Everything that a condition draws comes from a generator of its own (`condition_rng`).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace

import numpy as np


@dataclass(frozen=True)
class Conditions:
    """Deviations from an ordinary study. 0 means none, unless noted.

    Attributes:
        kyphosis: degrees taken from the lordosis between C2/3 and C7/T1.
        scoliosis: degrees of side bend that are added, as the amplitude of the coronal angle.
        cord_depth, cord_width: factors of the anteroposterior and the transverse diameter of the healthy
            cord; 1 for none.
        syrinx: half axes of a cavity in the cord, as a share of those of the cord.
        oedema: signal added to the cord in an irregular patch at each deformed level, relative to CSF.
        ossification: share of the sac's reserve that a dark, broad band behind the vertebral bodies takes.
        fusion: number of neighbouring discs that are fused by bone.
        metal: mm by which the signal void reaches beyond the plate, screws or cage of the fused discs.
        yaw, roll, pitch: degrees by which the patient is turned against both stacks, about the head-foot, the
            back-front and the left-right axis.
        axial_tilt: degrees by which the axial slices are turned about the left-right axis against the cord.
        field_mm: side of the sagittal field of view; 0 for one that is drawn, of 215 to 260 mm.
        field_place: where the neck lies in a field larger than needed, from −1 at the head's end to 1.
        spacing: factor of the pixel spacing and of the slice distance; 1 for none.
        echo: echo time, from −1 for short (bright marrow and muscle) to 1 for long.
        fat_suppression: share of the signal of fat that is missing, as in Dixon water images.
        volumetric: share of a 3-D acquisition: thin partitions averaged to the slice thickness, and less
            contrast between cord and CSF.
        interpolation: share of the matrix that is zero-filled: 0.5 doubles the matrix.
        noise: standard deviation of the noise that is added, relative to CSF.
        acceleration: largest factor by which noise is amplified, in the middle of the image; 1 for none.
        ghosts: amplitude of copies of bright tissue along the phase-encoding direction.
        motion: radians of phase error between lines that are added.
        bias_field: logarithm of the additional shading from one end of the image to the other.
    """

    kyphosis: float = 0.0
    scoliosis: float = 0.0
    cord_depth: float = 1.0
    cord_width: float = 1.0
    syrinx: float = 0.0
    oedema: float = 0.0
    ossification: float = 0.0
    fusion: float = 0.0
    metal: float = 0.0
    yaw: float = 0.0
    roll: float = 0.0
    pitch: float = 0.0
    axial_tilt: float = 0.0
    field_mm: float = 0.0
    field_place: float = 0.0
    spacing: float = 1.0
    echo: float = 0.0
    fat_suppression: float = 0.0
    volumetric: float = 0.0
    interpolation: float = 0.0
    noise: float = 0.0
    acceleration: float = 1.0
    ghosts: float = 0.0
    motion: float = 0.0
    bias_field: float = 0.0

    def differences(self) -> dict[str, float]:
        """The fields that differ from an ordinary study, by name."""
        return {
            item.name: getattr(self, item.name)
            for item in fields(self)
            if getattr(self, item.name) != item.default
        }


ORDINARY = Conditions()
"""An ordinary study."""


@dataclass(frozen=True)
class ConditionRange:
    """Strengths of one condition at which a pack is evaluated.

    Attributes:
        unit: of the strength; "" for a share.
        strengths: from weak to strong.
        refused: the levels concerned must not be graded.
    """

    unit: str
    strengths: tuple[float, ...]
    refused: bool = False


CONDITION_RANGES: dict[str, ConditionRange] = {
    "kyphosis": ConditionRange("°", (10.0, 20.0, 30.0, 40.0)),
    "scoliosis": ConditionRange("°", (4.0, 8.0, 12.0, 16.0)),
    "cord_depth": ConditionRange("times", (0.85, 0.92, 1.08, 1.15)),
    "cord_width": ConditionRange("times", (0.9, 1.1)),
    "syrinx": ConditionRange("", (0.2, 0.35, 0.5)),
    "oedema": ConditionRange("", (0.2, 0.3, 0.4)),
    "ossification": ConditionRange("", (0.3, 0.6, 0.9)),
    "fusion": ConditionRange("discs", (1.0, 2.0)),
    "metal": ConditionRange("mm", (2.0, 5.0, 8.0), refused=True),
    "yaw": ConditionRange("°", (5.0, 10.0, 15.0, 20.0)),
    "roll": ConditionRange("°", (5.0, 10.0, 15.0, 20.0)),
    "pitch": ConditionRange("°", (-20.0, -10.0, 10.0, 20.0)),
    "axial_tilt": ConditionRange("°", (-30.0, -20.0, -10.0, 10.0, 20.0, 30.0)),
    "field_mm": ConditionRange("mm", (160.0, 200.0, 300.0, 400.0, 500.0, 600.0)),
    "spacing": ConditionRange("times", (1.25, 1.5, 1.75)),
    "echo": ConditionRange("", (-1.0, -0.5, 0.5, 1.0)),
    "fat_suppression": ConditionRange("", (0.5, 1.0)),
    "volumetric": ConditionRange("", (0.5, 1.0)),
    "interpolation": ConditionRange("", (0.25, 0.5)),
    "noise": ConditionRange("", (0.03, 0.06, 0.09)),
    "acceleration": ConditionRange("times", (1.5, 2.0, 3.0)),
    "ghosts": ConditionRange("", (0.05, 0.1, 0.2)),
    "motion": ConditionRange("rad", (0.15, 0.3, 0.45)),
    "bias_field": ConditionRange("", (0.5, 1.0, 1.5)),
}


ALLOWED: dict[str, tuple[float, float]] = {
    "kyphosis": (0.0, 60.0),
    "scoliosis": (0.0, 30.0),
    "cord_depth": (0.7, 1.3),
    "cord_width": (0.8, 1.25),
    "syrinx": (0.0, 0.7),
    "oedema": (0.0, 0.6),
    "ossification": (0.0, 1.0),
    "fusion": (0.0, 4.0),
    "metal": (0.0, 10.0),
    "yaw": (-30.0, 30.0),
    "roll": (-30.0, 30.0),
    "pitch": (-30.0, 30.0),
    "axial_tilt": (-45.0, 45.0),
    "field_mm": (160.0, 600.0),
    "field_place": (-1.0, 1.0),
    "spacing": (1.0, 2.0),
    "echo": (-1.0, 1.0),
    "fat_suppression": (0.0, 1.0),
    "volumetric": (0.0, 1.0),
    "interpolation": (0.0, 0.6),
    "noise": (0.0, 0.2),
    "acceleration": (1.0, 4.0),
    "ghosts": (0.0, 0.5),
    "motion": (0.0, 1.0),
    "bias_field": (0.0, 3.0),
}
"""Lowest and highest strength of each condition that can be asked for."""


def parse_conditions(texts: Iterable[str]) -> Conditions:
    """Conditions from texts of the form NAME=STRENGTH; those that are not named are as in an ordinary study.

    Raises:
        ValueError: a text has another form, a name is unknown or repeated, or a strength is not allowed. The
            message says in one sentence what is allowed.
    """
    strengths: dict[str, float] = {}
    for text in texts:
        name, equals, value = (part.strip() for part in text.partition("="))
        if name not in ALLOWED:
            raise ValueError(f"Condition {name!r} is not known: give one of {', '.join(ALLOWED)}.")
        if name in strengths:
            raise ValueError(f"Condition {name} is given twice: give it once.")
        low, high = ALLOWED[name]
        try:
            strength = float(value)
        except ValueError:
            strength = float("nan")
        if not equals or not low <= strength <= high:
            raise ValueError(
                f"Condition {text!r} has no strength that is allowed: give {name}=STRENGTH with a number "
                f"from {low:g} to {high:g}."
            )
        if name == "fusion" and strength != round(strength):
            raise ValueError(f"Condition {text!r} counts discs: give {name}=STRENGTH with a whole number.")
        strengths[name] = strength
    if "field_place" in strengths and "field_mm" not in strengths:
        raise ValueError("Condition field_place is the neck's place in a field of view: give field_mm too.")
    return replace(ORDINARY, **strengths)


def condition_rng(seed: int, index: int, topic: str) -> np.random.Generator:
    """Generator of what conditions draw for study `index` of set `seed`, one for each topic."""
    return np.random.default_rng([seed, index, 7, *topic.encode()])


def draw_conditions(rng: np.random.Generator) -> Conditions:
    """Draw the conditions of a training study: a third are ordinary scans, most patients lack findings."""
    drawn = ORDINARY
    if rng.random() < 0.35:
        drawn = _with_finding(rng, drawn)
    drawn = _with_position(rng, drawn)
    if rng.random() < 0.67:
        drawn = _with_scan(rng, drawn)
    return drawn


def _with_finding(rng: np.random.Generator, drawn: Conditions) -> Conditions:
    kind = rng.choice(["syrinx", "oedema", "ossification", "metal", "fusion"], p=[0.14, 0.3, 0.26, 0.2, 0.1])
    if kind == "metal":
        return replace(drawn, fusion=float(rng.integers(1, 3)), metal=float(rng.uniform(1.0, 8.0)))
    if kind == "fusion":
        return replace(drawn, fusion=float(rng.integers(1, 3)))
    low, high = {"syrinx": (0.15, 0.55), "oedema": (0.18, 0.45), "ossification": (0.2, 0.95)}[str(kind)]
    return replace(drawn, **{str(kind): float(rng.uniform(low, high))})


def _with_position(rng: np.random.Generator, drawn: Conditions) -> Conditions:
    if rng.random() < 0.25:
        drawn = replace(drawn, kyphosis=float(rng.uniform(5.0, 40.0)))
    if rng.random() < 0.5:
        depth, width = rng.uniform([0.84, 0.9], [1.2, 1.12])
        drawn = replace(drawn, cord_depth=float(depth), cord_width=float(width))
    if rng.random() < 0.2:
        drawn = replace(drawn, field_mm=float(rng.uniform(160.0, 600.0)))
        drawn = replace(drawn, field_place=float(rng.uniform(-1.0, 1.0)))
    if rng.random() < 0.2:
        drawn = replace(drawn, scoliosis=float(rng.uniform(3.0, 14.0)))
    if rng.random() < 0.4:
        yaw, roll, pitch = rng.normal(0.0, [7.0, 6.0, 9.0])
        drawn = replace(drawn, yaw=float(yaw), roll=float(roll), pitch=float(pitch))
    if rng.random() < 0.5:
        drawn = replace(drawn, axial_tilt=float(rng.uniform(-35.0, 35.0)))
    return drawn


def _with_scan(rng: np.random.Generator, drawn: Conditions) -> Conditions:
    """Draw one to three deviations of the scan."""
    ranges = {
        "echo": (-1.0, 1.0),
        "fat_suppression": (0.4, 1.0),
        "volumetric": (0.3, 1.0),
        "interpolation": (0.2, 0.5),
        "noise": (0.01, 0.08),
        "acceleration": (1.2, 3.0),
        "ghosts": (0.02, 0.18),
        "motion": (0.05, 0.4),
        "bias_field": (0.2, 1.4),
        "spacing": (1.1, 1.7),
    }
    for name in rng.choice(list(ranges), size=int(rng.integers(1, 4)), replace=False):
        drawn = replace(drawn, **{str(name): float(rng.uniform(*ranges[str(name)]))})
    return drawn


def conditions_of(fixed: Conditions, varied: bool, seed: int, index: int) -> Conditions:
    """Conditions of study `index` of set `seed`: drawn if `varied`, and those that `fixed` names."""
    if not varied:
        return fixed
    return replace(draw_conditions(condition_rng(seed, index, "conditions")), **fixed.differences())
