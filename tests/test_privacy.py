"""Nothing that names a patient is written where it may not be: every output is searched for every tag.

A study has a string of its own in each attribute that can name somebody (see `marked_studies`). It is graded
with every format; all files and messages are searched. The negative twins plant leaks, which are found.
"""

from __future__ import annotations

import base64
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pydicom
import pytest
from leaks import Leak, leaks_in, leaks_in_bytes
from marked_studies import PATH_MARKER, Markers, filled_header, markable, spoil_values, write_marked_study
from time_limits import time_limit
from tiny_pack import write_tiny_pack

from stenosis_trt.engine.reports.formats import FORMATS

_SUPPORT = Path(__file__).parent / "support"
_PROGRAM = """
import sys
sys.path.insert(0, {support!r})
from dataclasses import replace
from marked_studies import filled_header, grade_marked_study
from stenosis_trt.engine.cli.app import main
from stenosis_trt.engine.runs import batch

def leaking(study, pack, backend):
    name = filled_header()[1].of("PatientName")
    return replace(grade_marked_study(study, pack, backend), warnings=(name,))

if __name__ == "__main__":
    # No network of a tiny pack finds anything in these images.
    batch.grade_paths.__defaults__ = ({grade},)
    main()
"""

IN_DERIVED_OBJECTS = {
    # Modules Patient and General Study: an object of a study has what its images have, or a PACS would file
    # it elsewhere (PS3.3, C.7.1.1 and C.7.2.1).
    *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate"),
    *("StudyDate", "StudyID", "StudyDescription", "AccessionNumber", "ReferringPhysicianName"),
}
"""Attributes of SR, secondary captures and presentation states that repeat those of the images."""

WITH_PATHS = ("errors.csv", "studies.csv", "results.jsonl", "studies/")
"""Files, or parts of their names, that name paths of the input unless --no-paths is given."""
WITH_IDENTIFIER = (
    *("results.csv", "results.jsonl", "results.parquet", "studies/"),
    *("report.txt", "report.html", "html.json"),
)
"""Files that have the PatientID with --keep-identifiers."""


@dataclass(frozen=True)
class _Run:
    """A run of `grade` with every format: its output folder, messages, and the markers of the input."""

    out: Path
    messages: str
    markers: Markers

    @cached_property
    def leaks(self) -> set[Leak]:
        """All markers that are found in the output folder."""
        return set(leaks_in(self.out, self.markers.places))

    def place(self, leak: Leak) -> str:
        return self.markers.places[leak.marker]


def _call(program: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(program), *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=time_limit(300), cwd=program.parent
    )


@pytest.fixture(scope="module")
def marked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Markers]:
    folder = tmp_path_factory.mktemp("marked")
    return folder, write_marked_study(folder)


def _program(folder: Path, grade: str = "grade_marked_study") -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / f"{grade}.py"
    path.write_text(_PROGRAM.format(support=str(_SUPPORT), grade=grade), encoding="utf-8")
    return path


def _graded(
    folder: Path, marked: tuple[Path, Markers], *options: str, grade: str = "grade_marked_study"
) -> _Run:
    pack = write_tiny_pack(folder / "pack").path
    arguments = ("grade", marked[0], "--out", folder / "out", "--pack", pack, "--device", "cpu")
    answer = _call(_program(folder, grade), *arguments, "--format", ",".join(FORMATS), *options)
    # The study that cannot be graded.
    assert answer.returncode == 1, answer.stderr
    assert "1 of 2 studies graded, 1 could not be graded" in answer.stderr
    return _Run(folder / "out", answer.stdout + answer.stderr, marked[1])


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory, marked: tuple[Path, Markers]) -> _Run:
    return _graded(tmp_path_factory.mktemp("usual"), marked)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory, marked: tuple[Path, Markers]) -> _Run:
    return _graded(tmp_path_factory.mktemp("kept"), marked, "--keep-identifiers", "--no-paths")


def _is_named(file: str, names: Iterable[str]) -> bool:
    return any(
        file == name or (name.endswith("/") and file.startswith(name)) or file.endswith(f"/{name}")
        for name in names
    )


