"""The public API: what it exports, what it returns, and what it raises."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from dicom_factory import series
from tiny_pack import write_tiny_pack

import stenosis_trt.engine as stenosis
from stenosis_trt.bench.phantom import PhantomOptions, write_studies
from stenosis_trt.engine.backends import onnxruntime
from stenosis_trt.engine.grading.study_grader import StudyGrader
from stenosis_trt.engine.records import LEVEL_COLUMNS, LEVELS


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two phantoms, a study without a sagittal series, and a file cut off in its header."""
    folder = tmp_path_factory.mktemp("archive")
    write_studies(folder / "phantoms", PhantomOptions(2, 99, workers=2))
    series(folder / "too_short", slices=2)
    image = next((folder / "phantoms").rglob("*.dcm")).read_bytes()
    (folder / "broken.dcm").write_bytes(image[:400])
    return folder


@pytest.fixture(scope="module")
def studies(archive: Path) -> list[Path]:
    return sorted({path.parent.parent for path in (archive / "phantoms").rglob("*.dcm")})


@pytest.fixture(scope="module")
def grader() -> Iterator[stenosis.Grader]:
    with stenosis.Grader(pack="reference", device="auto", precision="auto") as opened:
        yield opened


def test_the_exported_names_are_the_documented_ones() -> None:
    documented = (
        "CannotGrade CordMeasurement DeviceError GpuOptions Grader InputError LevelResult "
        "ModelOutputError RunSummary OutputError PackError PlanError Problem ReadLimits ReportOptions "
        "SignatureError StenosisError StudyResult CsvFormat TrustedKeys UngradedStudy grade "
    )
    assert stenosis.__all__ == sorted(documented.split())
    for name in stenosis.__all__:
        assert getattr(stenosis, name).__doc__
        assert name in dir(stenosis)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Garder'"):
        _ = stenosis.Garder


def test_every_error_that_is_exported_has_one_root_with_a_reason_and_advice() -> None:
    errors = [getattr(stenosis, name) for name in stenosis.__all__ if name.endswith(("Error", "CannotGrade"))]
    assert all(issubclass(error, stenosis.StenosisError) for error in errors)
    error = stenosis.PackError("It is broken.", "Mend it.")
    assert (error.reason, error.advice, str(error)) == ("It is broken.", "Mend it.", "It is broken. Mend it.")


def test_importing_the_package_loads_nothing_heavy() -> None:
    program = (
        "import sys, stenosis_trt.engine\n"
        "print(sorted({'numpy', 'onnxruntime', 'pydicom', 'torch', 'pandas'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_the_package_is_typed() -> None:
    assert (Path(stenosis.__file__).parent / "py.typed").is_file()


def test_a_study_is_graded_by_a_call(grader: stenosis.Grader, studies: list[Path]) -> None:
    result = grader(studies[0])
    assert isinstance(result, stenosis.StudyResult)
    assert tuple(level.level for level in result.levels) == LEVELS
    assert all(level.grade in range(4) for level in result.levels)
    assert grader(str(studies[0])).levels == result.levels


def test_identifiers_are_kept_only_where_that_is_asked(grader: stenosis.Grader, studies: list[Path]) -> None:
    with stenosis.Grader(device="cpu", keep_identifiers=True) as keeping:
        assert keeping(studies[0]).patient_id
    assert grader(studies[0]).patient_id == ""


def test_the_models_are_opened_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, archive: Path) -> None:
    opened = []
    monkeypatch.setattr(
        onnxruntime.OnnxRuntimeBackend, "__init__", _counting(onnxruntime.OnnxRuntimeBackend.__init__, opened)
    )
    with stenosis.Grader(write_tiny_pack(tmp_path / "tiny").path, device="cpu") as grader:
        for _ in range(2):
            list(grader.stream(archive))
    assert len(opened) == 1


def _counting(function: object, calls: list[object]) -> object:
    def counted(*arguments: object, **options: object) -> object:
        calls.append(function)
        return function(*arguments, **options)  # type: ignore[operator]

    return counted


def test_reading_and_grading_apart_give_the_result_of_a_call(
    grader: stenosis.Grader, archive: Path, studies: list[Path]
) -> None:
    whole = grader(studies[0])
    study = grader.read(studies[0])
    assert len(study.sagittal) > 5
    for _ in range(2):
        apart = grader.grade_read(study)
        assert (apart.levels, apart.cord_slices, apart.warnings, apart.patient_id) == (
            whole.levels,
            whole.cord_slices,
            whole.warnings,
            "",
        )
    with pytest.raises(stenosis.CannotGrade, match="sagittal"):
        grader.read(archive / "too_short")
    with pytest.raises(stenosis.InputError, match="holds 2 studies, not one"):
        grader.read(archive / "phantoms")


def test_the_header_that_comes_with_a_result_names_the_files_of_the_study(
    grader: stenosis.Grader, studies: list[Path]
) -> None:
    result, header = grader.grade_with_header(studies[0])
    assert result.levels == grader(studies[0]).levels
    assert header.study_uid == result.study_uid
    files = {frame.path for series in header.series for frame in series.frames}
    assert files == set(studies[0].rglob("*.dcm"))


