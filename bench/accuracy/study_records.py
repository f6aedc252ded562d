"""Records of graded studies in a folder: a study that has one is not made again.

A folder holds `setting.json`, which says what made the records, and one JSON file a study below `studies`.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from stenosis_trt.bench.accuracy.graded_studies import GradedLevel, GradedStudy
from stenosis_trt.engine.api import Grader
from stenosis_trt.engine.errors import OutputError
from stenosis_trt.engine.packs.pack import open_pack
from stenosis_trt.engine.support.atomic_files import write_text_atomically
from stenosis_trt.engine.support.hardware import usable_cores
from stenosis_trt.engine.support.messages import print_message
from stenosis_trt.engine.support.workers import worker_pool

_SOURCES = (
    "kernels",
    "engine/backends",
    "engine/dicom",
    "engine/grading",
    "engine/packs",
    "engine/selection",
    "bench/phantom",
    "bench/semisynthetic",
    "bench/accuracy/graded_studies.py",
)
"""Folders and files whose sources decide what a study is and how it is graded."""
_SETTING = "setting.json"
_SECONDS_BETWEEN_LINES = 30.0


@dataclass(frozen=True)
class GraderSetting:
    """How studies are graded, on a CPU.

    Attributes:
        pack: folder or zip of a pack; None for the reference pack.
        precision: as for `Grader`.
        threads: of each process.
    """

    pack: Path | None = None
    precision: str = "fp32"
    threads: int | None = None


class Request(Protocol):
    """A study to be made and graded."""

    @property
    def key(self) -> str:
        """Path of its record below the folder of records, without a suffix."""
        ...

    def run(self, grader: Grader) -> GradedStudy: ...


def grade_requests(
    requests: Sequence[Request], out: Path, setting: GraderSetting, workers: int | None = None
) -> list[GradedStudy]:
    """Grade every study that has no record yet, and return the records of all.

    Progress and the time left are printed; the first line says how many studies are to be made.

    Args:
        requests: the studies.
        out: folder of the records, created if missing. Studies of an earlier call are kept.
        setting: pack and precision.
        workers: processes; None for one a core.

    Raises:
        OutputError: the folder holds records of another pack, precision or program.
        OSError: a volume is missing, or the folder cannot be written.
        StenosisError: nothing can be graded.
    """
    check_setting(out, setting)
    count = workers or usable_cores()
    missing = [item for item in dict.fromkeys(requests) if not _path(out, item).exists()]
    total = len(set(requests))
    by = f", by {min(count, len(missing))} processes" if missing else ""
    print_message(f"{total} studies, {len(missing)} of them to be made{by}.")
    for done in _run_all(missing, out, setting, count):
        print_message(done)
    return [read_record(_path(out, item)) for item in requests]


def _run_all(missing: Sequence[Request], out: Path, setting: GraderSetting, count: int) -> Iterator[str]:
    """Make the missing records; yield lines about progress."""
    start = last = time.monotonic()
    for number, _ in enumerate(_records(missing, out, setting, count), start=1):
        now = time.monotonic()
        # The first estimate, once every process has made a study.
        if number in (min(count, len(missing)), len(missing)) or now - last >= _SECONDS_BETWEEN_LINES:
            last = now
            left = timedelta(seconds=round((now - start) / number * (len(missing) - number)))
            yield f"{number} of {len(missing)} studies, about {left} left"


def _records(missing: Sequence[Request], out: Path, setting: GraderSetting, count: int) -> Iterator[None]:
    if count == 1 or len(missing) <= 1:
        for item in missing:
            _make(item, out, setting)
            yield
        return
    shared = GraderSetting(setting.pack, setting.precision, max(1, usable_cores() // count))
    with worker_pool(count) as pool:
        futures = [pool.submit(_make, item, out, shared) for item in missing]
        for future in as_completed(futures):
            future.result()
            yield


def _make(request: Request, out: Path, setting: GraderSetting) -> None:
    record = request.run(_grader(setting))
    path = _path(out, request)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomically(path, json.dumps(asdict(record)) + "\n")


@lru_cache(maxsize=1)
def _grader(setting: GraderSetting) -> Grader:
    """The grader of this process, open until it ends."""
    return Grader(setting.pack or "reference", "cpu", setting.precision, threads=setting.threads)


def _path(out: Path, request: Request) -> Path:
    return out / "studies" / f"{request.key}.json"


def read_record(path: Path) -> GradedStudy:
    """Read the record of a study.

    Raises:
        OSError: there is none.
    """
    found = json.loads(path.read_text(encoding="utf-8"))
    levels = tuple(
        GradedLevel(
            **{
                **item,
                "true_point": tuple(item["true_point"]),
                "point": None if item["point"] is None else tuple(item["point"]),
                "warnings": tuple(item["warnings"]),
            }
        )
        for item in found.pop("levels")
    )
    landmarks = {name: tuple(point) for name, point in found.pop("landmarks").items()}
    return GradedStudy(
        **{**found, "levels": levels, "landmarks": landmarks, "seconds": tuple(found["seconds"])}
    )


def check_setting(out: Path, setting: GraderSetting) -> Mapping[str, Any]:
    """Write what makes the records of a folder, or compare with what is written there.

    Returns:
        The name, version and SHA-256 of the pack, the precision, and a hash of the program's sources.

    Raises:
        OutputError: the records of the folder were made by something else.
        PackError: the pack cannot be used.
    """
    pack = open_pack(setting.pack)
    now = {
        "pack": pack.name,
        "pack_version": pack.version,
        "pack_sha256": pack.sha256,
        "precision": setting.precision,
        "program_sha256": program_sha256(),
    }
    out.mkdir(parents=True, exist_ok=True)
    path = out / _SETTING
    if not path.exists():
        write_text_atomically(path, json.dumps(now, indent=1) + "\n")
    before = json.loads(path.read_text(encoding="utf-8"))
    differing = [name for name, value in now.items() if before.get(name) != value]
    if differing:
        raise OutputError(
            f"{out} holds studies of another {differing[0].removesuffix('_sha256').replace('_', ' ')}.",
            "Give another folder, or remove this one.",
        )
    return now


def program_sha256() -> str:
    """Hash of the sources that decide what a study is and how it is graded."""
    root, digest = Path(__file__).resolve().parents[2], hashlib.sha256()
    for folder in _SOURCES:
        found = root / folder
        for path in [found] if found.is_file() else sorted(found.rglob("*.py")):
            digest.update(os.fsencode(path.relative_to(root)))
            digest.update(path.read_bytes())
    return digest.hexdigest()