def _outside_derived_objects(run: _Run) -> set[Leak]:
    return {leak for leak in run.leaks if not leak.file.endswith(".dcm")}


def test_the_marked_study_fills_the_tags_that_can_name_a_patient() -> None:
    header, markers = filled_header()
    assert len(markable()) > 500
    keywords = {keyword for _, keyword, _ in markable()}
    assert {
        *("PatientName", "PatientID", "PatientBirthDate", "OtherPatientIDs", "OtherPatientNames"),
        *("PatientAddress", "PatientMotherBirthName", "PatientTelephoneNumbers", "MedicalRecordLocator"),
        *(
            "ReferringPhysicianName",
            "PerformingPhysicianName",
            "OperatorsName",
            "NameOfPhysiciansReadingStudy",
        ),
        *("InstitutionName", "InstitutionAddress", "StationName", "AccessionNumber", "StudyID", "StudyDate"),
        *("PatientComments", "ImageComments", "StudyDescription", "DeviceSerialNumber", "ResponsiblePerson"),
    } <= keywords
    assert len(set(markers.places)) == len(markers.places)
    assert header.OtherPatientIDsSequence[0].RequestAttributesSequence[0].PatientName
    assert any(element.tag.is_private for element in header)


def test_every_format_was_written(usual: _Run) -> None:
    endings = {path.suffix for path in usual.out.rglob("*") if path.is_file()}
    assert {".csv", ".jsonl", ".json", ".html", ".png", ".dcm", ".txt", ".parquet"} <= endings
    names = {
        path.parent.name if path.parent.name in ("sc", "gsps") else path.name
        for path in usual.out.rglob("*.dcm")
    }
    assert names == {"sc", "gsps", "sr_axial.dcm", "sr_sagittal.dcm"}


def test_only_paths_of_the_input_are_written_and_only_where_they_belong(usual: _Run) -> None:
    found = _outside_derived_objects(usual)
    assert {usual.place(leak) for leak in found} == {"path"}
    assert {leak for leak in found if not _is_named(leak.file, WITH_PATHS)} == set()
    assert {leak for leak in usual.leaks if leak.part == "file name"} == set()


def test_dicom_objects_repeat_patient_and_study_in_their_attributes_alone(usual: _Run, kept: _Run) -> None:
    for run in (usual, kept):
        found = {leak for leak in run.leaks if leak.file.endswith(".dcm")}
        assert {(leak.part, run.place(leak)) for leak in found} == {
            (name, name) for name in IN_DERIVED_OBJECTS
        }


def test_with_no_paths_no_path_of_the_input_is_written_or_printed(kept: _Run) -> None:
    assert [leak for leak in kept.leaks if kept.place(leak) == "path"] == []
    assert PATH_MARKER.casefold() not in kept.messages.casefold()


def test_with_keep_identifiers_the_patient_id_and_nothing_else_is_in_the_results(kept: _Run) -> None:
    found = _outside_derived_objects(kept)
    assert {kept.place(leak) for leak in found} == {"PatientID"}
    assert {leak for leak in found if not _is_named(leak.file, WITH_IDENTIFIER)} == set()
    for name in ("results.csv", "results.jsonl", "results.parquet"):
        assert any(leak.file == name for leak in found), name


def test_messages_name_no_patient(usual: _Run, kept: _Run) -> None:
    for run in (usual, kept):
        found = leaks_in_bytes(run.messages.encode(), run.markers.places)
        assert {run.markers.places[marker] for marker, _ in found} <= {"path"}


