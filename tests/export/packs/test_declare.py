"""Ranges that bench.robustness found become part of the model card."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_pack import write_tiny_pack

from stenosis_trt.bench.accuracy.study_records import GraderSetting, check_setting
from stenosis_trt.bench.robustness.declared import DeclaredRange
from stenosis_trt.bench.robustness.tables import json_text
from stenosis_trt.engine.errors import PackError
from stenosis_trt.engine.packs.files import MANIFEST
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.packs.signature import signature_path
from stenosis_trt.export.packs.declare import declare_ranges


@pytest.fixture
def pack(tmp_path: Path) -> Pack:
    return write_tiny_pack(tmp_path / "pack")


def _robustness(pack: Pack, folder: Path) -> Path:
    yaw = DeclaredRange("yaw", "°", 0.0, 15.0, 0.0, 20.0, 0.02, 1.0, ((20.0, 0.1),), False)
    path = folder / "robustness.json"
    setting = check_setting(folder / "studies", GraderSetting(pack.path, "fp32"))
    path.write_text(json_text([], [yaw], setting), encoding="utf-8")
    return path


def test_the_card_gets_the_ranges_and_the_models_stay(pack: Pack, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "stenosis_trt.export.packs.declare", pack.path, _robustness(pack, tmp_path)],
        check=True,
        capture_output=True,
        text=True,
    )
    made = Pack.load(pack.path)
    assert made.sha256 in done.stdout
    assert made.card["declared_ranges"] == {"yaw": {"unit": "°", "low": 0.0, "high": 15.0}}
    assert {name: model.sha256 for name, model in made.models.items()} == {
        name: model.sha256 for name, model in pack.models.items()
    }


def test_ranges_of_another_pack_are_refused(pack: Pack, tmp_path: Path) -> None:
    other = write_tiny_pack(tmp_path / "other", other=True)
    before = (pack.path / MANIFEST).read_bytes()
    with pytest.raises(PackError, match="made with another pack"):
        declare_ranges(pack.path, _robustness(other, tmp_path))
    assert (pack.path / MANIFEST).read_bytes() == before


def test_a_signed_pack_is_refused(pack: Pack, tmp_path: Path) -> None:
    signature_path(pack.path / MANIFEST).write_bytes(b"")
    with pytest.raises(PackError, match="is signed"):
        declare_ranges(pack.path, _robustness(pack, tmp_path))


def test_another_file_is_told_apart(pack: Pack, tmp_path: Path) -> None:
    path = tmp_path / "other.json"
    path.write_text("[]")
    with pytest.raises(ValueError, match="not written by bench"):
        declare_ranges(pack.path, path)
