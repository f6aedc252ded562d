"""Files of an output folder that a resumed run reads: a study's, `made_with.json` and `run.json`.

Anybody may have changed them meanwhile. So each is read through a declared schema, and is what a run writes
there, or is refused by one error that names the file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stenosis_trt.engine.records import LEVELS, Problem, StudyResult
from stenosis_trt.engine.support.safe_text import escape_controls, escape_controls_in

if TYPE_CHECKING:
    from pydantic import TypeAdapter

FORMAT_VERSION = 1
"""Version of `StoredStudy` as JSON. A change of it that is not an addition with a default gets a new one."""
_LARGEST_BYTES = 64 << 20
"""A study with a problem for each of 100,000 files takes 30 MB."""
_GRADES = range(4)


@dataclass(frozen=True)
class StoredStudy:
    """What a run knows of one study, as a file of `studies/` holds it.

    Attributes:
        format: FORMAT of who wrote it.
        study_uid: as in the header.
        path: folder of the study, or what `--no-paths` has in its place.
        images: hash of which images the study had.
        result: None where the study could not be graded.
        problems: of the study and of its files; of a study without a result at least one.
        run: which run graded it, by a random name.
        read_with: what decided which of its files could be read; see `regrading`.
        tries: how often it was graded from the same images, read in the same way.
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


@dataclass(frozen=True)
class _Counts:
    graded: int


@dataclass(frozen=True)
class _RunRecord:
    """What is read of run.json; the rest of it is kept as it is."""

    counts: _Counts
    earlier: tuple[dict[str, Any], ...] = ()


class DamagedFile(Exception):
    """A file does not hold what a run writes there. The message says why, without its subject, the file."""


def study_json(kept: StoredStudy) -> str:
    """The study as JSON, on one line. Characters that a terminal would obey are backslash escapes in it.

    Raises:
        ValueError: a number is not finite.
    """
    return json.dumps(escape_controls_in(asdict(kept)), allow_nan=False)


def read_study(path: Path) -> StoredStudy:
    """The study that a file holds.

    Raises:
        DamagedFile: it holds none.
    """
    text = _text(path)
    version = _parsed(text).get("format")
    if not isinstance(version, int):
        raise _damaged("it names no version of its format")
    if version != FORMAT_VERSION:
        raise DamagedFile(f"is of version {version} of its format, and this program reads {FORMAT_VERSION}.")
    kept: StoredStudy = _checked(_adapter(StoredStudy), text)
    reason = next(_contradictions(kept), None)
    if reason is not None:
        raise _damaged(reason)
    return kept


def read_fingerprint(path: Path) -> dict[str, Any]:
    """What results in this folder were made with, by name.

    Raises:
        DamagedFile: the file does not say so.
    """
    content: dict[str, Any] = _checked(_adapter(dict[str, str | bool | int | float | None]), _text(path))
    return content


def read_run_records(path: Path) -> list[dict[str, Any]]:
    """The records in a run.json, the oldest first, of runs that graded something.

    Raises:
        DamagedFile: the file holds no such records.
    """
    text = _text(path)
    last = _parsed(text)
    run: _RunRecord = _checked(_adapter(_RunRecord), text)
    last.pop("earlier", None)
    return [*run.earlier, last] if run.counts.graded else list(run.earlier)


def _contradictions(kept: StoredStudy) -> Iterator[str]:
    """What is wrong in a study of the right shape."""
    if kept.result is None:
        if not kept.problems:
            yield "a study has neither result nor problem"
        return
    if kept.result.study_uid != kept.study_uid:
        yield "a result is of another study"
    if tuple(level.level for level in kept.result.levels) != LEVELS:
        yield "levels are missing or out of order"
    for level in kept.result.levels:
        if level.grade is not None and level.grade not in _GRADES:
            yield "a grade is not 0 to 3"


def _damaged(why: str) -> DamagedFile:
    return DamagedFile(f"does not hold what a run writes there ({escape_controls(why)}).")


def _text(path: Path) -> str:
    try:
        # Something else than a file may never end, or never begin.
        if not path.is_file():
            raise _damaged("it is no regular file")
        if path.stat().st_size > _LARGEST_BYTES:
            raise _damaged(f"more than {_LARGEST_BYTES >> 20} MiB")
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise DamagedFile(f"cannot be read ({type(error).__name__}).") from error


def _parsed(text: str) -> dict[str, Any]:
    """An object of JSON, in which every number is finite and every text is one that UTF-8 can hold."""
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


def _checked(adapter: TypeAdapter[Any], text: str) -> Any:
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
