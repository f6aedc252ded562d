"""Signing of packs as they are written, and removal of outdated signatures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from shared_phantoms import phantoms
from signing_keys import Pair, write_pair
from time_limits import time_limit
from tiny_pack import write_tiny_pack
from typed_models import pack_with_variants

from stenosis_trt.engine.errors import PackError
from stenosis_trt.engine.packs.files import MANIFEST
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.plans.signing import sign_pack
from stenosis_trt.engine.plans.store import PLANS_FOLDER
from stenosis_trt.export.packs.writer import ModelContent, PackContent, write_pack
from stenosis_trt.export.precision.writing import QuantisationResult, write_variants

_SCRIPT = "from stenosis_trt.engine.cli.app import main; main()"


def _call(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", _SCRIPT, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=time_limit(300))


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return write_pair(tmp_path)


def _content(pack: Pack) -> PackContent:
    models = {
        name: ModelContent(pack.read_model(name), model.precision, model.input, model.output)
        for name, model in pack.models.items()
    }
    return PackContent("another", "2", "Apache-2.0", "tests only", {}, models)


def test_a_pack_is_signed_as_it_is_written(tmp_path: Path, pair: Pair) -> None:
    content = _content(write_tiny_pack(tmp_path / "tiny", landmarks=True))
    write_pack(tmp_path / "pack", content, pair.key)
    assert Pack.load(tmp_path / "pack", pair.trust).signed_by == pair.public_key.fingerprint


def test_what_a_killed_run_left_stops_no_other(tmp_path: Path) -> None:
    """In a container the process has the same number at each start."""
    content = _content(write_tiny_pack(tmp_path / "tiny", landmarks=True))
    left = tmp_path / f".pack.{os.getpid()}.part"
    left.mkdir()
    pack = write_pack(tmp_path / "pack", content)
    (tmp_path / f".new.{os.getpid()}.part").mkdir()
    assert write_variants(tmp_path / "new", QuantisationResult(pack, {}, {}), {}, {}).name == "another"


def test_a_pack_written_over_a_signed_one_has_neither_its_signature_nor_its_plans(
    tmp_path: Path, pair: Pair
) -> None:
    tiny = write_tiny_pack(tmp_path / "tiny", landmarks=True)
    sign_pack(tiny, pair.key)
    (tiny.path / PLANS_FOLDER).mkdir()
    write_pack(tiny.path, _content(tiny))
    assert sorted(path.name for path in tiny.path.iterdir()) == [
        "cord.onnx",
        "grader.onnx",
        "levels.onnx",
        "pack.json",
    ]


def test_a_pack_with_other_variants_is_signed_anew_or_not_at_all(tmp_path: Path, pair: Pair) -> None:
    pack = pack_with_variants(tmp_path / "pack")
    sign_pack(pack, pair.key)
    unsigned = write_variants(tmp_path / "unsigned", QuantisationResult(pack, {}, {}), {}, {})
    with pytest.raises(PackError, match="is not signed"):
        Pack.load(unsigned.path, pair.trust)
    signed = write_variants(tmp_path / "signed", QuantisationResult(pack, {}, {}), {}, {}, pair.key)
    assert Pack.load(signed.path, pair.trust).signed_by == pair.public_key.fingerprint


def test_a_manifest_that_was_changed_after_it_was_loaded_goes_into_no_other_pack(
    tmp_path: Path, pair: Pair
) -> None:
    pack = pack_with_variants(tmp_path / "pack")
    content = json.loads((pack.path / MANIFEST).read_text(encoding="utf-8"))
    content["licence"] = "another"
    (pack.path / MANIFEST).write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(PackError, match="was changed while it was in use"):
        write_variants(tmp_path / "new", QuantisationResult(pack, {}, {}), {}, {}, pair.key)
    assert not (tmp_path / "new").exists()


def test_export_signs_what_it_writes(tmp_path: Path, pair: Pair) -> None:
    tiny = write_tiny_pack(tmp_path / "tiny", landmarks=True)
    files = [item for name in tiny.models for item in (f"--{name}", tiny.path / f"{name}.onnx")]
    settings = (
        'grader.output.names=["0", "1", "2", "3"]',
        "levels.output.activation=sigmoid",
        "cord.output.activation=sigmoid",
        "grader.input.mean=[0,0,0]",
        "grader.input.std=[1,1,1]",
    )
    arguments = [*files, "--spec", "reference", *(item for value in settings for item in ("--set", value))]
    answer = _call(
        "export",
        *arguments,
        "--check-studies",
        phantoms(1, 4711),
        "--out",
        tmp_path / "pack",
        "--signing-key",
        pair.private,
    )
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.splitlines()[-1] == f"Signed by {pair.public_key.fingerprint}"
    assert Pack.load(tmp_path / "pack", pair.trust).signed_by == pair.public_key.fingerprint


@pytest.mark.parametrize("command", ["export", "quantise"])
def test_a_key_that_cannot_be_used_is_told_before_any_work_is_done(tmp_path: Path, command: str) -> None:
    tiny, absent = write_tiny_pack(tmp_path / "tiny", landmarks=True), tmp_path / "absent.pem"
    files = [item for name in tiny.models for item in (f"--{name}", tiny.path / f"{name}.onnx")]
    arguments = [tiny.path] if command == "quantise" else [*files, "--spec", "reference"]
    answer = _call(command, *arguments, "--out", tmp_path / "new", "--signing-key", absent)
    assert answer.returncode == 2
    (line,) = answer.stderr.splitlines()
    assert f"The key {absent} cannot be read" in line
    assert answer.stdout == ""
    assert not (tmp_path / "new").exists()