@pytest.mark.slow
def test_reports_of_an_earlier_run_name_nobody_either(usual: _Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(usual.out, out)
    answer = _call(_program(tmp_path), "report", out, "--format", "html,text,sr", "--sr-for", "slicer")
    assert answer.returncode == 0, answer.stderr
    run = _Run(out, answer.stdout + answer.stderr, usual.markers)
    found = _outside_derived_objects(run)
    assert {run.place(leak) for leak in found} == {"path"}
    assert {leak for leak in found if not _is_named(leak.file, WITH_PATHS)} == set()
    objects = {leak for leak in run.leaks if leak.file.endswith(".dcm")}
    assert {(leak.part, run.place(leak)) for leak in objects} == {(name, name) for name in IN_DERIVED_OBJECTS}
    assert leaks_in_bytes(run.messages.encode(), run.markers.places) <= {(PATH_MARKER, "content")}


@pytest.mark.slow
def test_values_that_are_not_valid_are_quoted_nowhere(tmp_path: Path) -> None:
    """Libraries that decode and check headers warn of such values, and would print them."""
    markers = write_marked_study(tmp_path / "in")
    spoil_values(tmp_path / "in", markers)
    run = _graded(tmp_path, (tmp_path / "in", markers), "--no-paths")
    assert leaks_in_bytes(run.messages.encode(), markers.places) == set()
    assert "Warning" not in run.messages
    assert _outside_derived_objects(run) == set()
    for leak in run.leaks:
        assert markers.places[leak.marker].removeprefix("not valid ") == leak.part


@pytest.mark.parametrize("options", [(), ("--json",), ("--files",)])
@pytest.mark.parametrize("no_paths", [False, True])
def test_inspect_shows_descriptions_and_paths_alone(
    marked: tuple[Path, Markers], tmp_path: Path, options: tuple[str, ...], no_paths: bool
) -> None:
    """A series description is how a person tells series apart; --files is there to look a path up."""
    folder, markers = marked
    hidden = ("--no-paths",) if no_paths else ()
    answer = _call(_program(tmp_path), "inspect", folder, *options, *hidden)
    assert answer.stdout
    found = leaks_in_bytes((answer.stdout + answer.stderr).encode(), markers.places)
    allowed = set() if no_paths and "--files" not in options else {"path"}
    described = set() if "--files" in options else {"SeriesDescription"}
    assert {markers.places[marker] for marker, _ in found} <= allowed | described
    assert ("path" in {markers.places[marker] for marker, _ in found}) == bool(allowed)


def test_doctor_names_no_patient(marked: tuple[Path, Markers], tmp_path: Path) -> None:
    place = next(marked[0].glob("*_Mr"))
    environment = {**os.environ, "PWD": str(place)}
    program = _program(tmp_path)
    for options in ((), ("--json",)):
        answer = subprocess.run(
            [sys.executable, str(program), "doctor", *options],
            capture_output=True,
            text=True,
            cwd=place,
            env=environment,
            timeout=time_limit(120),
        )
        assert answer.returncode == 0, answer.stderr
        assert leaks_in_bytes((answer.stdout + answer.stderr).encode(), marked[1].places) == set()


# Negative twins.


@pytest.mark.slow
def test_a_leak_of_the_program_is_found_in_every_format_that_has_words(
    tmp_path: Path, marked: tuple[Path, Markers]
) -> None:
    run = _graded(tmp_path, marked, "--no-paths", grade="leaking")
    name = run.markers.of("PatientName")
    found = {leak for leak in run.leaks if leak.marker == name and leak.part != "PatientName"}
    files = {leak.file for leak in found}
    for kind in (
        "results.csv",
        "results.jsonl",
        "results.parquet",
        "report.html",
        "report.txt",
        "sr_axial.dcm",
    ):
        assert any(file.endswith(kind) for file in files), kind
    assert name in run.messages


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png(marker: str, kind: bytes) -> bytes:
    text = marker.encode()
    data = {
        b"tEXt": b"Comment\0" + text,
        b"zTXt": b"Comment\0\0" + zlib.compress(text),
        b"iTXt": b"Comment\0\1\0en\0Kommentar\0" + zlib.compress(text),
    }[kind]
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", bytes(13)) + _chunk(kind, data) + _chunk(b"IEND", b"")


def _dicom(path: Path, change: Callable[[pydicom.Dataset], object]) -> bytes:
    dataset = pydicom.dcmread(path)
    change(dataset)
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _parquet(path: Path, marker: str, in_metadata: bool) -> bytes:
    table = pyarrow.parquet.read_table(path)
    if in_metadata:
        table = table.replace_schema_metadata({"made of": marker})
    else:
        place = table.column_names.index("warnings")
        column = pyarrow.array([[marker]] * table.num_rows)
        table = table.set_column(place, "warnings", column)
    stream = io.BytesIO()
    pyarrow.parquet.write_table(table, stream, compression="zstd")
    return stream.getvalue()


def _zip(name: str, content: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, content)
    return stream.getvalue()


def test_a_leak_that_is_planted_in_a_file_of_any_kind_is_found(usual: _Run) -> None:
    marker, day = usual.markers.of("PatientName"), usual.markers.of("PatientBirthDate")
    escaped = "".join(f"\\u{ord(letter):04x}" for letter in marker)
    (reports,) = [path for path in (usual.out / "reports").iterdir() if path.is_dir()]
    capture, state = reports / "sc/001_summary.dcm", reports / "gsps/001_sagittal.dcm"
    page = (usual.out / "report.html").read_bytes()
    planted: dict[str, bytes] = {
        "csv": (usual.out / "results.csv").read_bytes() + marker.lower().encode(),
        "date in csv": (usual.out / "results.csv").read_bytes() + f"{day[:4]}-{day[4:6]}-{day[6:]}".encode(),
        "json": json.dumps({"warnings": [marker]}).encode(),
        "escaped json": f'{{"warnings": ["{escaped}"]}}'.encode(),
        "html": page.replace(b"</body>", f"<p title='&#90;{marker[1:]}'></body>".encode()),
        "picture of html": page.replace(
            b"</body>", b"<img src='data:image/png;base64," + base64.b64encode(_png(marker, b"zTXt")) + b"'>"
        ),
        **{f"png {kind.decode()}": _png(marker, kind) for kind in (b"tEXt", b"zTXt", b"iTXt")},
        "parquet": _parquet(usual.out / "results.parquet", marker, in_metadata=False),
        "parquet metadata": _parquet(usual.out / "results.parquet", marker, in_metadata=True),
        "zip": _zip("a.csv", marker.encode()),
        "name in zip": _zip(f"{marker}.csv", b""),
        "comment of a capture": _dicom(capture, lambda found: setattr(found, "ImageComments", marker)),
        "description of a capture": _dicom(
            capture, lambda found: setattr(found, "SeriesDescription", f"Of {marker}")
        ),
        "private of a capture": _dicom(
            capture,
            lambda found: found.private_block(0x0011, "TEST", create=True).add_new(1, "OB", marker.encode()),
        ),
        "item of a state": _dicom(
            state,
            lambda found: setattr(
                found.GraphicAnnotationSequence[-1].TextObjectSequence[0], "UnformattedTextValue", marker
            ),
        ),
        "content of an SR": _dicom(
            reports / "sr_axial.dcm",
            lambda found: setattr(
                found.ContentSequence[-1].ContentSequence[-1], "TextValue", f"a\r\n{marker}"
            ),
        ),
        "meta of an SR": _dicom(
            reports / "sr_axial.dcm",
            lambda found: setattr(found.file_meta, "SourceApplicationEntityTitle", marker),
        ),
        "preamble": marker.encode().ljust(128, b"\0") + capture.read_bytes()[128:],
    }
    for kind, content in planted.items():
        found = {
            (name, part)
            for name, part in leaks_in_bytes(content, usual.markers.places)
            if part not in IN_DERIVED_OBJECTS and usual.markers.places[name] != "path"
        }
        expected = day if kind == "date in csv" else marker
        assert {name for name, _ in found} == {expected}, kind


def test_a_leak_in_a_file_name_is_found(tmp_path: Path) -> None:
    markers = filled_header()[1]
    name = markers.of("PatientName")
    (tmp_path / f"of_{name.lower()}").mkdir()
    (tmp_path / f"of_{name.lower()}" / "file").touch()
    assert {leak.marker for leak in leaks_in(tmp_path, markers.places)} == {name}
