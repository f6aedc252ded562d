"""The table of a CPU: where it is kept, when it holds, and what of it cannot be used."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
from cpu_tables import table
from signing_keys import write_pair
from tiny_pack import write_tiny_pack

from stenosis_trt.engine.backends.cpu import table as cpu_table
from stenosis_trt.engine.backends.cpu.table import find_table, this_machine, write_table
from stenosis_trt.engine.packs.pack import Pack, open_pack

HERE = this_machine()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(cpu_table, "cache_folder", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    return write_tiny_pack(tmp_path / "pack")


def test_a_table_lies_in_its_pack_and_is_read_as_it_was_written(pack: Pack) -> None:
    written = table(pack)
    path = write_table(pack, written)
    assert path.parent == pack.path / "cpu"
    found = find_table(pack, HERE)
    assert (found.table, found.path, found.reason) == (written, path, "")
    assert Pack.load(pack.path).sha256 == pack.sha256


def test_a_pack_that_is_not_a_folder_of_its_own_has_its_table_in_the_cache(
    pack: Pack, tmp_path: Path, cache: Path
) -> None:
    place = tmp_path / "pack.zip"
    with zipfile.ZipFile(place, "w") as archive:
        for file in pack.path.iterdir():
            archive.write(file, file.name)
    for given in (Pack.load(place), open_pack()):
        path = write_table(given, table(given))
        assert path.is_relative_to(cache / "cpu" / given.sha256)
        assert find_table(given, HERE).table is not None
    assert not (open_pack().path / "cpu").exists()


def test_without_a_table_nothing_is_said(pack: Pack) -> None:
    assert find_table(pack, HERE) == cpu_table.FoundTable()


@pytest.mark.parametrize(
    ("package", "words"),
    [("openvino", "made with openvino 1.0, and here is"), ("onnxruntime", "made with onnxruntime 1.0")],
)
def test_a_table_of_other_versions_does_not_hold(pack: Pack, package: str, words: str) -> None:
    older = replace(HERE, versions={**HERE.versions, package: "1.0"})
    path = write_table(pack, table(pack, machine=older))
    found = find_table(pack, HERE)
    assert found.table is None
    assert found.path == path
    assert words in found.reason


def test_a_table_of_another_pack_or_processor_does_not_hold(pack: Pack) -> None:
    made = table(pack)
    assert made.stale_reason(replace(pack, sha256="0" * 64), HERE) == "was made for another pack"
    other = replace(HERE, processor="Another CPU", threads=64)
    assert made.stale_reason(pack, other).startswith(f"was made on {HERE.processor} with {HERE.threads}")


def test_each_number_of_threads_has_a_table_of_its_own(pack: Pack) -> None:
    write_table(pack, table(pack))
    assert find_table(pack, this_machine(HERE.threads + 1)) == cpu_table.FoundTable()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"schema_version": 9}, "has layout 9"),
        ({"choices": {}}, "its choices are not those"),
        ({"unknown": 1}, "unknown"),
        ({"machine": 3}, "machine"),
    ],
)
def test_a_table_that_is_not_what_it_should_be_is_not_used(
    pack: Pack, change: dict[str, object], words: str
) -> None:
    path = write_table(pack, table(pack))
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    found = find_table(pack, HERE)
    assert found.table is None
    assert words in found.reason


def test_a_folder_in_the_place_of_a_table_is_not_used(pack: Pack) -> None:
    path = write_table(pack, table(pack))
    path.unlink()
    path.mkdir()
    assert "cannot be read" in find_table(pack, HERE).reason


def test_where_packs_have_to_be_signed_so_have_their_tables(pack: Pack, tmp_path: Path) -> None:
    pair = write_pair(tmp_path)
    trusting = replace(pack, trust=pair.trust)
    path = write_table(pack, table(pack))
    assert find_table(trusting, HERE).reason == "is not signed"
    write_table(pack, table(pack), pair.key)
    assert find_table(trusting, HERE).table is not None
    path.write_bytes(path.read_bytes().replace(b'"passed": true', b'"passed": false', 1) + b" ")
    assert "it or its signature was changed" in find_table(trusting, HERE).reason
