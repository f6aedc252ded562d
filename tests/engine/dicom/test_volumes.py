"""Splitting of a series into volumes: by plane, contrast and acquisition before position."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from dicom_factory import AXIAL, CORONAL, SAGITTAL, dataset, write
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import generate_uid

from stenosis_trt.engine.dicom.duplicates import Likeness, Pair
from stenosis_trt.engine.dicom.frames import VolumeKey
from stenosis_trt.engine.dicom.header import FileHeader, FoundFrame
from stenosis_trt.engine.dicom.patient_identity import PatientIdentity
from stenosis_trt.engine.dicom.reader import DicomReader
from stenosis_trt.engine.dicom.series import build_studies
from stenosis_trt.engine.geometry import SlicePose
from stenosis_trt.engine.records import Contrast, FrameHeader, SeriesHeader
from stenosis_trt.engine.selection.eligibility import check_series

T1 = {"EchoTime": 9.5, "RepetitionTime": 600.0}


@pytest.fixture(scope="module")
def reader() -> Iterator[DicomReader]:
    with DicomReader() as opened:
        yield opened


Tags = Callable[[int], dict[str, object]]


def _slices(folder: Path, count: int, tags: Tags) -> None:
    for number in range(count):
        uid = generate_uid(entropy_srcs=[str(folder), str(number)])
        content = dataset(number, SOPInstanceUID=uid, **tags(number))
        write(folder / f"{number:03d}.dcm", content)


def _two(folder: Path, aside: float, change: Tags, count: int = 12) -> None:
    """Two stacks of one series, 3.3 mm from slice to slice; the second one `aside` mm of the first."""

    def second(number: int) -> dict[str, object]:
        return {"ImagePositionPatient": [-15.0 + 3.3 * number + aside, -100.0, 100.0], **change(number)}

    _slices(folder / "1", count, lambda number: {})
    _slices(folder / "2", count, second)


def _found(reader: DicomReader, folder: Path) -> list[SeriesHeader]:
    scan = reader.scan([folder])
    assert scan.problems == ()
    return [series for study in scan.studies for series in study.series]


def _folders(series: SeriesHeader) -> set[str]:
    return {frame.path.parent.name for frame in series.frames}


@pytest.mark.parametrize("aside", [0.36, 1.0, 1.65, 2.94, 40.0])
@pytest.mark.parametrize(
    "change",
    [
        T1,
        {"InversionTime": 160.0},
        {"ScanningSequence": ["SE", "IR"]},
        {"ImageType": ["DERIVED", "PRIMARY", "M"]},
        {"SeriesNumber": 9},
        {"SeriesDescription": "t1_tse_sag"},
    ],
)
def test_two_contrasts_of_one_series_are_two_volumes_wherever_they_lie(
    change: dict[str, object], aside: float, reader: DicomReader, tmp_path: Path
) -> None:
    _two(tmp_path, aside, lambda number: change)
    found = _found(reader, tmp_path)
    assert sorted((len(series.frames), *_folders(series), series.defect) for series in found) == [
        (12, "1", ""),
        (12, "2", ""),
    ]


@pytest.mark.parametrize("aside", [0.36, 1.2, 1.65, 2.94])
@pytest.mark.parametrize(
    "change",
    [
        lambda number: {"AcquisitionNumber": 3},
        lambda number: {"AcquisitionNumber": 3 + number % 2},
        lambda number: {"TemporalPositionIdentifier": 2},
        lambda number: {"AcquisitionTime": "120500"},
        lambda number: {"AcquisitionTime": f"1205{number:02d}"},
        lambda number: {"EchoTime": 102.0},
        lambda number: {"PixelSpacing": [0.7, 0.7]},
        lambda number: {"SliceThickness": 3.1},
    ],
)
def test_interleaved_acquisitions_are_separated_by_any_attribute(
    change: Tags, aside: float, reader: DicomReader, tmp_path: Path
) -> None:
    _two(tmp_path, aside, lambda number: {"AcquisitionTime": "120000", **change(number)})
    for path in sorted((tmp_path / "1").iterdir()):
        number = int(path.stem)
        tags = {"AcquisitionNumber": 1 + number % 2, "AcquisitionTime": f"1200{number:02d}"}
        write(path, dataset(number, SOPInstanceUID=f"1.2.1.{number}", **tags))
    found = _found(reader, tmp_path)
    assert sorted((len(series.frames), *_folders(series), series.defect) for series in found) == [
        (12, "1", ""),
        (12, "2", ""),
    ]


def test_a_stack_that_was_planned_again_with_another_tilt_is_a_volume_of_its_own(
    reader: DicomReader, tmp_path: Path
) -> None:
    tilt = np.deg2rad(3.0)
    axes = [-float(np.sin(tilt)), float(np.cos(tilt)), 0.0, 0.0, 0.0, -1.0]
    _two(tmp_path, 1.2, lambda number: {"ImageOrientationPatient": [round(x, 6) for x in axes]})
    assert sorted(len(series.frames) for series in _found(reader, tmp_path)) == [12, 12]


@pytest.mark.parametrize("aside", [0.36, 1.2, 1.65, 2.94])
def test_interleaved_stacks_without_distinguishing_attributes_are_refused_with_that_reason(
    aside: float, reader: DicomReader, tmp_path: Path
) -> None:
    _two(tmp_path, aside, lambda number: {})
    for path in tmp_path.rglob("*.dcm"):
        content = dataset(int(path.stem), SOPInstanceUID=f"1.2.{path.parent.name}.{path.stem}")
        content.MRAcquisitionType = "2D"
        if path.parent.name == "2":
            content.ImagePositionPatient[0] += aside
        write(path, content)
    (found,) = _found(reader, tmp_path)
    eligibility = check_series(found)
    assert (eligibility.role, eligibility.reason) == ("", found.defect)
    assert "two acquisitions are interleaved, and no attribute separates them" in eligibility.reason
    assert f"{min(aside, 3.3 - aside):.2f}" in eligibility.reason


def _plane(axes: list[float], axis: int) -> Tags:
    def tags(number: int) -> dict[str, object]:
        position = [-100.0, -100.0, 100.0]
        position[axis] = -15.0 + 3.3 * number
        return {"ImageOrientationPatient": axes, "ImagePositionPatient": position}

    return tags


@pytest.mark.parametrize(("axes", "axis"), [(CORONAL, 1), (AXIAL, 2)])
def test_stacks_in_two_planes_are_two_volumes(
    axes: list[float], axis: int, reader: DicomReader, tmp_path: Path
) -> None:
    _slices(tmp_path / "1", 12, _plane(SAGITTAL, 0))
    _slices(tmp_path / "2", 9, _plane(axes, axis))
    assert sorted(len(series.frames) for series in _found(reader, tmp_path)) == [9, 12]


def test_a_localizer_of_three_planes_stays_one_series_and_three_series_with_one_uid_do_not(
    reader: DicomReader, tmp_path: Path
) -> None:
    def localizer(name: str, spacing: float) -> list[SeriesHeader]:
        folder = tmp_path / name
        for number, plane in enumerate((_plane(SAGITTAL, 0), _plane(CORONAL, 1), _plane(AXIAL, 2))):
            wide = [0.8 + spacing * number] * 2

            def tags(k: int, plane: Tags = plane, wide: list[float] = wide) -> dict[str, object]:
                return {**plane(k), "PixelSpacing": wide}

            _slices(folder / str(number), 7, tags)
        return _found(reader, folder)

    assert [len(series.frames) for series in localizer("localizer", 0.0)] == [21]
    assert [len(series.frames) for series in localizer("three", 0.1)] == [7, 7, 7]


@pytest.mark.parametrize(
    "tags",
    [
        lambda number: {"AcquisitionNumber": 1 + number % 2},
        lambda number: {"AcquisitionNumber": 1 + number // 4},
        lambda number: {"AcquisitionTime": f"1200{number % 2}{number // 2}"},
        lambda number: {"ImageType": ["ORIGINAL", "PRIMARY", "M", *["NORM"][: number == 4]]},
        lambda number: {"EchoTime": 100.0 + 0.3 * (number % 2)},
        lambda number: {"RepetitionTime": [3000.0, 3400.0, 2900.0][number % 3]},
        lambda number: {"SeriesDescription": "t2_tse_sag" if number else "t2 tse sag"},
        lambda number: {"ImageOrientationPatient": [0.0001 * (number % 2), 1.0, 0.0, 0.0, 0.0, -1.0]},
        lambda number: {"SliceThickness": 3.0 + 0.0001 * (number % 2)},
        lambda number: {"ImagePositionPatient": [round(3.3 * number, 2 - number % 2), -100.0, 100.0]},
        lambda number: {"ImagePositionPatient": [3.3 * number + 3.3 * (number > 4), -100.0, 100.0]},
        lambda number: {"ImagePositionPatient": [1.5 * number, -100.0, 100.0], "MRAcquisitionType": "3D"},
        lambda number: {"ImagePositionPatient": [2.0 * number, -100.0, 100.0]},
    ],
)
def test_variations_within_one_acquisition_do_not_split_it(
    tags: Tags, reader: DicomReader, tmp_path: Path
) -> None:
    _slices(tmp_path, 12, tags)
    (found,) = _found(reader, tmp_path)
    assert (len(found.frames), found.defect) == (12, "")


@pytest.mark.parametrize("pack", [2, 3, 4])
def test_parallel_axial_packs_stay_one_series_also_where_their_ends_overlap(
    pack: int, reader: DicomReader, tmp_path: Path
) -> None:
    for distance in (16.0, 3.5 * (pack - 1) + 1.2):

        def tags(number: int, distance: float = distance) -> dict[str, object]:
            place = distance * (number // pack) + 3.5 * (number % pack)
            return {
                "ImageOrientationPatient": AXIAL,
                "ImagePositionPatient": [-100.0, -100.0, place],
                "AcquisitionNumber": 1 + number // pack,
            }

        if pack > 2 or distance == 16.0:
            _slices(tmp_path / f"{distance:.0f}", 5 * pack, tags)
            (found,) = _found(reader, tmp_path / f"{distance:.0f}")
            assert (len(found.frames), found.defect) == (5 * pack, "")


def test_slices_with_a_series_uid_each_are_joined_where_they_agree_in_all_else(
    reader: DicomReader, tmp_path: Path
) -> None:
    _slices(tmp_path, 9, lambda number: {"SeriesInstanceUID": f"1.9.{number}", "SeriesNumber": 4})
    (study,) = reader.scan([tmp_path]).studies
    assert study.warnings == ("series_uid_per_slice",)
    assert [len(series.frames) for series in study.series] == [9]


@pytest.mark.parametrize(
    ("tags", "reason"),
    [
        (
            lambda number: {"FrameOfReferenceUID": f"1.8.{number}"},
            "each of 9 images like it has a Series Instance UID of its own, and a Frame of Reference UID too",
        ),
        (
            lambda number: {"ImagePositionPatient": [3.3 * (number // 2), 0.0, 0.0]},
            "several share a position",
        ),
        (lambda number: {"SeriesDescription": ""}, "neither series number nor description"),
    ],
)
def test_slices_with_a_series_uid_each_that_cannot_be_joined_say_why(
    tags: Tags, reason: str, reader: DicomReader, tmp_path: Path
) -> None:
    _slices(tmp_path, 9, lambda number: {"SeriesInstanceUID": f"1.9.{number}", **tags(number)})
    (study,) = reader.scan([tmp_path]).studies
    assert study.warnings == ()
    assert len(study.series) == 9
    assert all(reason in check_series(series).reason for series in study.series)


def test_images_in_other_places_with_one_sop_uid_are_all_kept_and_the_study_says_so(
    reader: DicomReader, tmp_path: Path
) -> None:
    for number in range(9):
        write(tmp_path / f"{number}.dcm", dataset(number, SOPInstanceUID="1.2.3"))
    scan = reader.scan([tmp_path])
    assert scan.problems == ()
    assert scan.studies[0].warnings == ("sop_uid_shared",)
    assert [len(series.frames) for series in scan.studies[0].series] == [9]


_PLANES = [
    ((0.0, 1.0, 0.0), (0.0, 0.0, -1.0)),
    ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0)),
    ((1.0, 0.0, 0.0), (0.0, 0.0, -1.0)),
]


@st.composite
def _files(draw: st.DrawFn) -> list[FileHeader]:
    """Files of one study that differ in whatever tells volumes and patients apart."""
    pick = st.sampled_from
    headers = []
    for number in range(draw(st.integers(1, 40))):
        frames = []
        for index in range(draw(pick([1, 1, 1, 3]))):
            row, column = draw(pick(_PLANES))
            place = draw(st.floats(-30, 30)) if draw(st.booleans()) else 3.3 * draw(st.integers(-5, 5))
            normal = np.cross(row, column) * place
            pose = SlicePose(
                (normal[0], normal[1], normal[2]), row, column, 0.8, 0.8, 256, 256, draw(pick([3.0, None]))
            )
            echo = draw(pick([100.0, 9.5, None]))
            contrast = Contrast(echo_time_ms=echo, repetition_time_ms=draw(pick([3000.0, 600.0, None])))
            kind = draw(pick([("ORIGINAL", "PRIMARY", "M"), ("DERIVED",)]))
            key = VolumeKey(
                echo,
                kind,
                None,
                None,
                None,
                None,
                draw(pick([1.0, 2.0, None])),
                "",
                draw(pick([1.0, 60.0, None])),
            )
            header = FrameHeader(
                Path(f"/in/{draw(pick('ab'))}/{number}"), index, f"1.{draw(st.integers(0, 60))}", pose
            )
            frames.append(FoundFrame(header, key, contrast))
        identity = draw(
            pick(
                [
                    PatientIdentity(b"1", b"", (b"", b"", b""), b""),
                    PatientIdentity(b"", b"", (b"n", b"", b""), b""),
                    PatientIdentity(b"", b"", (b"", b"", b""), b""),
                ]
            )
        )
        headers.append(
            FileHeader(
                study_uid="1.2",
                series_uid=draw(pick(["1.3", "1.4", f"1.5.{number}"])),
                sop_instance_uid=f"1.6.{number}",
                modality="MR",
                sop_class_uid="",
                path=Path(f"/in/{number % 2}/{number}"),
                frames=tuple(frames),
                frame_of_reference_uid=draw(pick(["", "1.7"])),
                description="",
                protocol="",
                body_part="",
                acquisition_3d=draw(st.booleans()),
                acquisition_2d=False,
                manufacturer="",
                patient_id="",
                patient=identity,
                series_number=draw(pick([None, 1, 2])),
            )
        )
    return headers


def _differ(pairs: Sequence[Pair]) -> list[Likeness]:
    """No two of these files hold the same image."""
    return [Likeness.DIFFERENT] * len(pairs)


@settings(deadline=None, max_examples=25)
@given(_files())
def test_every_frame_is_in_exactly_one_volume_of_one_study(headers: list[FileHeader]) -> None:
    studies, problems = build_studies(headers, _differ)
    assert problems == ()
    given_frames = Counter(id(frame.header) for header in headers for frame in header.frames)
    found = Counter(id(frame) for study in studies for series in study.series for frame in series.frames)
    assert found == given_frames
    assert len({study.key for study in studies}) == len(studies)
    for study in studies:
        assert all(series.frames for series in study.series)


@settings(deadline=None, max_examples=12)
@given(_files(), st.randoms(use_true_random=False))
def test_the_order_of_files_does_not_change_the_result(headers: list[FileHeader], random: object) -> None:
    shuffled = list(headers)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    first, second = build_studies(headers, _differ)[0], build_studies(shuffled, _differ)[0]

    def named(studies: object) -> list[tuple[str, str, tuple[str, ...], set[Path]]]:
        return [
            (study.key, study.path, study.warnings, {f.path for s in study.series for f in s.frames})
            for study in studies  # type: ignore[attr-defined]
        ]

    assert named(first) == named(second)
