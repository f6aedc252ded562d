"""Evaluate a pack under the conditions of `phantom.conditions`, and declare within which it holds.

    python -m stenosis_trt.bench.robustness --out FOLDER [--volumes VOLUMES] [--pack PACK]
    python -m stenosis_trt.bench.robustness --out FOLDER --quick --condition noise --condition yaw

The same patients are made as ordinary studies and under each condition at each strength, graded, and compared
with their truth and with their ordinary versions. `docs/robustness.md` says what the columns mean.

FOLDER gets robustness.csv, robustness.json, robustness.md, robustness.svg and robustness.png. Studies that
were graded before are not made again, so a run that was interrupted goes on where it ended.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from stenosis_trt.bench.accuracy.command_line import (
    chosen_subjects,
    grader_setting,
    run_command,
    study_parser,
)
from stenosis_trt.bench.accuracy.graded_studies import GradedStudy
from stenosis_trt.bench.accuracy.study_records import GraderSetting, check_setting, grade_requests
from stenosis_trt.bench.accuracy.study_requests import PHANTOM
from stenosis_trt.bench.phantom.conditions import CONDITION_RANGES
from stenosis_trt.bench.robustness.declared import declared_range
from stenosis_trt.bench.robustness.figures import Figures, figures_of
from stenosis_trt.bench.robustness.plan import ORDINARY_NAME, Plan
from stenosis_trt.bench.robustness.plot import draw
from stenosis_trt.bench.robustness.tables import csv_text, json_text, markdown_text
from stenosis_trt.engine.support.atomic_files import write_bytes_atomically, write_text_atomically

PHANTOMS, SEMISYNTHETIC = 6, 4
_QUICK_STUDIES, _QUICK_STRENGTHS = (2, 1), 2


def evaluate(plan: Plan, out: Path, setting: GraderSetting, workers: int | None = None) -> list[Figures]:
    """Grade all studies of a plan, and write tables and plot; see the module.

    Raises:
        OutputError: `out` holds studies of another pack or program.
        OSError: a volume is missing, or `out` cannot be written.
        StenosisError: nothing can be graded.
    """
    requests = plan.requests()
    graded = dict(zip(requests, grade_requests(requests, out, setting, workers), strict=True))
    plain = [graded[item] for item in plan.ordinary()]
    figures = _by_source((ORDINARY_NAME, 0.0), plain, plain)
    for point in plan.points():
        figures += _by_source(point, [graded[item] for item in plan.studies(*point)], plain)
    whole = [item for item in figures if item.source == "all"]
    declared = [
        declared_range(name, [item for item in whole if item.condition == name]) for name in plan.conditions
    ]
    made = {**check_setting(out, setting), "plan": {**asdict(plan), "volumes": str(plan.volumes or "")}}
    write_text_atomically(out / "robustness.csv", csv_text(figures))
    write_text_atomically(out / "robustness.json", json_text(figures, declared, made))
    write_text_atomically(out / "robustness.md", markdown_text(figures, declared))
    title = (
        f"{made['pack']} {made['pack_version']}, {made['precision']}: {len(plain)} studies at each strength"
    )
    for ending, content in draw(whole[1:], whole[0], declared, title).items():
        write_bytes_atomically(out / f"robustness.{ending}", content)
    return figures


def _by_source(
    point: tuple[str, float], studies: Sequence[GradedStudy], plain: Sequence[GradedStudy]
) -> list[Figures]:
    """Figures of all studies, and of phantoms and semi-synthetic studies apart if there are both."""
    figures = [figures_of(point, "all", studies, plain)]
    for name, real in (("phantom", False), ("semisynthetic", True)):
        chosen = [k for k, study in enumerate(studies) if (study.source != PHANTOM) is real]
        if 0 < len(chosen) < len(studies):
            part = ([studies[k] for k in chosen], [plain[k] for k in chosen])
            figures.append(figures_of(point, name, *part))
    return figures


def _parser() -> argparse.ArgumentParser:
    parser = study_parser(
        "robustness", "Evaluate a pack under conditions of patient, position and scan.", PHANTOMS
    )
    parser.add_argument(
        "--semisynthetic", type=int, help=f"semi-synthetic studies, where volumes are given ({SEMISYNTHETIC})"
    )
    parser.add_argument(
        "--condition", action="append", choices=list(CONDITION_RANGES), help="this alone; repeatable"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"{_QUICK_STRENGTHS} strengths of each condition and {sum(_QUICK_STUDIES)} studies at each",
    )
    return parser


def _plan(arguments: argparse.Namespace) -> Plan:
    """The plan of some arguments.

    Raises:
        ValueError: a number or a subject is not allowed.
        OSError: a volume is missing.
    """
    subjects = chosen_subjects(arguments)
    phantoms, semisynthetic = _QUICK_STUDIES if arguments.quick else (PHANTOMS, SEMISYNTHETIC)
    if not subjects:
        # A quick run has as many studies without volumes.
        phantoms, semisynthetic = phantoms + (semisynthetic if arguments.quick else 0), 0
    phantoms = phantoms if arguments.studies is None else arguments.studies
    semisynthetic = semisynthetic if arguments.semisynthetic is None else arguments.semisynthetic
    if min(phantoms, semisynthetic) < 0 or phantoms + semisynthetic < 1:
        raise ValueError(f"{phantoms} and {semisynthetic} studies were asked for. Ask for at least 1.")
    if semisynthetic and not subjects:
        raise ValueError("Semi-synthetic studies need volumes. Give --volumes.")
    return Plan(
        seed=arguments.seed,
        phantoms=phantoms,
        semisynthetic=semisynthetic,
        subjects=subjects if semisynthetic else (),
        volumes=arguments.volumes if semisynthetic else None,
        conditions=tuple(dict.fromkeys(arguments.condition or CONDITION_RANGES)),
        strengths=_QUICK_STRENGTHS if arguments.quick else None,
    )


def main() -> int:
    """Run the evaluation, print the Markdown tables, and return the exit code."""
    arguments = _parser().parse_args()

    def command() -> None:
        evaluate(_plan(arguments), arguments.out, grader_setting(arguments), arguments.workers)
        print((arguments.out / "robustness.md").read_text(encoding="utf-8"), end="")

    return run_command("robustness", command)


if __name__ == "__main__":
    sys.exit(main())
