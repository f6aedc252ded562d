"""Reading and writing of the JSON files that a resumed run needs: those in `studies/`, and `run.json`.

They may have been changed since. So each is validated against a schema, and `DamagedFile` is raised for
everything that a run would not have written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stenosis_trt.engine.records import LEVELS, Problem, Stage, StudyResult
from stenosis_trt.engine.runs.table_files import DECIMAL_MARKS
from stenosis_trt.engine.support.safe_text import escape_controls, escape_controls_in

if TYPE_CHECKING:
    from pydantic import TypeAdapter

FORMAT_VERSION = 3
"""Version of `StoredStudy` as JSON. Every change but a new field with a default raises it."""
_MAX_BYTES = 64 << 20
"""A study with a problem for each of 100,000 files takes 30 MB."""
_MAX_ATTEMPTS = 3
"""Attempts to grade a study of which a file ends its reading process each time."""
_GRADES = range(4)


@dataclass(frozen=True)
class StoredStudy:
    """Content of a file in `studies/`: the result of a study, or why there is none.

    Attributes:
        format: FORMAT_VERSION of the program that wrote the file.
        study_uid: Study Instance UID.
        path: folder of the study, or its replacement with `--no-paths`.
        images: hash of the set of images that the study had.
        result: None if the study could not be graded.
        problems: problems of the study and its files; at least one if there is no result.
        run: random id of the run that graded it.
        read_with: limits and decoders that it was read with; see `provenance.reading_fingerprint`.
        tries: number of attempts to grade it with the same images and `read_with`.
    """

    format: int
    study_uid: str
    path: str
    images: str
    result: StudyResult | None
    problems: tuple[Problem, ...]
    run: str = ""
    read_with: dict[str, Any] = field(default_factory=dict)
    tries: int = 1

    @property
    def lost_images(self) -> list[Problem]:
        """Problems of files whose pixels could not be read."""
        return [
            problem
            for problem in self.problems
            if problem.stage is Stage.PIXELS and not problem.harmless and not problem.of_study
        ]

    def may_gain_images(self, reading_fingerprint: Mapping[str, Any]) -> bool:
        """Return True if lost images may be readable now.

        That is the case with other limits or decoders, or if the problem may have been temporary. A file that
        ends its reading process at each of three attempts is taken to be the cause.
        """
        if self.read_with != reading_fingerprint:
            return bool(self.lost_images)
        return any(problem.temporary for problem in self.lost_images) and self.tries < _MAX_ATTEMPTS

    def attempts(self, reading_fingerprint: Mapping[str, Any]) -> int:
        """Return the number of attempts to grade the study with these limits and decoders."""
        return self.tries if self.read_with == reading_fingerprint else 0


@dataclass(frozen=True)
class RunState:
    """What the tables were composed from besides the studies, so that `report` composes them again.

    Attributes:
        key: name of the results, which the page keeps the progress of a review under.
        order: keys of the studies, in the order of the rows.
        problems: problems of files that are not stored with a study.
        formats: formats that were asked for; a resumed run writes them too.
        decimal_mark: `CsvFormat.decimal_mark`.
    """

    key: str
    order: tuple[str, ...]
    problems: tuple[Problem, ...] = ()
    formats: tuple[str, ...] = ()
    decimal_mark: str | None = None


@dataclass(frozen=True)
class _Counts:
    graded: int


@dataclass(frozen=True)
class _RunRecord:
    """Validated part of run.json; the rest is kept as it is."""

    counts: _Counts
    earlier: tuple[dict[str, Any], ...] = ()


class DamagedFile(Exception):
    """Error of a file that no run wrote so. Its message is a predicate without the file name."""


def study_json(study: StoredStudy) -> str:
    """Return the study as JSON on one line, with control characters escaped.

    Raises:
        ValueError: a number is not finite.
    """
    return json.dumps(escape_controls_in(asdict(study)), allow_nan=False)


def read_study(path: Path) -> StoredStudy:
    """Read a file of `studies/`.

    Raises:
        DamagedFile: the file does not hold a valid study.
    """
    text = _text(path)
    version = _parsed(text).get("format")
    if not isinstance(version, int):
        raise _damaged("it names no version of its format")
    if version != FORMAT_VERSION:
        raise DamagedFile(f"is of version {version} of its format, and this program reads {FORMAT_VERSION}.")
    study: StoredStudy = _validated(_adapter(StoredStudy), text)
    reason = next(_contradictions(study), None)
    if reason is not None:
        raise _damaged(reason)
    return study


def read_fingerprint(path: Path) -> dict[str, Any]:
    """Read the result fingerprint of a folder, `made_with.json`.

    Raises:
        DamagedFile: the file does not hold one.
    """
    content: dict[str, Any] = _validated(_adapter(dict[str, str | bool | int | float | None]), _text(path))
    return content


def state_json(state: RunState) -> str:
    """Return the state as JSON, with control characters escaped."""
    return json.dumps(escape_controls_in(asdict(state)), allow_nan=False)


def read_state(path: Path) -> RunState:
    """Read the state of a run, `state.json`.

    Raises:
        DamagedFile: the file does not hold one.
    """
    state: RunState = _validated(_adapter(RunState), _text(path))
    if state.decimal_mark not in (None, *DECIMAL_MARKS.values()):
        raise _damaged("a decimal mark is neither point nor comma")
    return state


def read_run_records(path: Path) -> list[dict[str, Any]]:
    """Return the records in a run.json of the runs that graded something, oldest first.

    Raises:
        DamagedFile: the file does not hold such records.
    """
    text = _text(path)
    last = _parsed(text)
    run: _RunRecord = _validated(_adapter(_RunRecord), text)
    last.pop("earlier", None)
    return [*run.earlier, last] if run.counts.graded else list(run.earlier)


def _contradictions(study: StoredStudy) -> Iterator[str]:
    """Yield what is wrong in a study that matches the schema."""
    if study.result is None:
        if not study.problems:
            yield "a study has neither result nor problem"
        return
    if study.result.study_uid != study.study_uid:
        yield "a result is of another study"
    if tuple(level.level for level in study.result.levels) != LEVELS:
        yield "levels are missing or out of order"
    for level in study.result.levels:
        if level.grade is not None and level.grade not in _GRADES:
            yield "a grade is not 0 to 3"


def _damaged(why: str) -> DamagedFile:
    return DamagedFile(f"does not hold what a run writes there ({escape_controls(why)}).")


def _text(path: Path) -> str:
    try:
        # Reading a pipe or device may block, or never end.
        if not path.is_file():
            raise _damaged("it is no regular file")
        if path.stat().st_size > _MAX_BYTES:
            raise _damaged(f"more than {_MAX_BYTES >> 20} MiB")
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DamagedFile(f"cannot be read ({type(error).__name__}).") from error


def _parsed(text: str) -> dict[str, Any]:
    """Parse a JSON object whose numbers are finite and whose strings can be encoded as UTF-8."""
    try:
        content = json.loads(text, parse_float=_finite, parse_constant=_finite)
        # Surrogates, and integers of more digits than Python turns into text.
        json.dumps(content, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise _damaged("it is no JSON, is nested too deep, or has a number that is not finite") from error
    if not isinstance(content, dict):
        raise _damaged("it is no object")
    return content


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("A number is not finite.")
    return value


def _validated(adapter: TypeAdapter[Any], text: str) -> Any:
    from pydantic import ValidationError

    try:
        return adapter.validate_json(text)
    except ValidationError as error:
        first: Mapping[str, Any] = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise _damaged(f"{place}: {first['msg']}" if place else first["msg"]) from error


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    from pydantic import ConfigDict, TypeAdapter, with_config

    rules = ConfigDict(strict=True, allow_inf_nan=False)
    if isinstance(kind, type) and hasattr(kind, "__dataclass_fields__"):
        return TypeAdapter(with_config(rules)(kind))
    return TypeAdapter(kind, config=rules)
