"""Options that the evaluations on made studies share, and their exit codes."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from stenosis_trt.bench.accuracy.study_records import GraderSetting
from stenosis_trt.bench.semisynthetic.source import SemisyntheticSource
from stenosis_trt.bench.semisynthetic.subjects import SUBJECTS
from stenosis_trt.engine.errors import StenosisError

SEED = 1607
"""Of studies that nothing was trained or tuned on."""


def study_parser(name: str, description: str, phantoms: int) -> argparse.ArgumentParser:
    """Parser with the options of an evaluation on phantoms and semi-synthetic studies.

    Args:
        name: of the module, below `stenosis_trt.bench`.
        description: one sentence.
        phantoms: default number of phantoms.
    """
    parser = argparse.ArgumentParser(prog=f"python -m stenosis_trt.bench.{name}", description=description)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--volumes", type=Path, help="volumes of subjects, a folder each")
    parser.add_argument("--subject", action="append", help="use this subject alone; repeatable")
    parser.add_argument("--studies", type=int, help=f"phantoms ({phantoms})")
    parser.add_argument("--pack", type=Path, help="default: the reference pack")
    parser.add_argument("--precision", default="fp32", help="of the models (fp32)")
    parser.add_argument("--seed", type=int, default=SEED, help=f"of the studies ({SEED})")
    parser.add_argument("--workers", type=int, help="processes; default: one a core")
    return parser


def chosen_subjects(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Names of the subjects: those of `--subject`, else all acquired ones; none without `--volumes`.

    Raises:
        ValueError: a subject is not known, or given without volumes; or there are too few processes.
        OSError: a volume is missing.
    """
    if arguments.workers is not None and arguments.workers < 1:
        raise ValueError(f"{arguments.workers} processes are too few. Give at least 1.")
    if arguments.volumes is None:
        if arguments.subject:
            raise ValueError("Subjects are of volumes. Give --volumes.")
        return ()
    subjects = tuple(arguments.subject or (name for name in SUBJECTS if name.startswith("errsm")))
    return SemisyntheticSource(subjects, arguments.volumes).subjects


def grader_setting(arguments: argparse.Namespace) -> GraderSetting:
    """Pack and precision of the arguments."""
    return GraderSetting(arguments.pack, arguments.precision)


def run_command(name: str, command: Callable[[], None]) -> int:
    """Run a command and return its exit code: 2, with a sentence on stderr, if it cannot be done."""
    try:
        command()
    except StenosisError as error:
        return _fail(name, str(error))
    except OSError as error:
        return _fail(name, f"{error.filename}: {error.strerror}." if error.filename else str(error))
    except ValueError as error:
        return _fail(name, str(error))
    return 0


def _fail(name: str, message: str) -> int:
    print(f"{name}: {message}", file=sys.stderr)
    return 2
