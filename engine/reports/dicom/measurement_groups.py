"""Measurement groups of the structured report, a level each (PS3.16, TID 1501 and TID 1410).

Their structure is what viewers draw, not all that the standard allows: see docs/structured-report.md.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from stenosis_trt.engine.records import HealthyComparison, LevelResult
from stenosis_trt.engine.reports.dicom import coded_values as codes
from stenosis_trt.engine.reports.dicom.coded_values import Code
from stenosis_trt.engine.reports.dicom.content_items import (
    CONTAINS,
    HAS_CONCEPT_MOD,
    HAS_OBS_CONTEXT,
    HAS_PROPERTIES,
    INFERRED_FROM,
    code,
    container,
    coordinates,
    number,
    text,
    uid_reference,
)
from stenosis_trt.engine.reports.dicom.contributing_equipment import MANUFACTURER
from stenosis_trt.engine.reports.dicom.image_coordinates import PlacedLevel, Point
from stenosis_trt.engine.reports.dicom.report_uids import derived_uid
from stenosis_trt.engine.reports.study_report import Provenance
from stenosis_trt.engine.reports.text.wording import finding

_MM_DIGITS, _DIGITS = 2, 4
"""Decimals, as in results.csv; of percentages two less."""
_PERCENT_DIGITS = _DIGITS - 2


@dataclass(frozen=True)
class GroupContext:
    """What all groups of a study share.

    Attributes:
        provenance: what produced the results.
        uid: UID that the tracking UIDs are derived from.
    """

    provenance: Provenance
    uid: str


def axial_groups(context: GroupContext, levels: Iterable[PlacedLevel]) -> list[bytes]:
    """Return one group a level: both diameters and the ratio, each with its one SCOORD."""
    groups = []
    for placed in levels:
        ap, transverse = _source(placed, placed.points[:2]), _source(placed, placed.points[2:])
        # OHIF before 3.12 draws nothing if a NUM has no coordinates, so the ratio has some as well.
        numbers = [_ap(placed, ap), _transverse(placed, transverse), _ratio(placed, transverse)]
        groups.append(_group(context, placed, "1501", "cord", numbers))
    return groups


def sagittal_groups(context: GroupContext, levels: Iterable[PlacedLevel]) -> list[bytes]:
    """Return one group a level: the probability of its grade, with the level's point as SCOORD."""
    return [
        _group(context, placed, "1501", "level", [_probability(placed, _source(placed, placed.points))])
        for placed in levels
    ]


def planar_axial_groups(context: GroupContext, levels: Iterable[PlacedLevel]) -> list[bytes]:
    """Return two planar regions a level, a polyline each, for 3D Slicer."""
    groups = []
    for placed in levels:
        ap, transverse = _region(placed, placed.points[:2]), _region(placed, placed.points[2:])
        groups += [
            _group(context, placed, "1410", "cord AP", [_ap(placed), ap]),
            _group(
                context, placed, "1410", "cord transverse", [_transverse(placed), _ratio(placed), transverse]
            ),
        ]
    return groups


def planar_sagittal_groups(context: GroupContext, levels: Iterable[PlacedLevel]) -> list[bytes]:
    """Return one planar region a level, its point, for 3D Slicer."""
    return [
        _group(context, placed, "1410", "level", [_probability(placed), _region(placed, placed.points)])
        for placed in levels
    ]


def _ap(placed: PlacedLevel, children: Iterable[bytes] = ()) -> bytes:
    return number(codes.AP_DIAMETER, placed.cord.ap_mm, _MM_DIGITS, codes.MILLIMETRE, children=children)


def _transverse(placed: PlacedLevel, children: Iterable[bytes] = ()) -> bytes:
    value = placed.cord.transverse_mm
    return number(codes.TRANSVERSE_DIAMETER, value, _MM_DIGITS, codes.MILLIMETRE, children=children)


def _ratio(placed: PlacedLevel, children: Iterable[bytes] = ()) -> bytes:
    value = placed.cord.compression_ratio
    return number(codes.COMPRESSION_RATIO, value, _DIGITS, codes.RATIO_UNIT, children=children)


def _probability(placed: PlacedLevel, children: Iterable[bytes] = ()) -> bytes:
    """The probability of the grade. Unlike the grade it is never 0, which viewers print as nothing."""
    level = placed.level
    assert level.grade is not None
    assert level.probabilities is not None
    value = 100 * level.probabilities[level.grade]
    return number(codes.PROBABILITY, value, _PERCENT_DIGITS, codes.PERCENT, children=children)


def _region(placed: PlacedLevel, points: tuple[Point, ...]) -> bytes:
    return coordinates(codes.IMAGE_REGION, points, placed.placed.reference, CONTAINS)


def _source(placed: PlacedLevel, points: tuple[Point, ...]) -> list[bytes]:
    return [coordinates(codes.SOURCE, points, placed.placed.reference, INFERRED_FROM)]


