"""An output folder that a run is resumed in: results, failures and records that something damaged."""

from __future__ import annotations

import random
import shutil
from functools import cache
from pathlib import Path

import stand_in

from fuzz.harness import Target, main
from fuzz.mutation import mutated_bundle, mutated_json, packed, unpacked
from stenosis_trt.engine.errors import OutputError
from stenosis_trt.engine.records import FrameHeader, Problem, SeriesHeader, Stage, StudyHeader
from stenosis_trt.engine.reports.making import MadeFormat, MadeReports, write_reports
from stenosis_trt.engine.runs.output_folder import RUN_JSON
from stenosis_trt.engine.runs.outputs import ResultStore
from stenosis_trt.engine.runs.reports import formats_to_write

_KIND = {"pack": "a", "numpy": "2"}
_PROBLEM = Problem("/x", Stage.PIXELS, "Broken.", "Send again.", "1.2.3")


def _study(uid: str) -> StudyHeader:
    frames = tuple(FrameHeader(Path(f"/{k}.dcm"), 0, f"{uid}.{k}", None) for k in range(3))
    return StudyHeader(uid, "/study", (SeriesHeader(uid, f"{uid}.9", "MR", frames),))


@cache
def _left() -> dict[str, bytes]:
    """What a run leaves, by path."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "out"
        with ResultStore(out, _KIND, resume=False) as store:
            store.add(_study("1.2.3"), stand_in.result("1.2.3"), [_PROBLEM])
            store.add_failed(_study("1.2.4"), [_PROBLEM])
            store.write_tables(["1.2.3", "1.2.4"], [_PROBLEM])
            store.write_run({"counts": {"graded": 1}, "seconds": 1.0, "earlier": [{"counts": {"graded": 2}}]})
            place = store.reports_place("1.2.3")
            made = MadeReports(
                "0", {"text": MadeFormat(("report.txt",)), "sr": MadeFormat((), "No.", "None.")}
            )
            write_reports(place, {"report.txt": b"Text."}, made)
        return {
            str(path.relative_to(out)): path.read_bytes() for path in out.rglob("*.json") if path.is_file()
        }


def seeds() -> list[bytes]:
    return [packed(_left())]


def check(data: bytes, folder: Path) -> None:
    out = folder / "out"
    (out / "studies").mkdir(parents=True)
    files = unpacked(data) or {}
    for name in _left():
        if name in files:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            (out / name).write_bytes(files[name])
    study = _study("1.2.3")
    try:
        with ResultStore(out, _KIND, resume=True) as store:
            store.discard_outdated(study)
            store.is_done(study)
            earlier = store.earlier_runs()
            store.write_tables(["1.2.3", "1.2.4"], [_PROBLEM])
            store.write_run({"counts": {"graded": 0}, "earlier": earlier})
        with ResultStore.reopen(out) as store:
            state = store.state
            assert state is not None
            assert formats_to_write((), state.formats) == ("csv", "json")
            store.write_tables(state.order, state.problems, state.formats)
        assert (out / RUN_JSON).exists()
    finally:
        shutil.rmtree(out)


def mutate(rng: random.Random, data: bytes) -> bytes:
    return mutated_bundle(rng, data, mutated_json)


TARGET = Target("results", (OutputError,), seeds, mutate, check)

if __name__ == "__main__":
    main(TARGET)
