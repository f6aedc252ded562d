"""Real files of many vendors: what the manifest says of them must come out."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from shared_data import manifest, shared_data

from stenosis_trt.engine.dicom.reader import DicomReader, Scan
from stenosis_trt.engine.geometry import SlicePose
from stenosis_trt.engine.records import LoadedSlice, SeriesHeader

pytestmark = pytest.mark.shared_data


@pytest.fixture(scope="module")
def reader() -> Iterator[DicomReader]:
    with DicomReader() as opened:
        yield opened


def _all_series(scan: Scan) -> list[SeriesHeader]:
    return [series for study in scan.studies for series in study.series]


def _load(reader: DicomReader, series: SeriesHeader) -> tuple[LoadedSlice, ...]:
    slices, problems = reader.load(series.frames)
    assert problems == ()
    return slices


def test_nine_transfer_syntaxes_of_one_image_give_identical_arrays(reader: DicomReader) -> None:
    scan = reader.scan([shared_data("dicom", "transfer_syntax_siemens_trio")])
    images = [item.stored for series in _all_series(scan) for item in _load(reader, series)]
    syntaxes = {row["transfer_syntax"] for row in manifest("dicom/transfer_syntax_siemens_trio")}
    assert len(images) == 9
    assert len(syntaxes) >= 7
    assert images[0].std() > 0
    for image in images[1:]:
        assert image.dtype == images[0].dtype
        assert np.array_equal(image, images[0])


def test_classic_and_enhanced_versions_of_a_series_are_the_same_volume(reader: DicomReader) -> None:
    classic = _all_series(reader.scan([shared_data("dicom", "siemens_xa30_classic_sag")]))
    enhanced = _all_series(reader.scan([shared_data("dicom", "siemens_xa30_enhanced_sag")]))
    assert len(classic) == len(enhanced) == 1
    volume = _load(reader, enhanced[0])
    matched = 0
    for item in _load(reader, classic[0]):
        twin = min(volume, key=lambda other: np.linalg.norm(other.pose.centre - item.pose.centre))
        assert np.allclose(twin.pose.pixel_to_patient, item.pose.pixel_to_patient, atol=1e-3)
        assert np.array_equal(twin.stored, item.stored)
        matched += 1
    assert matched == 8


def test_head_first_prone_and_supine_lie_in_one_coordinate_system(reader: DicomReader) -> None:
    """The same phantom in the same bore: what differs between the headers is the patient's pose alone."""
    for folder in ("siemens_supine_HFS", "siemens_prone_HFP"):
        series = _all_series(reader.scan([shared_data("dicom", folder)]))[0]
        poses = [frame.pose for frame in series.frames if frame.pose is not None]
        along = [float(pose.centre[0]) for pose in poses]
        assert all(pose.orientation == "sagittal" for pose in poses)
        assert along == sorted(along), "slices run from the patient's right to the left"
        for pose in poses:
            corner = pose.to_patient([[0, 0], [pose.columns - 1, pose.rows - 1]])
            assert np.allclose(pose.to_pixels(corner)[:, :2], [[0, 0], [pose.columns - 1, pose.rows - 1]])


def test_unused_high_bits_are_cleared_and_signs_extended(reader: DicomReader) -> None:
    folder = shared_data("dicom", "bits_signed")

    def pixels(name: str) -> np.ndarray:
        return _load(reader, _all_series(reader.scan([folder / name]))[0])[0].stored

    clean, dirty, signed = (
        pixels(f"{name}.dcm") for name in ("12bitUnsigned", "12bitUnsigned_0x0F0F", "12bitSigned_0x0F0F")
    )
    assert clean.dtype == dirty.dtype == np.uint16
    assert signed.dtype == np.int16
    assert clean.max() < 4096
    assert dirty.max() < 4096
    assert -2048 <= signed.min() <= signed.max() < 2048


def test_encodings_of_one_small_image_agree(reader: DicomReader) -> None:
    folder = shared_data("dicom", "pydicom_mr")
    names = ("MR_small", "MR_small_RLE", "MR_small_bigendian", "MR_small_implicit", "MR_small_jp2klossless")
    images = [
        _load(reader, _all_series(reader.scan([folder / f"{name}.dcm"]))[0])[0].stored for name in names
    ]
    assert all(np.array_equal(image, images[0]) for image in images[1:])


def test_a_truncated_file_is_a_problem_not_an_image(reader: DicomReader) -> None:
    scan = reader.scan([shared_data("dicom", "pydicom_mr", "MR_truncated.dcm")])
    slices, problems = reader.load(_all_series(scan)[0].frames)
    assert slices == ()
    assert len(problems) == 1


def test_a_dicomdir_stands_for_the_files_it_lists(reader: DicomReader) -> None:
    folder = shared_data("dicom", "pydicom_dicomdir")
    by_index = reader.scan([folder / "DICOMDIR"])
    by_walk = reader.scan([folder / "98892003"])

    def uids(scan: Scan) -> set[str]:
        return {frame.sop_instance_uid for series in _all_series(scan) for frame in series.frames}

    # The directory names 31 files, of which the folder holds those that were kept.
    assert uids(by_index) == uids(by_walk) != set()
    assert all("not there" in problem.reason for problem in by_index.problems)


def test_several_volumes_of_one_enhanced_file_are_told_apart(reader: DicomReader) -> None:
    for row in manifest("dicom/philips_enhanced/1901"):
        scan = reader.scan([shared_data(*Path(row["file"]).parts)])
        for series in _all_series(scan):
            places = {tuple(np.round(f.pose.centre, 2)) for f in series.frames if f.pose is not None}
            assert len(places) == len(series.frames)


def test_every_file_of_the_collection_is_accounted_for(reader: DicomReader) -> None:
    scan = reader.scan([shared_data("dicom")])
    read = {frame.path for series in _all_series(scan) for frame in series.frames}
    refused = {Path(problem.path) for problem in scan.problems}
    files = {p for p in shared_data("dicom").rglob("*") if p.is_file() and p.name != "DICOMDIR"}
    # Identical copies are dropped silently; here are none.
    assert {p.resolve() for p in read | refused} == {p.resolve() for p in files}
    assert scan.files == len(files)


def test_headers_agree_with_pydicom(reader: DicomReader) -> None:
    series = _all_series(reader.scan([shared_data("dicom", "philips_classic_sag")]))[0]
    for frame in series.frames:
        header = pydicom.dcmread(frame.path, stop_before_pixels=True)
        pose = frame.pose
        assert isinstance(pose, SlicePose)
        assert pose.origin == pytest.approx([float(x) for x in header.ImagePositionPatient])
        assert [pose.row_spacing, pose.column_spacing] == [float(x) for x in header.PixelSpacing]
        assert frame.slope == pytest.approx(float(header.RescaleSlope))
