"""`run_benchmark`: sections one after the other, and a record after each of them."""

from __future__ import annotations

import errno
import importlib.util
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench_records import figure
from bench_sections import quiet_section, replace_sections
from shared_phantoms import small_phantoms
from tiny_pack import write_tiny_pack

from stenosis_trt.bench import benchmark, benchmark_options
from stenosis_trt.bench.benchmark import RecordNotSaved, run_benchmark
from stenosis_trt.bench.benchmark_options import QUICK_PHANTOMS, SECONDS, SECTION_MODULES, BenchOptions
from stenosis_trt.bench.record.files import read_record
from stenosis_trt.bench.record.record import Section
from stenosis_trt.bench.systems.context import BenchContext
from stenosis_trt.bench.systems.studies import BenchStudies, studies_in
from stenosis_trt.engine.errors import CannotGrade, InputError, NotWritten, PackError
from stenosis_trt.engine.records import Stage


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pack") / "tiny"
    write_tiny_pack(path)
    return path


@pytest.fixture
def options(pack: Path, tmp_path: Path) -> BenchOptions:
    return BenchOptions(
        tmp_path / "out",
        pack,
        "cpu",
        studies=small_phantoms(1, 71, 8),
        command="stenosis-trt bench all --out out",
        say=lambda _: None,
    )


