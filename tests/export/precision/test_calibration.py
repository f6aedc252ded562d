"""Calibration inputs: recording, and the cache keyed by content."""

from __future__ import annotations

import shutil
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from made_study import made_study, sparse
from tiny_pack import write_tiny_pack

from stenosis_trt.bench import phantom
from stenosis_trt.engine.backends.base import Float32Array
from stenosis_trt.engine.backends.cpu.backend import CpuBackend
from stenosis_trt.engine.grading.pipeline import grade_study
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.records import LoadedStudy
from stenosis_trt.export.errors import StudiesError
from stenosis_trt.export.precision import calibration as module
from stenosis_trt.export.precision.calibration import RecordingBackend, calibration_set, record_inputs
from stenosis_trt.export.precision.studies import (
    PhantomSet,
    StudyCollection,
    cached_phantoms,
    content_hash,
    resolve_studies,
)


def test_each_network_gets_inputs_of_its_own_shape(pack: Pack, inputs: dict[str, Float32Array]) -> None:
    for name, model in pack.models.items():
        assert inputs[name].shape == (6 if name == "grader" else 8, *model.input_shape)
        assert inputs[name].dtype == np.float32
        assert inputs[name].std() > 0.1


def test_recording_changes_no_result(pack: Pack, studies: list[LoadedStudy]) -> None:
    with closing(CpuBackend(pack)) as plain:
        expected = grade_study(studies[0], pack, plain)
    with closing(RecordingBackend(pack, 4)) as recording:
        recorded = grade_study(studies[0], pack, recording)
    assert recorded.levels == expected.levels


def test_inputs_are_those_that_the_pipe_gives_the_networks(pack: Pack, studies: list[LoadedStudy]) -> None:
    """Kept whole, where the sample is large enough: every sagittal slice once, in order."""
    recorded = record_inputs(pack, studies[:1], 500)
    assert len(recorded["levels"]) == len(studies[0].sagittal)
    assert len(recorded["grader"]) <= 6
    again = record_inputs(pack, studies[:1], 500)
    for name in pack.models:
        assert np.array_equal(recorded[name], again[name])


def test_a_study_that_a_model_answers_with_invalid_values_does_not_end_the_calibration(
    tmp_path: Path,
) -> None:
    """The levels network was given the study; nothing was found for the others."""
    tiny = write_tiny_pack(tmp_path / "tiny", invalid="levels")
    with pytest.raises(StudiesError, match="no input of the model grader"):
        record_inputs(tiny, [made_study(fill=sparse)], 4)


def test_a_set_is_taken_once_and_then_kept(
    pack: Pack, phantoms: StudyCollection, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = calibration_set(pack, phantoms, 4, cache)
    monkeypatch.setattr(module, "record_inputs", None)
    second = calibration_set(pack, phantoms, 4, cache)
    assert first.key == second.key
    for name in pack.models:
        assert np.array_equal(first.inputs[name], second.inputs[name])
    with pytest.raises(TypeError):
        calibration_set(pack, phantoms, 5, cache)


def test_a_damaged_set_is_taken_anew(pack: Pack, phantoms: StudyCollection, cache: Path) -> None:
    first = calibration_set(pack, phantoms, 4, cache)
    path = next(cache.glob("*.npz"))
    path.write_bytes(path.read_bytes()[:1000])
    second = calibration_set(pack, phantoms, 4, cache)
    assert np.array_equal(first.inputs["cord"], second.inputs["cord"])


def test_the_hash_is_of_contents_and_not_of_names(tmp_path: Path) -> None:
    for folder, name in (("a", "x"), ("b", "y/z")):
        (tmp_path / folder / name).parent.mkdir(parents=True)
        (tmp_path / folder / name).write_bytes(b"content")
    assert content_hash(tmp_path / "a") == content_hash(tmp_path / "b")
    (tmp_path / "b" / "more").write_bytes(b"content")
    assert content_hash(tmp_path / "a") != content_hash(tmp_path / "b")


def test_the_hash_is_of_all_that_reading_meets(tmp_path: Path) -> None:
    """Behind links to folders, as the reader goes; of a single file; and of what a DICOMDIR lies beside."""
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "image.dcm").write_bytes(name.encode())
        (tmp_path / name / "DICOMDIR").write_bytes(b"the same")
        (tmp_path / f"links-{name}").mkdir()
        (tmp_path / f"links-{name}" / "study").symlink_to(tmp_path / name, target_is_directory=True)
    for shown in ("links-{}", "{}/image.dcm", "{}/DICOMDIR"):
        first, second = (content_hash(tmp_path / shown.format(name)) for name in ("one", "two"))
        assert first != second, shown
    assert content_hash(tmp_path / "one") == content_hash(tmp_path / "links-one")
    (tmp_path / "one" / "DICOMDIR").write_bytes(b"another")
    assert content_hash(tmp_path / "one" / "DICOMDIR") != content_hash(tmp_path / "two" / "DICOMDIR")


