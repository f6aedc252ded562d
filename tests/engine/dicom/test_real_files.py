"""Real files of many vendors give what their manifest states."""

from __future__ import annotations

import warnings
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


def _in_patient_plane(item: LoadedSlice) -> np.ndarray:
    """The slice sampled on a grid of patient coordinates: columns go to the back, rows to the feet, 2 mm."""
    y, z = np.meshgrid(np.arange(-128, 128, 2.0), np.arange(128, -128, -2.0))
    points = np.stack([np.full(y.shape, item.pose.centre[0]), y, z], axis=-1)
    places = np.rint(item.pose.to_pixels(points)[..., :2]).astype(int)
    columns = np.clip(places[..., 0], 0, item.pose.columns - 1)
    rows = np.clip(places[..., 1], 0, item.pose.rows - 1)
    return item.stored[rows, columns].astype(float)


def _best_match(one: np.ndarray, other: np.ndarray) -> float:
    """The highest correlation over all shifts."""
    one, other = ((image - image.mean()) / image.std() for image in (one, other))
    shape = [2 * size for size in one.shape]
    product = np.fft.rfft2(one, shape) * np.conj(np.fft.rfft2(other, shape))
    return float(np.fft.irfft2(product, shape).max() / one.size)


def test_a_head_scanned_prone_and_supine_faces_the_same_way_in_patient_coordinates(
    reader: DicomReader,
) -> None:
    middle = []
    for folder in ("siemens_supine_HFS", "siemens_prone_HFP"):
        series = _all_series(reader.scan([shared_data("dicom", folder)]))[0]
        slices = _load(reader, series)
        assert [item.pose.orientation for item in slices] == ["sagittal"] * 5
        along = [float(item.pose.centre[0]) for item in slices]
        assert along == sorted(along), "slices run from the patient's right to the left"
        middle.append(_in_patient_plane(slices[2]))
    supine, prone = middle
    same = _best_match(supine, prone)
    assert same > _best_match(supine, prone[:, ::-1])
    assert same > _best_match(supine, prone[::-1])


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
    names = (
        "MR_small",
        "MR_small_RLE",
        "MR_small_bigendian",
        "MR_small_expb",
        "MR_small_implicit",
        "MR_small_jp2klossless",
        "MR_small_jpeg_ls_lossless",
        "MR_small_padded",
    )
    images = [
        _load(reader, _all_series(reader.scan([folder / f"{name}.dcm"]))[0])[0].stored for name in names
    ]
    assert all(np.array_equal(image, images[0]) for image in images[1:])


def test_a_truncated_file_is_a_problem_not_an_image(reader: DicomReader) -> None:
    scan = reader.scan([shared_data("dicom", "pydicom_mr", "MR_truncated.dcm")])
    assert scan.studies == ()
    assert [problem.reason for problem in scan.problems] == ["The file ends within its pixels."]


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
    # One image lies here in eight encodings, one of them in a gzip archive: the others share a row.
    copies = {p for p in files if p.parent.name == "pydicom_mr"} | {p for p in files if p.name == "zipMR.gz"}
    assert any("hold images that other files hold too" in problem.reason for problem in scan.problems)
    assert {p.resolve() for p in (read | refused) - {shared_data("dicom", "pydicom_mr")} | copies} == {
        p.resolve() for p in files
    }
    assert scan.files == len(files)


def test_what_is_no_image_of_a_patient_is_told_from_what_was_one(reader: DicomReader) -> None:
    scan = reader.scan([shared_data("dicom", "pydicom_odd"), shared_data("dicom", "philips_enhanced")])
    harmless = {Path(problem.path).name: problem.harmless for problem in scan.problems}
    assert harmless == {
        "1301_WIP_ADNI_Sag3D_MPRAGE_Raw.dcm": True,
        "test-SR.dcm": True,
        "SC_rgb_rle.dcm": True,
        "image_dfl.dcm": True,
        "badVR.dcm": True,
        "no_meta.dcm": True,
        "ExplVR_BigEndNoMeta.dcm": True,
        "ExplVR_LitEndNoMeta.dcm": True,
        "no_meta_group_length.dcm": False,
        "UN_sequence.dcm": False,
    }


def test_pixels_of_every_image_are_what_pydicom_reads(reader: DicomReader) -> None:
    compared = 0
    for series in _all_series(reader.scan([shared_data("dicom")])):
        for item in _load(reader, series):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                dataset = pydicom.dcmread(item.frame.path)
                frames = np.atleast_3d(dataset.pixel_array)
            expected = frames[item.frame.index] if "NumberOfFrames" in dataset else dataset.pixel_array
            assert np.array_equal(item.stored, expected), item.frame.path
            compared += 1
    assert compared > 190


def test_headers_agree_with_pydicom(reader: DicomReader) -> None:
    series = _all_series(reader.scan([shared_data("dicom", "philips_classic_sag")]))[0]
    for frame in series.frames:
        header = pydicom.dcmread(frame.path, stop_before_pixels=True)
        pose = frame.pose
        assert isinstance(pose, SlicePose)
        assert pose.origin == pytest.approx([float(x) for x in header.ImagePositionPatient])
        assert [pose.row_spacing, pose.column_spacing] == [float(x) for x in header.PixelSpacing]
        assert frame.slope == pytest.approx(float(header.RescaleSlope))