def test_a_record_and_its_page_are_written_with_what_repeats_the_run(
    options: BenchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[BenchContext] = []

    def measure(context: BenchContext) -> Section:
        seen.append(context)
        return quiet_section("load")(context)

    replace_sections(monkeypatch, load=measure)
    record, path = run_benchmark(replace(options, threads=1))
    assert sorted(item.name for item in options.out.iterdir()) == [path.with_suffix(".html").name, path.name]
    assert read_record(path) == record
    assert path.name.startswith(record.started[:10])
    assert [section.name for section in record.sections] == list(SECTION_MODULES)
    assert record.failures == ()
    assert record.product["pack"] == "tiny 1"
    assert (record.product["precision"], record.product["threads"]) == ("fp32", 1)
    assert set(record.product["model_runs_by"]) == {"levels", "grader", "cord"}
    assert len(record.product["sha256"]) == 64
    assert record.studies["studies"] == 1
    assert record.settings["seconds"] == SECONDS
    assert set(record.busy["during"]) == set(SECTION_MODULES)
    assert (seen[0].threads, seen[0].seconds, len(seen[0].studies)) == (1, SECONDS["load"], 1)


def test_the_sections_take_less_than_twenty_minutes() -> None:
    assert sum(SECONDS.values()) <= 20 * 60
    assert SECONDS.keys() == SECTION_MODULES.keys()


def test_a_second_run_of_a_day_replaces_nothing(
    options: BenchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_sections(monkeypatch)
    quick = replace(options, sections=("energy",), quick=True)
    paths = [run_benchmark(quick)[1] for _ in range(2)]
    assert paths[0] != paths[1]
    assert len(list(options.out.iterdir())) == 4


def test_a_section_that_fails_says_why_and_the_others_run(
    options: BenchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(context: BenchContext) -> Section:
        raise CannotGrade(Stage.CHOOSE, "The study has no axial series.", "Give another.")

    def break_down(context: BenchContext) -> Section:
        raise ZeroDivisionError

    def lack(context: BenchContext) -> Section:
        raise ModuleNotFoundError(name="nothing")

    def wrong(context: BenchContext) -> Section:
        return Section("roofline", "Roofline", (figure("load.a", 1.0),))

    replace_sections(monkeypatch, load=refuse, peers=break_down, energy=lack, roofline=wrong)
    record, path = run_benchmark(options)
    assert [section.name for section in record.sections] == ["scaling"]
    assert {failure.name: failure.reason for failure in record.failures} == {
        "load": "The study has no axial series. Give another.",
        "peers": "ZeroDivisionError",
        "energy": "The package nothing is not installed.",
        "roofline": "ValueError: figure load.a is not one of section roofline",
    }
    assert read_record(path).failures == record.failures


def test_an_interrupted_run_leaves_what_it_measured(
    options: BenchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(context: BenchContext) -> Section:
        raise KeyboardInterrupt

    replace_sections(monkeypatch, energy=interrupt)
    with pytest.raises(KeyboardInterrupt):
        run_benchmark(options)
    (path,) = options.out.glob("*.json")
    record = read_record(path)
    assert [section.name for section in record.sections] == ["load", "peers"]
    assert [failure.reason for failure in record.failures] == ["The run was interrupted."]
    assert path.with_suffix(".html").is_file()


def test_a_disk_that_fills_says_what_is_lost_and_what_is_held(
    options: BenchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fill(context: BenchContext) -> Section:
        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", full)
        return quiet_section("energy")(context)

    replace_sections(monkeypatch, energy=fill)
    with pytest.raises(RecordNotSaved) as caught:
        run_benchmark(options)
    (path,) = options.out.glob("*.json")
    assert caught.value.reason == (
        f"{path} cannot be written (No space left on device): what was measured of energy is lost; "
        "the file holds load and peers."
    )
    assert [section.name for section in caught.value.record.sections] == ["load", "peers", "energy"]
    assert [section.name for section in read_record(path).sections] == ["load", "peers"]


def test_a_full_disk_is_found_before_anything_is_measured(
    options: BenchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    replace_sections(monkeypatch, load=lambda context: pytest.fail("it was measured"))
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NotWritten, match=r"cannot be written \(No space left on device"):
        run_benchmark(options)
    assert list(options.out.iterdir()) == []


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"sections": ("speed",)}, InputError, "There is no section 'speed'"),
        ({"precision": "fp16"}, PackError, "has no fp16 models that passed the gate"),
        ({"studies": Path("nowhere")}, InputError, "There is no folder nowhere"),
        ({"pack": Path("nowhere")}, PackError, "nowhere"),
        ({"required_peers": ("abacus",)}, InputError, "There is no peer 'abacus'"),
        ({"required_peers": ("trtexec",)}, InputError, "Peer trtexec is missing: It is compared on a GPU"),
    ],
)
def test_what_cannot_be_measured_is_said_before_anything_is(
    options: BenchOptions,
    monkeypatch: pytest.MonkeyPatch,
    change: dict[str, Any],
    kind: type[Exception],
    said: str,
) -> None:
    replace_sections(monkeypatch, load=lambda context: pytest.fail("it was measured"))
    with pytest.raises(kind, match=said):
        run_benchmark(replace(options, **change))
    assert list(options.out.glob("*.json")) == []


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("mlperf_loadgen", "Section load needs the package mlcommons-loadgen, which is not installed."),
        ("scipy", "Section peers needs the package scipy, which is not installed."),
        ("jinja2", "The page of the record needs the package jinja2, which is not installed."),
    ],
)
def test_a_missing_package_is_named_before_anything_is_measured(
    options: BenchOptions, monkeypatch: pytest.MonkeyPatch, module: str, said: str
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        benchmark_options.importlib.util, "find_spec", lambda name: None if name == module else find(name)
    )
    with pytest.raises(InputError) as caught:
        run_benchmark(options)
    assert caught.value.reason == said
    assert "pip install" in caught.value.advice


def test_phantoms_are_made_where_no_studies_are_given(
    options: BenchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[Path, int]] = []

    def make(work: Path, count: int = 12) -> BenchStudies:
        assert work.is_dir()
        made.append((work, count))
        return BenchStudies(studies_in(small_phantoms(1, 71, 8)).folders, "phantoms of seed 7", 7)

    replace_sections(monkeypatch)
    monkeypatch.setattr(benchmark, "make_phantoms", make)
    for studies, quick in ((5, False), (None, False), (None, True)):
        record, _ = run_benchmark(replace(options, studies=studies, sections=("energy",), quick=quick))
        assert record.studies["seed"] == 7
        assert record.studies["files"] > 5
    assert [count for _, count in made] == [5, 12, QUICK_PHANTOMS]
    assert not any(work.exists() for work, _ in made)


def test_every_section_that_there_is_has_a_measure_function() -> None:
    for name, module in SECTION_MODULES.items():
        if importlib.util.find_spec(module) is not None:
            assert callable(importlib.import_module(module).measure), name
    assert benchmark.SECTION_MODULES is SECTION_MODULES
