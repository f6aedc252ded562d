"""Which studies the gate compares, and what its result says of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import shared_phantoms
from shared_data import shared_data

from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.records import LoadedStudy
from stenosis_trt.export.errors import StudiesError
from stenosis_trt.export.precision import studies as module
from stenosis_trt.export.precision.gate import Gate
from stenosis_trt.export.precision.gate_result import gate_report_lines
from stenosis_trt.export.precision.shares import with_int8_share
from stenosis_trt.export.precision.studies import (
    PhantomSet,
    StudyCollection,
    StudyCollections,
    ValidationOptions,
    cached_semisynthetic,
    loaded_studies,
    part_of,
)


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> StudyCollections:
    """One study, and an empty folder."""
    return StudyCollections(
        (
            StudyCollection(shared_phantoms.phantoms(1, 4711), "one phantom"),
            StudyCollection(tmp_path_factory.mktemp("empty"), "nothing", ("errsm_11", "errsm_18")),
        )
    )


def test_studies_of_all_folders_are_read_and_known_by_their_folder(both: StudyCollections) -> None:
    (study,) = loaded_studies(both, "")
    assert part_of(both.parts, study) is both.parts[0]
    assert part_of(both.parts[1:], study) is None
    assert both.source == "one phantom and nothing"


def test_the_result_says_what_was_compared_of_each_collection(
    pack: Pack, both: StudyCollections, studies: list[LoadedStudy]
) -> None:
    outcome = Gate.on(pack, both).measure({"int8": pack})["int8"]
    outcome = with_int8_share(outcome, {"levels": 1.0, "grader": 0.9933})
    record = outcome.to_dict()
    assert record["validated_on"] == "one phantom and nothing"
    assert record["compared"] == [
        {"source": "one phantom", "subjects": (), "studies": 1, "patients": 1, "levels": 6},
        {"source": "nothing", "subjects": ("errsm_11", "errsm_18"), "studies": 0, "patients": 0, "levels": 0},
    ]
    assert record["int8_share"] == {"levels": 1.0, "grader": 0.9933}
    lines = gate_report_lines(outcome)
    assert "  6 levels of one phantom" in lines
    assert "  multiply-adds in INT8: levels 100.0%, grader 99.3%" in lines
    assert with_int8_share(replace(outcome, precision="fp16", int8_share={}), {"cord": 1.0}).int8_share == {}


def test_without_folders_phantoms_are_compared_and_folders_take_their_place(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = StudyCollection(tmp_path, "made")
    monkeypatch.setattr(module, "cached_phantoms", lambda wanted: made)
    monkeypatch.setattr(module, "cached_semisynthetic", lambda wanted, volumes, subjects: made)
    assert ValidationOptions().resolve() == made
    folder = StudyCollection(tmp_path, "a folder of studies")
    assert ValidationOptions((tmp_path,)).resolve() == folder
    assert ValidationOptions((tmp_path, tmp_path)).resolve() == StudyCollections((folder, folder))
    assert ValidationOptions(volumes=tmp_path).resolve() == StudyCollections((made, made))


def test_subjects_without_volumes_and_volumes_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Give the folder of the volumes too"):
        ValidationOptions(subjects=("errsm_11",))
    with pytest.raises(StudiesError, match="There is no volume at"):
        cached_semisynthetic(PhantomSet(1, 1), tmp_path, cache=tmp_path / "cache")
    with pytest.raises(StudiesError, match="Subject nobody is not known"):
        cached_semisynthetic(PhantomSet(1, 1), tmp_path, ("nobody",), tmp_path / "cache")


@pytest.mark.slow
@pytest.mark.shared_data
def test_semisynthetic_studies_are_made_once_and_name_their_subjects(tmp_path: Path) -> None:
    volumes = shared_data("volumes")
    made = cached_semisynthetic(PhantomSet(1, 5), volumes, ("errsm_30",), tmp_path, workers=1)
    assert made.source == "1 semi-synthetic studies of errsm_30 (seed 5)"
    assert made.subjects == ("errsm_30",)
    (study,) = loaded_studies(made, "")
    assert study.sagittal_series.patient_id.startswith("SEMISYNTHETIC-errsm_30")
    before = {path: path.stat().st_mtime_ns for path in made.folder.rglob("*.dcm")}
    assert cached_semisynthetic(PhantomSet(1, 5), volumes, ("errsm_30",), tmp_path, workers=1) == made
    assert {path: path.stat().st_mtime_ns for path in made.folder.rglob("*.dcm")} == before
