"""The product as system under test: three cuts of the same grading."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from shared_phantoms import phantoms, small_phantoms
from tiny_pack import write_tiny_pack

from stenosis_trt.bench.phantom import PhantomOptions
from stenosis_trt.bench.systems import studies as studies_module
from stenosis_trt.bench.systems.context import BenchContext
from stenosis_trt.bench.systems.product import Product
from stenosis_trt.bench.systems.studies import make_phantoms, studies_in
from stenosis_trt.engine.backends.base import Pending
from stenosis_trt.engine.backends.stepwise import Inference
from stenosis_trt.engine.errors import CannotGrade, InputError, NotWritten
from stenosis_trt.engine.packs.pack import Pack, reference_pack
from stenosis_trt.engine.records import StudyResult


@pytest.fixture(scope="module")
def studies() -> tuple[Path, ...]:
    return studies_in(small_phantoms(2, 71, 4)).folders


@pytest.fixture(scope="module")
def context(studies: tuple[Path, ...], tmp_path_factory: pytest.TempPathFactory) -> BenchContext:
    pack = Pack.load(reference_pack())
    return BenchContext(
        pack, "cpu", "fp32", None, studies, tmp_path_factory.mktemp("work"), 60.0, lambda _: None
    )


@pytest.fixture(scope="module")
def product(context: BenchContext) -> Iterator[Product]:
    with Product(context) as opened:
        yield opened


def _answers(result: StudyResult) -> StudyResult:
    return replace(result, seconds={})


def test_the_product_says_what_runs_each_model(product: Product) -> None:
    assert (product.backend, product.precision) == ("onnxruntime", "fp32")
    assert product.model_runs_by == dict.fromkeys(("levels", "grader", "cord"), "ONNX Runtime fp32")


def test_all_cuts_grade_the_same_study_alike(product: Product, studies: tuple[Path, ...]) -> None:
    direct = _answers(product.grader(studies[0]))
    assert _answers(product.whole(studies[0])) == direct
    assert _answers(product.device(product.load(studies[0]))) == direct


def test_the_inputs_are_those_that_the_pipeline_runs(product: Product, studies: tuple[Path, ...]) -> None:
    study = product.load(studies[0])
    result = product.device(study)
    inputs = product.inputs(study)
    assert {name: batch.dtype for name, batch in inputs.batches.items()} == dict.fromkeys(
        ("levels", "grader", "cord"), np.dtype(np.float32)
    )
    assert len(inputs.batches["grader"]) == sum(level.point is not None for level in result.levels)
    assert len(inputs.batches["cord"]) >= len(result.cord_slices) > 0
    assert inputs.images == sum(len(batch) for batch in inputs.batches.values())
    # The network's answer for them is what the result holds.
    probabilities = product.grader.opened_backend.infer("grader", inputs.batches["grader"])  # type: ignore[attr-defined]
    graded = [level for level in result.levels if level.point is not None]
    for row, level in zip(probabilities, graded, strict=True):
        expected = level.probabilities or ()
        assert np.allclose(row[:4] / row[:4].sum(), expected, atol=1e-5)


def test_the_cut_of_the_models_runs_each_network_on_its_inputs(
    product: Product, studies: tuple[Path, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    inputs = product.inputs(product.load(studies[0]))
    backend = product.grader.opened_backend
    calls: list[str] = []
    images: dict[str, int] = {}
    inference = backend.inference  # type: ignore[attr-defined]

    def counting(model: str, count: int) -> Inference:
        calls.append(model)
        found = inference(model, count)

        def submit(batch: np.ndarray) -> Pending[np.ndarray]:
            images[model] = images.get(model, 0) + len(batch)
            return found.submit(batch)

        return replace(found, submit=submit)

    monkeypatch.setattr(backend, "inference", counting)
    product.models(inputs)
    assert calls == ["levels", "grader", "cord"]
    assert images == {name: len(batch) for name, batch in inputs.batches.items()}


def test_recording_the_inputs_leaves_the_backend_as_it_was(
    product: Product, studies: tuple[Path, ...], tmp_path: Path
) -> None:
    backend = product.grader.opened_backend
    product.inputs(product.load(studies[1]))
    assert "inference" not in vars(backend)


def test_the_whole_cut_makes_a_structured_report(product: Product, studies: tuple[Path, ...]) -> None:
    files = product.report(*product.grader.grade_with_header(studies[0]))
    assert set(files) == {"sr_axial.dcm", "sr_sagittal.dcm"}
    assert all(content[128:132] == b"DICM" for content in files.values())


def test_a_study_that_cannot_be_graded_raises_its_reason(
    context: BenchContext, studies: tuple[Path, ...], tmp_path: Path
) -> None:
    tiny = write_tiny_pack(tmp_path / "tiny")
    with Product(replace(context, pack=tiny)) as product:
        with pytest.raises(CannotGrade, match="No cervical spine"):
            product.whole(studies[0])
        with pytest.raises(InputError, match="holds 2 studies"):
            product.load(studies[0].parent)


def test_studies_of_the_user_are_the_folders_with_files(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "image.dcm").write_bytes(b"1234")
    (tmp_path / "a" / "series").mkdir(parents=True)
    (tmp_path / "a" / "series" / "image.dcm").write_bytes(b"12")
    (tmp_path / "empty").mkdir()
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "image.dcm").write_bytes(b"1")
    (tmp_path / "truth.csv").write_bytes(b"1")
    found = studies_in(tmp_path)
    assert found.folders == (tmp_path / "a", tmp_path / "b")
    assert found.describe() == {
        "studies": 2, "source": "the user's studies", "seed": None, "files": 2, "bytes": 6
    }  # fmt: skip


def test_a_folder_without_studies_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no studies\. Give a folder that holds one folder"):
        studies_in(tmp_path)
    with pytest.raises(InputError, match="There is no folder"):
        studies_in(tmp_path / "absent")


def test_phantoms_are_those_of_the_seed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def write(out: Path, options: PhantomOptions, progress: object) -> None:
        asked.append((options.studies, options.seed))
        shutil.copytree(phantoms(1, 33), out)

    monkeypatch.setattr(studies_module, "write_studies", write)
    found = make_phantoms(tmp_path, 1, 33)
    assert asked == [(1, 33)]
    assert [folder.name for folder in found.folders] == ["study_0001"]
    described = found.describe()
    assert (described["seed"], described["source"]) == (33, "phantoms of seed 33")
    assert described["files"] > 20


def test_phantoms_that_cannot_be_written_are_an_output_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(studies_module, "write_studies", full)
    with pytest.raises(NotWritten, match="No space left on device"):
        make_phantoms(tmp_path, 1)
    with pytest.raises(InputError, match="Ask for at least 1"):
        make_phantoms(tmp_path, 0)
