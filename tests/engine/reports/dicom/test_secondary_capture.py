"""Secondary captures: read back by pydicom and highdicom, valid, truthful, reproducible."""

from __future__ import annotations

import io
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from picture_samples import made_report
from pydicom import Dataset
from pydicom.dataset import FileDataset
from report_samples import sample_report, with_headers
from viewer_tools import command_path, need_commands

from stenosis_trt.engine.reports.dicom import secondary_capture
from stenosis_trt.engine.reports.pictures import pages
from stenosis_trt.engine.reports.pictures.grade_colours import PALETTE
from stenosis_trt.engine.reports.study_report import (
    CannotReport,
    ReportImage,
    ReportOptions,
    StudyImages,
    StudyReport,
)


def _captures(report: StudyReport) -> dict[str, FileDataset]:
    files = secondary_capture.make(report, ReportOptions())
    return {name: pydicom.dcmread(io.BytesIO(content)) for name, content in files.items()}


def _through_files(report: StudyReport) -> StudyReport:
    """Return the report with data sets as they are read from files."""
    assert report.images is not None

    def read(image: ReportImage) -> ReportImage:
        stream = io.BytesIO()
        with pydicom.config.disable_value_validation():
            pydicom.dcmwrite(stream, image.dataset, implicit_vr=False, little_endian=True)
        return replace(image, dataset=pydicom.dcmread(stream, force=True))

    sagittal = {level: read(image) for level, image in report.images.sagittal.items()}
    axial = {level: read(image) for level, image in report.images.axial.items()}
    return replace(report, images=StudyImages(sagittal, axial))


def test_there_is_one_object_a_page_in_one_series() -> None:
    captures = _captures(sample_report())
    assert list(captures)[:2] == ["sc/001_summary.dcm", "sc/002_C2-3.dcm"]
    assert len(captures) == 7
    assert len({item.SeriesInstanceUID for item in captures.values()}) == 1
    assert len({item.SOPInstanceUID for item in captures.values()}) == 7
    assert [item.InstanceNumber for item in captures.values()] == [1, 2, 3, 4, 5, 6, 7]


def test_the_pixels_are_those_of_the_pages() -> None:
    report = sample_report()
    for item, page in zip(_captures(report).values(), pages.pages(report), strict=True):
        assert np.array_equal(item.pixel_array, PALETTE[page.pixels])


def test_the_objects_are_plain_uncompressed_rgb() -> None:
    for item in _captures(sample_report()).values():
        assert item.file_meta.TransferSyntaxUID == "1.2.840.10008.1.2.1"
        assert item.PhotometricInterpretation == "RGB"
        assert len(item.PixelData) == 3 * item.Rows * item.Columns


def test_highdicom_takes_them_for_secondary_captures() -> None:
    item = next(iter(_captures(sample_report()).values()))
    assert item.SOPClassUID == "1.2.840.10008.5.1.4.1.1.7"
    image = highdicom.Image.from_dataset(item)
    assert image.get_frame(1).shape == (720, 1024, 3)


def test_they_belong_to_the_patient_and_study_of_the_images() -> None:
    source = sample_report().images
    assert source is not None
    header = source.sagittal["C2/3"].dataset
    for item in _captures(sample_report()).values():
        for keyword in ("PatientName", "PatientID", "StudyInstanceUID", "StudyDate", "AccessionNumber"):
            assert item[keyword].value == header[keyword].value
        assert item.SeriesInstanceUID != header.SeriesInstanceUID


def test_names_in_other_alphabets_are_kept() -> None:
    def rename(dataset: Dataset) -> None:
        dataset.SpecificCharacterSet = "ISO_IR 144"
        dataset.PatientName = "Иванов^Пётр"
        dataset.StudyDescription = "шея"

    report = _through_files(with_headers(sample_report(), rename))
    item = next(iter(_captures(report).values()))
    assert item.SpecificCharacterSet == "ISO_IR 192"
    assert str(item.PatientName) == "Иванов^Пётр"
    assert item.StudyDescription == "шея"


