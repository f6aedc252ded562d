"""Real anatomy through the whole product with the reference pack: what must and what must not be graded.

The pack has learnt from the cervical volumes: what it says of them here must be right, and tells nothing of
how it does on others (docs/reference-pack.md does).
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from dicom_factory import dataset, write
from pydicom.uid import generate_uid
from shared_data import shared_data

from stenosis_trt.bench.accuracy.real_anatomy import (
    CROPPED_FIELDS,
    EVALUATED_LEVELS,
    evaluate_cropped_fields,
    evaluate_subject,
)
from stenosis_trt.bench.phantom.dicom_files import write_study
from stenosis_trt.bench.semisynthetic.acquired import acquire_volume
from stenosis_trt.bench.semisynthetic.canal import NiftiVolume
from stenosis_trt.bench.semisynthetic.subjects import SUBJECTS
from stenosis_trt.engine.dicom.reader import DicomReader
from stenosis_trt.engine.records import LEVELS
from stenosis_trt.engine.runs.batch import grade_paths
from stenosis_trt.engine.runs.options import GradeOptions
from stenosis_trt.engine.runs.summary import RunSummary


def _acquire(path: Path, out: Path) -> None:
    """Write a volume as a study of the two clinical protocols."""
    write_study(acquire_volume(path.parent.name, NiftiVolume(path)), out, "explicit")


def _grade(folder: Path, out: Path) -> tuple[RunSummary, list[dict[str, str]], list[dict[str, str]]]:
    outcome = grade_paths([folder], out, GradeOptions(device="cpu"))
    with (out / "results.csv").open(newline="") as results, (out / "errors.csv").open(newline="") as errors:
        return outcome, list(csv.DictReader(results)), list(csv.DictReader(errors))


@pytest.mark.shared_data
@pytest.mark.parametrize("name", ["errsm_11", "errsm_18", "errsm_20", "errsm_30"])
def test_a_healthy_neck_in_both_protocols_is_found_level_by_level_and_graded_so(
    name: str, tmp_path: Path
) -> None:
    figures = evaluate_subject(SUBJECTS[name], shared_data("volumes"), None, tmp_path)
    assert figures.reason == ""
    assert [level.level for level in figures.levels] == list(LEVELS)
    assert len(figures.distances) == len(EVALUATED_LEVELS)
    assert float(np.median(figures.distances)) <= 3.0
    assert max(figures.distances) <= 6.0
    assert all(level.grade is None or level.grade <= 1 for level in figures.levels)
    assert not any("no_axial_series" in level.warnings for level in figures.levels)
    if SUBJECTS[name].mask:
        assert figures.cord_slices >= 20
        assert figures.ratio_mean_absolute_error is not None
        assert figures.ratio_mean_absolute_error <= 0.06


@pytest.mark.slow
@pytest.mark.shared_data
@pytest.mark.parametrize(("name", "long_enough"), [("errsm_11", False), ("errsm_18", True)])
def test_levels_are_counted_only_in_images_that_show_c2(name: str, long_enough: bool) -> None:
    """The first field ends above C7/T1, which leaves 100 mm of one neck; the others end below C2/3."""
    fields = evaluate_cropped_fields(SUBJECTS[name], shared_data("volumes"), None)
    assert [field.graded for field in fields] == [long_enough] + [False] * (len(CROPPED_FIELDS) - 1)
    assert all(field.right == len(field.shown) and field.invented == 0 for field in fields if field.graded)


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("folder", "file"),
    [
        ("lumbar_negative", "t2_lumbar.nii.gz"),
        ("axial_nonT2", "mt0.nii.gz"),
        ("axial_T2star", "t2s_uncropped.nii.gz"),
    ],
)
def test_another_region_or_contrast_is_never_graded(folder: str, file: str, tmp_path: Path) -> None:
    """The headers written here all claim a cervical T2: only the images can tell."""
    _acquire(shared_data("volumes", folder, file), tmp_path / "in")
    outcome, rows, errors = _grade(tmp_path / "in", tmp_path / "out")
    assert (outcome.studies, outcome.graded, outcome.exit_code) == (1, 0, 1)
    assert rows == []
    assert errors[-1]["reason"].startswith("cannot grade: ")


@pytest.mark.shared_data
@pytest.mark.parametrize("folder", ["siemens_supine_HFS", "philips_classic_sag", "ge_mr750"])
def test_a_real_brain_under_the_header_of_a_cervical_t2_is_not_graded(folder: str, tmp_path: Path) -> None:
    """Sagittal slices of a head, each as often as a stack of thirteen needs."""
    with DicomReader() as reader:
        studies = reader.scan([shared_data("dicom", folder)]).studies
        found = next(
            series
            for study in studies
            for series in study.series
            if series.frames[0].pose is not None and series.frames[0].pose.orientation == "sagittal"
        )
        slices, _ = reader.load(found.frames)
    first = slices[0].pose
    for number in range(13):
        item = slices[number * len(slices) // 13]
        place = np.array(first.origin) + 3.3 * number * first.normal
        content = dataset(
            number,
            SOPInstanceUID=generate_uid(entropy_srcs=[folder, str(number)]),
            Rows=first.rows,
            Columns=first.columns,
            # A head at the size of a neck: with its own pixels it would be refused by its header.
            PixelSpacing=[0.8, 0.8],
            ImageOrientationPatient=[round(x, 6) for x in (*first.row_direction, *first.column_direction)],
            ImagePositionPatient=[round(float(x), 4) for x in place],
            PixelData=item.stored.astype(np.int32).clip(0).astype(np.uint16).tobytes(),
            BitsStored=16,
            HighBit=15,
        )
        write(tmp_path / "in" / f"{number}.dcm", content)
    outcome, rows, errors = _grade(tmp_path / "in", tmp_path / "out")
    assert (outcome.graded, outcome.failed) == (0, 1)
    assert rows == []
    assert "No cervical spine" in errors[-1]["reason"]


@pytest.mark.shared_data
def test_the_collection_of_real_files_ends_with_every_study_accounted_for(tmp_path: Path) -> None:
    outcome, rows, errors = _grade(shared_data("dicom"), tmp_path / "out")
    assert outcome.exit_code == 1
    named = {row["study_uid"] for row in rows} | {row["study_uid"] for row in errors if row["study_uid"]}
    assert len(named) == outcome.studies == outcome.graded + outcome.failed
    assert outcome.graded == 0, "the collection holds no cervical T2 study"


@pytest.mark.parametrize("kind", ["white", "smooth", "flat", "gradient"])
def test_noise_with_a_perfect_header_is_not_graded(kind: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    for number in range(11):
        if kind == "white":
            image = rng.integers(0, 4096, (256, 256))
        elif kind == "smooth":
            spectrum = np.fft.rfft2(rng.standard_normal((256, 256)))
            falloff = np.exp(-np.hypot(np.fft.fftfreq(256)[:, None], np.fft.rfftfreq(256)[None]) * 40)
            field = np.fft.irfft2(spectrum * falloff)
            image = (field - field.min()) / np.ptp(field) * 4000
        elif kind == "flat":
            image = np.full((256, 256), 700)
        else:
            image = np.add.outer(np.arange(256), np.arange(256)) * 7
        uid = generate_uid(entropy_srcs=[kind, str(number)])
        content = dataset(number, PixelData=image.astype(np.uint16).tobytes(), SOPInstanceUID=uid)
        write(tmp_path / "in" / f"{number}.dcm", content)
    outcome, rows, errors = _grade(tmp_path / "in", tmp_path / "out")
    assert (outcome.graded, outcome.failed) == (0, 1)
    assert rows == []
    assert "No cervical spine" in errors[0]["reason"]


def test_a_phantom_study_is_graded_well(tmp_path: Path) -> None:
    from stenosis_trt.bench.accuracy.compare import compare_with_truth, pair_levels
    from stenosis_trt.bench.phantom import PhantomOptions, write_studies

    truth = write_studies(tmp_path / "in", PhantomOptions(studies=2, seed=31, transfer_syntax="jpeg-ls"))
    outcome, rows, _ = _grade(tmp_path / "in", tmp_path / "out")
    assert outcome.exit_code in (0, 1)
    assert outcome.graded == 2
    assert len(rows) == 2 * len(LEVELS)
    figures = compare_with_truth(pair_levels(tmp_path / "out" / "results.csv", truth))
    assert figures.found_within_4_mm == 1.0
    assert figures.ratio_mean_absolute_error < 0.05
    assert figures.accuracy >= 0.5