def test_a_set_is_not_that_of_a_pack_which_finds_other_levels(
    pack: Pack, phantoms: StudyCollection, cache: Path
) -> None:
    """From which confidence on a peak is a level decides which regions the grader and the cord are shown."""
    first = calibration_set(pack, phantoms, 4, cache)
    levels = pack.models["levels"]
    stricter = replace(levels, output=replace(levels.output, minimum_confidence=0.99))
    with pytest.raises(StudiesError, match="model grader"):
        calibration_set(replace(pack, models={**pack.models, "levels": stricter}), phantoms, 4, cache)
    assert calibration_set(pack, phantoms, 4, cache).key == first.key


def test_studies_that_cannot_be_used_say_what_to_do(pack: Pack, tmp_path: Path, cache: Path) -> None:
    with pytest.raises(StudiesError, match="nothing at"):
        resolve_studies(tmp_path / "absent", PhantomSet(1, 1))
    (tmp_path / "empty").mkdir()
    with pytest.raises(StudiesError, match="stenosis-trt inspect"):
        calibration_set(pack, resolve_studies(tmp_path / "empty", PhantomSet(1, 1)), 4, cache)


def test_studies_without_an_axial_series_calibrate_no_cord(pack: Pack, studies: list[LoadedStudy]) -> None:
    with pytest.raises(StudiesError, match="model cord"):
        record_inputs(pack, [replace(study, axial=()) for study in studies], 4)


def test_phantoms_are_made_once_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def write(out: Path, options: phantom.PhantomOptions, progress: object = None) -> Path:
        calls.append(options)
        out.mkdir(parents=True)
        (out / "study").write_text("x")
        if len(calls) == 1:
            raise KeyboardInterrupt
        (out / "truth.csv").write_text("")
        return out / "truth.csv"

    monkeypatch.setattr(phantom, "write_studies", write)
    with pytest.raises(KeyboardInterrupt):
        cached_phantoms(PhantomSet(3, 9), tmp_path)
    assert list(tmp_path.iterdir()) == []
    made = cached_phantoms(PhantomSet(3, 9), tmp_path)
    assert made.source == "3 phantoms of seed 9"
    assert cached_phantoms(PhantomSet(3, 9), tmp_path) == made
    assert [(call.studies, call.seed) for call in calls] == [(3, 9), (3, 9)]
    shutil.rmtree(made.folder)
    cached_phantoms(PhantomSet(3, 9), tmp_path)
    assert len(calls) == 3


def test_phantoms_that_another_run_made_meanwhile_stay_where_it_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted, calls = PhantomSet(2, 9), list[Path]()

    def write(out: Path, _: phantom.PhantomOptions, progress: object = None) -> Path:
        calls.append(out)
        out.mkdir(parents=True)
        if len(calls) == 1:
            cached_phantoms(wanted, tmp_path)
        (out / "truth.csv").write_text("first" if len(calls) == 1 else "quicker")
        calls.pop()
        return out / "truth.csv"

    monkeypatch.setattr(phantom, "write_studies", write)
    made = cached_phantoms(wanted, tmp_path)
    assert (made.folder / "truth.csv").read_text() == "quicker"
    assert list(tmp_path.iterdir()) == [made.folder]