def _group(
    context: GroupContext, placed: PlacedLevel, template: str, what: str, measured: Iterable[bytes]
) -> bytes:
    """A measurement group: what it is of and how it was found, what was measured, what is known besides."""
    level = placed.level
    items = [
        text(codes.TRACKING_IDENTIFIER, f"{level.level} {what}", HAS_OBS_CONTEXT),
        uid_reference(codes.TRACKING_UID, derived_uid(context.uid, level.level, what), HAS_OBS_CONTEXT),
        code(codes.FINDING, codes.SPINAL_CORD if level.grade is None else codes.SPINAL_STENOSIS),
        code(codes.FINDING_SITE, codes.DISCS[level.level], HAS_CONCEPT_MOD),
        *_algorithm(context.provenance),
        *measured,
        *_description(level),
    ]
    return container(codes.MEASUREMENT_GROUP, items, template=template)


def _algorithm(provenance: Provenance) -> Iterator[bytes]:
    """Items of TID 4019, Algorithm Identification."""
    texts = (
        (codes.ALGORITHM_NAME, provenance.pack_name),
        (codes.ALGORITHM_VERSION, provenance.pack_version),
        (codes.ALGORITHM_MANUFACTURER, MANUFACTURER),
        (codes.ALGORITHM_PARAMETERS, f"software version: {provenance.software_version}"),
        (codes.ALGORITHM_PARAMETERS, f"backend: {provenance.backend}"),
        (codes.ALGORITHM_PARAMETERS, f"precision: {provenance.precision}"),
        (codes.ALGORITHM_PARAMETERS, f"SHA-256 of the pack: {provenance.pack_sha256}"),
    )
    for name, value in texts:
        yield text(name, value, HAS_CONCEPT_MOD)
    yield code(codes.ALGORITHM_FAMILY, codes.ARTIFICIAL_INTELLIGENCE, HAS_CONCEPT_MOD)


def _description(level: LevelResult) -> Iterator[bytes]:
    """What is known of a level besides measurements with coordinates."""
    if level.grade is not None:
        yield code(
            codes.KANG_GRADE,
            codes.KANG_GRADES[level.grade],
            children=[
                _percent(name, value)
                for name, value in zip(codes.PROBABILITIES, level.probabilities or (), strict=False)
            ],
        )
        yield code(codes.SEVERITY, codes.SEVERITIES[level.grade])
    values = list(_further_values(level))
    if values:
        words = "; ".join(words for words, _ in values)
        yield text(codes.FURTHER_VALUES, words, children=[item for _, item in values])
    # Viewers show it as the name of the level.
    yield text(codes.COMMENT, finding(level))


def _further_values(level: LevelResult) -> Iterator[tuple[str, bytes]]:
    """Values without coordinates: their words and their NUM.

    They stand below a TEXT: viewers expect coordinates at each NUM that is directly in a group.
    """
    yield f"confidence {level.confidence:.2f}", _percent(codes.CONFIDENCE, level.confidence)
    if level.cord is not None:
        yield (
            f"confidence of the cord {level.cord.confidence:.2f}",
            _percent(codes.CORD_CONFIDENCE, level.cord.confidence),
        )
    if level.mscc is not None:
        mscc = number(codes.MSCC, level.mscc, _DIGITS, codes.RATIO_UNIT, HAS_PROPERTIES)
        yield f"MSCC {level.mscc:.2f}", mscc
    for name, z, percentile, z_code, percentile_code in _compared(level.healthy):
        if z is not None:
            yield f"{name} z {z:.1f}", number(z_code, z, _MM_DIGITS, codes.NO_UNITS, HAS_PROPERTIES)
        if percentile is not None:
            item = number(percentile_code, percentile, _PERCENT_DIGITS, codes.PERCENT, HAS_PROPERTIES)
            yield f"{name} percentile {percentile:.0f}", item


def _compared(
    healthy: HealthyComparison | None,
) -> Iterator[tuple[str, float | None, float | None, Code, Code]]:
    """Name, z-score and percentile of each value that is compared with healthy adults, and their codes."""
    if healthy is None:
        return
    ratio, ratio_percentile = healthy.compression_ratio_z, healthy.compression_ratio_percentile
    yield "ratio", ratio, ratio_percentile, codes.RATIO_Z, codes.RATIO_PERCENTILE
    yield "AP", healthy.ap_z, healthy.ap_percentile, codes.AP_Z, codes.AP_PERCENTILE
    transverse, transverse_percentile = healthy.transverse_z, healthy.transverse_percentile
    yield "transverse", transverse, transverse_percentile, codes.TRANSVERSE_Z, codes.TRANSVERSE_PERCENTILE


def _percent(name: Code, value: float) -> bytes:
    return number(name, 100 * value, _PERCENT_DIGITS, codes.PERCENT, HAS_PROPERTIES)
