"""The script that a user would write: it runs by itself, and is a fair peer."""

from __future__ import annotations

import csv
import io
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from shared_phantoms import small_phantoms

from stenosis_trt.bench.peers import user_script
from stenosis_trt.bench.peers.model_files import write_models
from stenosis_trt.bench.peers.peer import PeerAbsent
from stenosis_trt.bench.peers.whole_path import agreement, measure_whole
from stenosis_trt.bench.systems.context import BenchContext
from stenosis_trt.bench.systems.product import Product
from stenosis_trt.engine.packs.pack import Pack, reference_pack
from stenosis_trt.engine.records import LEVELS, StudyResult


@pytest.fixture(scope="module")
def study() -> Path:
    return small_phantoms(2, 71, 4) / "study_0001"


@pytest.fixture(scope="module")
def models() -> user_script.Models:
    return user_script.Models(user_script.PACK)


def test_the_script_agrees_with_the_product_and_measures_every_slice_that_it_does(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: Counter[str] = Counter()
    run = user_script.Models.run

    def counted(self: user_script.Models, name: str, *rest: Any) -> Any:
        calls[name] += 1
        return run(self, name, *rest)

    monkeypatch.setattr(user_script.Models, "run", counted)
    write_models(Pack.load(reference_pack()), tmp_path / "pack")
    monkeypatch.setattr(sys, "argv", ["user_script", str(study), "--pack", str(tmp_path / "pack")])
    user_script.main()
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["level"] for row in rows] == list(LEVELS)
    for row in rows:
        assert sum(float(row[f"p{grade}"]) for grade in range(4)) == pytest.approx(1.0, abs=1e-3)

    context = BenchContext(
        Pack.load(reference_pack()), "cpu", "fp32", None, (study,), tmp_path, 60.0, lambda _: None
    )
    with Product(context) as product:
        loaded = product.load(study)
        result, inputs = product.device(loaded), product.inputs(loaded)
    numbers = [
        {**row, "kang_grade": int(row["kang_grade"]), "compression_ratio": float(row["compression_ratio"])}
        for row in rows
    ]
    found = agreement([(result, numbers)], sum(calls.values()))
    assert found.levels >= 5
    assert found.same_grade >= 0.8
    assert found.ratio_difference < 0.15
    assert all(calls[name] >= len(batch) for name, batch in inputs.batches.items())


def test_the_script_uses_nothing_of_the_engine() -> None:
    source = Path(user_script.__file__).read_text(encoding="utf-8")
    assert "stenosis_trt.engine" not in source
    assert "stenosis_trt.kernels" not in source
    assert source.count("import stenosis_trt") + source.count("from stenosis_trt") == 0


class _Product:
    """Grades at once, and remembers what."""

    def __init__(self) -> None:
        self.graded: list[Path] = []

    def whole(self, folder: Path) -> StudyResult:
        self.graded.append(folder)
        return StudyResult("1", "", "1.1", "1.2", (), ())


def test_pairs_of_the_whole_path_are_of_the_same_study_and_warm(monkeypatch: pytest.MonkeyPatch) -> None:
    product, scripted = _Product(), []

    def grade_folder(folder: Path, models: object) -> list[dict[str, Any]]:
        scripted.append(folder)
        return []

    monkeypatch.setattr(user_script, "grade_folder", grade_folder)
    monkeypatch.setattr(user_script, "Models", lambda pack: SimpleNamespace(images=98))
    studies = (Path("a"), Path("b"))
    times, same = measure_whole(cast(Product, product), studies, Path("pack"), 0.0)
    assert product.graded == scripted == [*studies, Path("a"), Path("b"), Path("a")]
    assert len(times.ours) == 3
    assert same.levels == 0
    assert same.script_images == 49


def test_a_script_that_fails_is_absent_with_its_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def grade_folder(folder: Path, models: object) -> list[dict[str, Any]]:
        raise ValueError("max() arg is an empty sequence")

    monkeypatch.setattr(user_script, "grade_folder", grade_folder)
    monkeypatch.setattr(user_script, "Models", lambda pack: SimpleNamespace(images=98))
    with pytest.raises(PeerAbsent, match="fails on a study: max"):
        measure_whole(cast(Product, _Product()), (Path("a"),), Path("pack"), 0.0)


def test_neighbouring_slices_are_the_channels_where_a_pack_says_so(
    study: Path, models: user_script.Models, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[np.ndarray] = []

    class Session:
        def get_inputs(self) -> list[Any]:
            return [type("Input", (), {"name": "image"})]

        def run(self, _: None, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
            seen.append(inputs["image"])
            return [np.zeros((1, 5), np.float32)]

    sagittal, _ = user_script.read_stacks(study)
    spec = models.spec["grader"]
    around = {**spec, "input": {**spec["input"], "channel_source": "neighbours"}}
    monkeypatch.setattr(models, "sessions", {"grader": Session()})
    middle = sagittal[3].to_patient(100, 100)
    models.run("grader", sagittal, 3, middle)
    monkeypatch.setattr(models, "spec", {"grader": around})
    models.run("grader", sagittal, 3, middle)
    same, neighbours = seen
    assert same.shape == neighbours.shape == (1, 3, 128, 128)
    assert (same[0, 0] == same[0, 2]).all()
    assert not (neighbours[0, 0] == neighbours[0, 2]).all()
