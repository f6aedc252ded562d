"""Grouping of files into series: order by position, volumes, duplicates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from dicom_factory import AXIAL, CORONAL, SAGITTAL, dataset, enhanced, series, write
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from stenosis_trt.engine.dicom.reader import DicomReader
from stenosis_trt.engine.records import SeriesHeader


@pytest.fixture(scope="module")
def reader() -> Iterator[DicomReader]:
    with DicomReader() as opened:
        yield opened


def _scan(reader: DicomReader, folder: Path) -> list[SeriesHeader]:
    scan = reader.scan([folder])
    assert scan.problems == ()
    return [found for study in scan.studies for found in study.series]


def _along(found: SeriesHeader, axis: int) -> list[float]:
    return [frame.pose.origin[axis] for frame in found.frames if frame.pose is not None]


def _write(folder: Path, count: int, tags: Callable[[int], dict[str, object]]) -> None:
    for number in range(count):
        uid = generate_uid(entropy_srcs=[folder.name, str(number)])
        write(folder / f"{number:03d}.dcm", dataset(number, SOPInstanceUID=uid, **tags(number)))


def test_slices_are_ordered_by_position_not_instance_number(reader: DicomReader, tmp_path: Path) -> None:
    order = [4, 1, 3, 0, 2]

    def tags(number: int) -> dict[str, object]:
        return {"ImagePositionPatient": [3.3 * order[number], 0.0, 0.0], "InstanceNumber": number + 1}

    _write(tmp_path, 5, tags)
    (found,) = _scan(reader, tmp_path)
    assert _along(found, 0) == pytest.approx([0.0, 3.3, 6.6, 9.9, 13.2])


def test_slices_run_to_the_left_back_and_head_whichever_way_the_normal_points(
    reader: DicomReader, tmp_path: Path
) -> None:
    turned = {
        "sagittal": (0, [0.0, -1.0, 0.0, 0.0, 0.0, -1.0]),
        "coronal": (1, [-1.0, 0.0, 0.0, 0.0, 0.0, -1.0]),
        "axial": (2, [-1.0, 0.0, 0.0, 0.0, 1.0, 0.0]),
    }
    for name, plain in (("sagittal", SAGITTAL), ("coronal", CORONAL), ("axial", AXIAL)):
        axis, other = turned[name]
        for directions in (plain, other):
            folder = tmp_path / name / str(directions)

            def tags(
                number: int, axis: int = axis, directions: list[float] = directions
            ) -> dict[str, object]:
                position = [0.0, 0.0, 0.0]
                position[axis] = -4.0 * number
                return {"ImageOrientationPatient": directions, "ImagePositionPatient": position}

            _write(folder, 4, tags)
            (found,) = _scan(reader, folder)
            assert _along(found, axis) == [-12.0, -8.0, -4.0, 0.0]


def test_axial_packs_tilted_to_each_disc_stay_one_series(reader: DicomReader, tmp_path: Path) -> None:
    def tags(number: int) -> dict[str, object]:
        pack, place = divmod(number, 3)
        tilt = np.deg2rad(10.0 * (pack - 1))
        down = np.array([0.0, np.cos(tilt), np.sin(tilt)])
        normal = np.cross([1.0, 0.0, 0.0], down)
        middle = np.array([0.0, 0.0, 18.0 * pack]) + normal * 3.5 * (place - 1)
        corner = middle - np.array([102.0, 0.0, 0.0]) - down * 102.0
        return {
            "ImageOrientationPatient": [1.0, 0.0, 0.0, *(round(float(x), 6) for x in down)],
            "ImagePositionPatient": [round(float(x), 4) for x in corner],
            "AcquisitionNumber": pack + 1,
        }

    _write(tmp_path, 9, tags)
    (found,) = _scan(reader, tmp_path)
    centres = [float(frame.pose.centre[2]) for frame in found.frames if frame.pose is not None]
    assert len(centres) == 9
    assert centres == sorted(centres)


def test_a_three_plane_localizer_stays_one_series(reader: DicomReader, tmp_path: Path) -> None:
    planes = [SAGITTAL, CORONAL, AXIAL]
    _write(tmp_path, 3, lambda number: {"ImageOrientationPatient": planes[number]})
    (found,) = _scan(reader, tmp_path)
    assert {frame.pose.orientation for frame in found.frames if frame.pose} == {
        "sagittal",
        "coronal",
        "axial",
    }


def test_two_echoes_of_one_series_are_two_volumes_with_their_own_contrast(
    reader: DicomReader, tmp_path: Path
) -> None:
    def tags(number: int) -> dict[str, object]:
        return {
            "EchoTime": [12.0, 100.0][number % 2],
            "ImagePositionPatient": [3.3 * (number // 2), 0.0, 0.0],
        }

    _write(tmp_path, 12, tags)
    found = _scan(reader, tmp_path)
    assert sorted(item.contrast.echo_time_ms or 0 for item in found) == [12.0, 100.0]
    assert [len(item.frames) for item in found] == [6, 6]
    assert len({item.series_uid for item in found}) == 1


def test_magnitude_and_phase_are_two_volumes_with_their_own_image_type(
    reader: DicomReader, tmp_path: Path
) -> None:
    def tags(number: int) -> dict[str, object]:
        kind = "MP"[number // 5]
        # Rounding differs between the two: less than a twentieth of a millimetre is no other place.
        return {
            "ImageType": ["ORIGINAL", "PRIMARY", kind],
            "ImagePositionPatient": [3.3 * (number % 5) + 0.004 * (number // 5), 0.0, 0.0],
        }

    _write(tmp_path, 10, tags)
    found = _scan(reader, tmp_path)
    assert sorted(item.image_type[2] for item in found) == ["M", "P"]


def test_dynamics_without_distinguishing_attributes_are_separated_by_order(
    reader: DicomReader, tmp_path: Path
) -> None:
    _write(tmp_path, 12, lambda number: {"ImagePositionPatient": [3.3 * (number % 4), 0.0, 0.0]})
    found = _scan(reader, tmp_path)
    names = [{int(frame.path.stem) // 4 for frame in item.frames} for item in found]
    assert names == [{0}, {1}, {2}]


def test_dynamics_are_separated_by_their_times_not_file_names(reader: DicomReader, tmp_path: Path) -> None:
    """Every slice has a time of its own; the second reading came after the whole of the first."""

    def tags(number: int) -> dict[str, object]:
        place, reading = number // 2, number % 2
        second = 9 * reading + place
        return {
            "ImagePositionPatient": [3.3 * place, 0.0, 0.0],
            "AcquisitionDate": "20240131",
            "AcquisitionTime": f"1000{second:02d}.25",
        }

    _write(tmp_path, 12, tags)
    found = _scan(reader, tmp_path)
    assert [{int(frame.path.stem) % 2 for frame in item.frames} for item in found] == [{0}, {1}]
    assert [item.acquired for item in found] == [20240131100005.25, 20240131100014.25]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"AcquisitionDate": "20240131", "AcquisitionTime": "101112.5"}, 20240131101112.5),
        ({"SeriesDate": "20240131", "SeriesTime": "1011"}, 20240131101100.0),
        ({"AcquisitionDateTime": "20240131101112.5+0100"}, 20240131101112.5),
        ({"AcquisitionTime": "101112"}, 101112.0),
        ({"AcquisitionTime": "10:11:12", "AcquisitionDate": "2024.01.31"}, 20240131101112.0),
        ({}, None),
    ],
)
@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_a_series_knows_its_number_and_when_it_was_acquired(
    tags: dict[str, object], expected: float | None, reader: DicomReader, tmp_path: Path
) -> None:
    _write(tmp_path, 3, lambda number: {"SeriesNumber": 7, **tags})
    (found,) = _scan(reader, tmp_path)
    assert (found.series_number, found.acquired) == (7, expected)


def test_two_stations_in_one_series_are_two_volumes(reader: DicomReader, tmp_path: Path) -> None:
    """The upper and the lower half of a spine, in the same sagittal planes."""

    def tags(number: int) -> dict[str, object]:
        station, place = divmod(number, 6)
        return {"ImagePositionPatient": [3.3 * place, -100.0, 100.0 - 180.0 * station]}

    _write(tmp_path, 12, tags)
    found = _scan(reader, tmp_path)
    assert [len(item.frames) for item in found] == [6, 6]
    assert all(len(set(_along(item, 2))) == 1 for item in found)


def test_slices_acquired_twice_do_not_split_a_series(reader: DicomReader, tmp_path: Path) -> None:
    """Odd and even slices were two acquisitions, and one slice was repeated in a third."""

    def tags(number: int) -> dict[str, object]:
        place, acquisition = (number, 1 + number % 2) if number < 9 else (4, 3)
        return {"ImagePositionPatient": [3.3 * place, 0.0, 0.0], "AcquisitionNumber": acquisition}

    _write(tmp_path, 10, tags)
    found = _scan(reader, tmp_path)
    assert [len(item.frames) for item in found] == [9, 1]


def test_frames_of_an_enhanced_object_are_ordered_and_keep_their_index(
    reader: DicomReader, tmp_path: Path
) -> None:
    write(tmp_path / "enhanced.dcm", enhanced([6.6, 0.0, 9.9, 3.3]))
    (found,) = _scan(reader, tmp_path)
    assert [frame.index for frame in found.frames] == [1, 3, 0, 2]
    pose = found.frames[0].pose
    assert pose is not None
    assert (pose.row_spacing, pose.column_spacing, pose.thickness) == (0.7, 0.6, 3.0)
    assert found.contrast.repetition_time_ms == 3500.0
    assert found.contrast.echo_train_length == 17
    assert found.contrast.scanning_sequence == ("SE",)
    slices, problems = reader.load(found.frames)
    assert problems == ()
    assert [int(item.stored[0, 0]) for item in slices] == [1, 3, 0, 2]


@pytest.mark.parametrize(
    ("options", "suppressed"), [("FS", True), (["SP", "FS"], True), (["FC", "SP"], False), ("", False)]
)
def test_scan_options_say_whether_fat_is_suppressed(
    reader: DicomReader, tmp_path: Path, options: str | list[str], suppressed: bool
) -> None:
    series(tmp_path, change=lambda content, _: setattr(content, "ScanOptions", options))
    (found,) = _scan(reader, tmp_path)
    assert found.contrast.fat_suppressed is suppressed


@pytest.mark.parametrize(
    ("suppression", "excitation", "suppressed"),
    [
        ("FAT", "NONE", True),
        ("FAT_AND_WATER", "NONE", True),
        ("NONE", "WATER", True),
        ("WATER", "FAT", False),
        ("NONE", "NONE", False),
    ],
)
def test_an_enhanced_object_says_which_signal_is_suppressed_or_excited(
    reader: DicomReader, tmp_path: Path, suppression: str, excitation: str, suppressed: bool
) -> None:
    content, modifier = enhanced([0.0, 3.3, 6.6]), Dataset()
    content.SpectrallySelectedSuppression = suppression
    modifier.SpectrallySelectedExcitation = excitation
    content.SharedFunctionalGroupsSequence[0].MRModifierSequence = [modifier]
    write(tmp_path / "enhanced.dcm", content)
    (found,) = _scan(reader, tmp_path)
    assert found.contrast.fat_suppressed is suppressed


def test_echoes_within_an_enhanced_object_are_two_volumes(reader: DicomReader, tmp_path: Path) -> None:
    content = enhanced([0.0, 0.0, 3.3, 3.3])
    del content.SharedFunctionalGroupsSequence[0].MREchoSequence
    for number, groups in enumerate(content.PerFrameFunctionalGroupsSequence):
        echo = Dataset()
        echo.EffectiveEchoTime = [14.0, 98.0][number % 2]
        groups.MREchoSequence = [echo]
    write(tmp_path / "enhanced.dcm", content)
    found = _scan(reader, tmp_path)
    assert {item.contrast.echo_time_ms: [frame.index for frame in item.frames] for item in found} == {
        14.0: [0, 2],
        98.0: [1, 3],
    }


def test_another_frame_of_reference_is_another_volume(reader: DicomReader, tmp_path: Path) -> None:
    uids = [generate_uid(entropy_srcs=[name]) for name in ("one", "two")]
    _write(tmp_path, 6, lambda number: {"FrameOfReferenceUID": uids[number // 3]})
    found = _scan(reader, tmp_path)
    assert {item.frame_of_reference_uid for item in found} == set(uids)


def test_a_study_is_named_by_the_deepest_folder_that_holds_it(reader: DicomReader, tmp_path: Path) -> None:
    paths = series(tmp_path / "study" / "a", 2)
    (tmp_path / "study" / "b").mkdir()
    paths[1].rename(tmp_path / "study" / "b" / "x")
    assert reader.scan([tmp_path]).studies[0].path == str(tmp_path / "study")


def test_the_same_images_in_two_studies_belong_to_both(reader: DicomReader, tmp_path: Path) -> None:
    """A study that was sent again under a new UID, its images keeping theirs."""
    for study in ("one", "two"):
        uid = generate_uid(entropy_srcs=[study])
        for number in range(4):
            write(
                tmp_path / study / f"{number}",
                dataset(number, StudyInstanceUID=uid, SOPInstanceUID=f"1.{number}"),
            )
    assert [len(found.frames) for found in _scan(reader, tmp_path)] == [4, 4]


def test_equal_copies_are_dropped_silently(reader: DicomReader, tmp_path: Path) -> None:
    for path in series(tmp_path / "one", 4):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (found,) = _scan(reader, tmp_path)
    assert len(found.frames) == 4