def test_a_stream_yields_every_study_once_with_a_result_or_a_reason(
    grader: stenosis.Grader, archive: Path, studies: list[Path]
) -> None:
    items = list(grader.stream(archive, workers=2))
    results = [item for item in items if isinstance(item, stenosis.StudyResult)]
    ungraded = [item for item in items if isinstance(item, stenosis.UngradedStudy)]
    assert len(items) == len(results) + len(ungraded)
    assert {item.study_uid for item in results} == {grader(study).study_uid for study in studies}
    broken, short = ungraded
    assert broken.path == str(archive / "broken.dcm")
    assert short.path.endswith("too_short")
    for item in ungraded:
        assert item.reason.endswith(".")
        assert item.advice.endswith(".")


def test_a_study_that_cannot_be_graded_raises(grader: stenosis.Grader, archive: Path) -> None:
    with pytest.raises(stenosis.CannotGrade, match="sagittal") as caught:
        grader(archive / "too_short")
    assert caught.value.stage.value == "choose"
    assert caught.value.advice
    # The grader still works.
    assert [type(item).__name__ for item in grader.stream(archive / "too_short")] == ["UngradedStudy"]


def test_a_folder_without_exactly_one_study_is_an_input_error(
    grader: stenosis.Grader, archive: Path, tmp_path: Path
) -> None:
    with pytest.raises(stenosis.InputError, match=r"holds 2 studies, not one\. Give the folder of one"):
        grader(archive / "phantoms")
    with pytest.raises(stenosis.InputError, match="There is nothing at"):
        grader(tmp_path / "absent")
    with pytest.raises(stenosis.InputError, match="There is nothing at"):
        list(grader.stream([tmp_path / "absent"]))
    with pytest.raises(stenosis.InputError, match="holds no DICOM images"):
        grader(tmp_path)
    with pytest.raises(stenosis.InputError, match="holds no study that can be read"):
        grader(archive / "broken.dcm")


def test_a_file_that_may_be_a_slice_of_the_study_is_not_lost_without_a_word(
    grader: stenosis.Grader, archive: Path, studies: list[Path], tmp_path: Path
) -> None:
    (tmp_path / "study").symlink_to(studies[0])
    (tmp_path / "broken.dcm").write_bytes((archive / "broken.dcm").read_bytes())
    assert "slices_unreadable" not in grader(studies[0]).warnings
    assert "slices_unreadable" in grader(tmp_path).warnings


def test_a_grader_works_after_an_interrupt(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, studies: list[Path]
) -> None:
    with stenosis.Grader(write_tiny_pack(tmp_path / "tiny").path, device="cpu") as grader:

        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        with monkeypatch.context() as patched:
            patched.setattr(StudyGrader, "grade", interrupted)
            for call in (lambda: grader(studies[0]), lambda: list(grader.stream(studies))):
                with pytest.raises(KeyboardInterrupt):
                    call()
        assert len(list(grader.stream(studies))) == len(studies)


def test_a_stream_that_is_left_early_leaves_the_grader_usable_once_it_is_closed(
    grader: stenosis.Grader, archive: Path, studies: list[Path]
) -> None:
    stream = grader.stream(archive / "phantoms")
    first = next(stream)
    with pytest.raises(RuntimeError, match="runs a stream"):
        grader(studies[1])
    stream.close()
    assert grader(studies[1]).study_uid != first.study_uid


def test_a_device_that_does_not_exist_is_a_device_error() -> None:
    with pytest.raises(stenosis.DeviceError, match="There is no device 'tpu'"):
        stenosis.Grader(device="tpu")


def test_a_pack_that_is_none_is_a_pack_error(tmp_path: Path) -> None:
    with pytest.raises(stenosis.PackError):
        stenosis.Grader(tmp_path)


def test_a_grader_says_what_it_runs_on(grader: stenosis.Grader) -> None:
    assert grader.backend in ("onnxruntime", "tensorrt")
    assert grader.backend_reason
    assert grader.precision in ("fp32", "fp16")


def test_a_result_becomes_a_data_frame_and_json(grader: stenosis.Grader, studies: list[Path]) -> None:
    pandas = pytest.importorskip("pandas")
    result = grader(studies[1])
    frame = result.to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert tuple(frame.columns) == LEVEL_COLUMNS
    assert frame["level"].tolist() == list(LEVELS)
    assert frame["kang_grade"].tolist() == [level.grade for level in result.levels]
    parsed = json.loads(result.to_json())
    assert parsed["study_uid"] == result.study_uid
    assert parsed["levels"][0]["probabilities"] == list(result.levels[0].probabilities or ())


def test_grade_writes_what_the_command_writes_and_returns_its_counts(
    archive: Path, tmp_path: Path, grader: stenosis.Grader, studies: list[Path]
) -> None:
    summary = stenosis.grade(archive, out=tmp_path / "results", resume=True)
    assert (summary.studies, summary.graded, summary.failed) == (3, 2, 1)
    assert summary.lost_files == 1
    rows = (tmp_path / "results" / "results.csv").read_text().splitlines()
    assert len(rows) == 1 + 2 * len(LEVELS)
    again = stenosis.grade([str(archive)], tmp_path / "results", resume=True)
    assert again.skipped == 2