def test_an_invalid_value_of_a_header_is_left_out_and_not_printed(
    capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    def spoil(dataset: Dataset) -> None:
        del dataset.StudyDate, dataset.AccessionNumber
        with pydicom.config.disable_value_validation():
            dataset.StudyDate = "4.3.2025 of Leaky"
            dataset.AccessionNumber = "LEAKY" * 20

    report = _through_files(with_headers(sample_report(), spoil))
    captures = secondary_capture.make(report, ReportOptions())
    assert all(b"4.3.2025" not in content and b"LEAKY" not in content for content in captures.values())
    assert not [warning for warning in recwarn if "Leaky" in str(warning) or "LEAKY" in str(warning)]
    assert "eaky" not in "".join(capfd.readouterr()).lower()


def test_they_say_truthfully_what_is_in_their_pixels() -> None:
    for item in _captures(sample_report()).values():
        assert item.BurnedInAnnotation == "NO"
        assert item.RecognizableVisualFeatures == "NO"
        assert list(item.ImageType) == ["DERIVED", "SECONDARY"]
        assert "Not for measuring" in item.DerivationDescription
        assert item.SeriesDescription == "Cervical stenosis pictures, not for clinical use"
        assert item.ImageComments.startswith("Not for clinical use.")
    worst = _captures(sample_report())["sc/005_C5-6.dcm"]
    assert "C5/6: severe stenosis" in worst.ImageComments


def test_a_pack_for_clinical_use_is_not_marked() -> None:
    report = sample_report()
    clinical = replace(report, provenance=replace(report.provenance, clinical_use=True))
    for item in _captures(clinical).values():
        assert "clinical use" not in item.SeriesDescription + item.ImageComments


def test_they_refer_to_the_images_that_they_show() -> None:
    report = sample_report()
    assert report.images is not None
    level = next(x for x in report.result.levels if x.level == "C5/6")
    assert level.cord is not None
    item = _captures(report)["sc/005_C5-6.dcm"]
    assert [x.ReferencedSOPInstanceUID for x in item.SourceImageSequence] == [
        level.sagittal_sop_uid,
        level.cord.sop_instance_uid,
    ]
    assert all("ReferencedFrameNumber" not in x for x in item.SourceImageSequence)


def test_frames_of_multi_frame_images_are_referred_to_by_number() -> None:
    item = _captures(made_report(multiframe=True))["sc/004_C4-5.dcm"]
    assert [x.ReferencedFrameNumber for x in item.SourceImageSequence] == [5, 3]


def test_the_device_uid_changes_with_the_pack() -> None:
    report = sample_report()
    other = replace(report, provenance=replace(report.provenance, pack_sha256="cd" * 32))
    found = [
        next(iter(_captures(x).values())).ContributingEquipmentSequence[0].DeviceUID for x in (report, other)
    ]
    assert found[0] != found[1]


def test_equal_results_give_equal_bytes() -> None:
    report = sample_report()
    later = replace(
        sample_report(number=5), provenance=replace(report.provenance, started="2027-01-01T00:00:00+00:00")
    )
    assert secondary_capture.make(later, ReportOptions()) == secondary_capture.make(report, ReportOptions())


def test_loss_by_compression_is_passed_on() -> None:
    def lossy(dataset: Dataset) -> None:
        dataset.LossyImageCompression = "01"
        dataset.LossyImageCompressionRatio = 8.5
        dataset.LossyImageCompressionMethod = "ISO_15444_1"

    item = next(iter(_captures(with_headers(sample_report(), lossy)).values()))
    assert item.LossyImageCompression == "01"
    assert item.LossyImageCompressionMethod == "ISO_15444_1"
    plain = next(iter(_captures(sample_report()).values()))
    assert plain.LossyImageCompression == "00"


def test_a_study_without_images_cannot_have_them() -> None:
    with pytest.raises(CannotReport, match="not available"):
        secondary_capture.make(sample_report(images=None), ReportOptions())


@pytest.mark.parametrize("report", [sample_report, lambda: made_report(multiframe=True)])
def test_dciodvfy_finds_no_error(report: Any, tmp_path: Path) -> None:
    need_commands("dciodvfy")
    for name, content in secondary_capture.make(report(), ReportOptions()).items():
        path = tmp_path / Path(name).name
        path.write_bytes(content)
        ran = subprocess.run(
            [command_path("dciodvfy"), str(path)], capture_output=True, text=True, check=False
        )
        assert "SCImage" in ran.stderr + ran.stdout
        assert "Error" not in ran.stderr + ran.stdout


def test_dcmtk_draws_the_same_picture(tmp_path: Path) -> None:
    need_commands("dcm2pnm")
    report = sample_report()
    name, content = next(iter(secondary_capture.make(report, ReportOptions()).items()))
    path, drawn = tmp_path / Path(name).name, tmp_path / "drawn.ppm"
    path.write_bytes(content)
    subprocess.run([command_path("dcm2pnm"), "+op", str(path), str(drawn)], check=True)
    from PIL import Image

    assert np.array_equal(np.asarray(Image.open(drawn)), PALETTE[pages.pages(report)[0].pixels])
