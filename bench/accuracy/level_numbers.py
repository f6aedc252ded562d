"""How often wrongly numbered studies are flagged or refused, and rightly numbered ones flagged.

    python -m stenosis_trt.bench.accuracy.level_numbers --out FOLDER [--volumes VOLUMES] [--subject NAME]

Phantoms and, with volumes, subjects are graded as acquired, cut short at the head and at the foot, tilted by
20° both ways, and in tall fields of view with the neck at either end and in the middle. A subject's volume is
resliced as it is; in tall fields it is painted on beyond the volume, as a semi-synthetic study of grade 0. A
study is wrongly numbered if a level was found at the disc of another name. It is flagged if a level has the
warning `level_number_uncertain`. FOLDER gets `level_numbers.json`; studies that were graded there before, by
this command or by `bench.robustness`, are not made again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from stenosis_trt.bench.accuracy.acquired_requests import AcquiredRequest
from stenosis_trt.bench.accuracy.command_line import (
    chosen_subjects,
    grader_setting,
    run_command,
    study_parser,
)
from stenosis_trt.bench.accuracy.graded_studies import GradedStudy
from stenosis_trt.bench.accuracy.study_records import Request, check_setting, grade_requests
from stenosis_trt.bench.accuracy.study_requests import PHANTOM, StudyRequest
from stenosis_trt.bench.phantom.conditions import ORDINARY, Conditions
from stenosis_trt.bench.statistics.signed_errors import share
from stenosis_trt.engine.records import Stage
from stenosis_trt.engine.support.atomic_files import write_text_atomically

NUMBER_WARNING = "level_number_uncertain"

_PHANTOMS = 6
_HEAD_CUTS = (-0.4, 0.5, 1.5)
"""Where images end at the head, in discs from C2/3: below the middle of C2, in C3, in C4."""
_FOOT_CUTS = (5.5, 4.5, 3.5)
"""Where images end at the foot: in T1, in C7, in C6."""
_TILTS_DEGREES = (-20.0, 20.0)
_FIELDS_MM = (400.0, 600.0)
_PLACES = (-1.0, 0.0, 1.0)


@dataclass(frozen=True)
class NumberedStudy:
    """Outcome of one study.

    Attributes:
        scenario: how the patient was imaged.
        source: "phantom", or the name of the subject.
        c2_shown: the images show the body of C2.
        found, misnumbered: number of levels that were found, and that were found at another disc.
        flagged: a level has the warning that numbers are uncertain.
        refused: why there is no result; "" if there is one.
        unfit: the series were not fit for grading, such as a field of view that the cut made too small.
    """

    scenario: str
    source: str
    c2_shown: bool
    found: int
    misnumbered: int
    flagged: bool
    refused: str
    unfit: bool = False


@dataclass(frozen=True)
class NumberRates:
    """Counts and rates of some studies; rates are None where nothing was counted.

    Attributes:
        studies: number of studies.
        right, right_flagged: rightly numbered ones, and those of them with the warning.
        wrong, wrong_flagged: wrongly numbered ones, and those of them with the warning.
        unfit: studies whose series were not fit for grading; they count nowhere else.
        refused: other studies in which no level was found, or without a result.
        refused_with_c2: those of them whose images show C2.
        false_alarms: right_flagged ÷ right.
        caught: wrong_flagged ÷ wrong.
        caught_or_refused: (wrong_flagged + refused) ÷ (wrong + refused).
    """

    studies: int
    right: int
    right_flagged: int
    wrong: int
    wrong_flagged: int
    unfit: int
    refused: int
    refused_with_c2: int
    false_alarms: float | None
    caught: float | None
    caught_or_refused: float | None


def numbered(scenario: str, study: GradedStudy) -> NumberedStudy:
    """Outcome of a graded study."""
    return NumberedStudy(
        scenario=scenario,
        source=study.source,
        c2_shown=study.c2_shown,
        found=sum(level.point is not None for level in study.levels),
        misnumbered=len(study.misnumbered()),
        flagged=any(NUMBER_WARNING in level.warnings for level in study.levels),
        refused=study.refused,
        unfit=study.refused_stage == Stage.CHOOSE.value,
    )


def number_rates(studies: Sequence[NumberedStudy]) -> NumberRates:
    """Counts and rates of some studies."""
    refused = [item for item in studies if (item.refused or not item.found) and not item.unfit]
    wrong = [item.flagged for item in studies if item.misnumbered]
    right = [item.flagged for item in studies if item.found and not item.misnumbered and not item.refused]
    return NumberRates(
        studies=len(studies),
        right=len(right),
        right_flagged=sum(right),
        wrong=len(wrong),
        wrong_flagged=sum(wrong),
        unfit=sum(item.unfit for item in studies),
        refused=len(refused),
        refused_with_c2=sum(item.c2_shown for item in refused),
        false_alarms=share(right),
        caught=share(wrong),
        caught_or_refused=share([*wrong, *[True] * len(refused)]),
    )


def phantom_requests(seed: int, index: int) -> Iterator[tuple[str, StudyRequest]]:
    """Scenarios of one phantom."""
    plain = StudyRequest(seed, index)
    yield "as acquired", plain
    for cut in _cuts():
        yield _cut_name(cut), replace(plain, cut=cut)
    for degrees in _TILTS_DEGREES:
        yield "tilted", replace(plain, conditions=replace(ORDINARY, pitch=degrees))
    for conditions in _tall_fields():
        yield "tall field", replace(plain, conditions=conditions)


def subject_requests(seed: int, subject: str, volumes: Path) -> Iterator[tuple[str, Request]]:
    """Scenarios of one subject."""
    plain = AcquiredRequest(subject, volumes)
    yield "as acquired", plain
    for cut in _cuts():
        yield _cut_name(cut), replace(plain, cut=cut)
    for degrees in _TILTS_DEGREES:
        yield "tilted", replace(plain, pitch=degrees)
    for conditions in _tall_fields():
        yield "tall field", StudyRequest(seed, 0, conditions, (subject,), volumes, grade=0)


def _cuts() -> Iterator[tuple[float | None, float | None]]:
    yield from ((first, None) for first in _HEAD_CUTS)
    yield from ((None, last) for last in _FOOT_CUTS)


def _cut_name(cut: tuple[float | None, float | None]) -> str:
    return "cut at the foot" if cut[0] is None else "cut at the head"


def _tall_fields() -> Iterator[Conditions]:
    for side in _FIELDS_MM:
        for place in _PLACES:
            yield replace(ORDINARY, field_mm=side, field_place=place)


def rates_by_group(studies: Sequence[NumberedStudy]) -> dict[str, NumberRates]:
    """Rates of each scenario for phantoms and subjects, and of all studies of each kind and together."""
    groups: dict[str, list[NumberedStudy]] = {}
    for item in studies:
        kind = "phantoms" if item.source == PHANTOM else "subjects"
        groups.setdefault(f"{kind}, {item.scenario}", []).append(item)
    for kind in ("phantoms", "subjects"):
        chosen = [item for item in studies if (item.source == PHANTOM) == (kind == "phantoms")]
        if chosen:
            groups[f"{kind}, all"] = chosen
    groups["all"] = list(studies)
    return {name: number_rates(items) for name, items in groups.items()}


def _print(rates: Mapping[str, NumberRates]) -> None:
    print(
        f"{'':28} {'studies':>7} {'right':>6} {'flagged':>8} {'wrong':>6} {'flagged':>8} {'refused':>8} "
        f"{'C2 shown':>9} {'unfit':>6}"
    )
    for name, item in rates.items():
        print(
            f"{name:28} {item.studies:7} {item.right:6} {item.right_flagged:8} {item.wrong:6} "
            f"{item.wrong_flagged:8} {item.refused:8} {item.refused_with_c2:9} {item.unfit:6}"
        )
    whole = rates["all"]
    for text, value in (
        ("rightly numbered studies that are flagged", whole.false_alarms),
        ("wrongly numbered studies that are flagged", whole.caught),
        ("studies not rightly numbered that are flagged or refused", whole.caught_or_refused),
    ):
        print(f"{text}: {'–' if value is None else f'{value:.1%}'}")


def main() -> int:
    """Print the rates, write them to `level_numbers.json`, and return the exit code."""
    parser = study_parser("accuracy.level_numbers", "Rates of wrong level numbers and warnings.", _PHANTOMS)
    arguments = parser.parse_args()
    return run_command("level_numbers", lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    subjects, setting = chosen_subjects(arguments), grader_setting(arguments)
    phantoms = _PHANTOMS if arguments.studies is None else arguments.studies
    named: list[tuple[str, Request]] = [
        pair for index in range(phantoms) for pair in phantom_requests(arguments.seed, index)
    ]
    for subject in subjects:
        named += subject_requests(arguments.seed, subject, arguments.volumes)
    if not named:
        raise ValueError("No studies were asked for. Give --studies of at least 1, or --volumes.")
    requests = [request for _, request in named]
    graded = grade_requests(requests, arguments.out, setting, arguments.workers)
    studies = [numbered(scenario, study) for (scenario, _), study in zip(named, graded, strict=True)]
    rates = rates_by_group(studies)
    content = {
        **check_setting(arguments.out, setting),
        "rates": {name: asdict(item) for name, item in rates.items()},
        "studies": [asdict(item) for item in studies],
    }
    write_text_atomically(arguments.out / "level_numbers.json", json.dumps(content, indent=1) + "\n")
    _print(rates)


if __name__ == "__main__":
    sys.exit(main())
