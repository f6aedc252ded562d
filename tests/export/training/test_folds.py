"""Training sets of folds, and evaluation on the left-out subject."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from stenosis_trt.bench.accuracy.compare import LevelPair
from stenosis_trt.bench.accuracy.real_anatomy import CroppedField, LevelAccuracy, SubjectAccuracy
from stenosis_trt.export.training.folds import FoldResult, calibrate, fold_figures
from stenosis_trt.export.training.recipe import REFERENCE_RECIPE, TRAINING_SEED, VALIDATION_SEED
from stenosis_trt.export.training.sets import StudyFolder, training_set, validation_set


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> StudyFolder:
    """A work folder in which everything has been rendered, and volumes that nobody needs to read."""
    work, volumes = tmp_path_factory.mktemp("work"), tmp_path_factory.mktemp("volumes")
    (work / "rendered").mkdir()
    stages = (REFERENCE_RECIPE.phantoms_only, REFERENCE_RECIPE.varied_phantoms, REFERENCE_RECIPE.mixed)
    for name in (*REFERENCE_RECIPE.subjects, REFERENCE_RECIPE.template, "phantom"):
        for stage in stages:
            rendered = f"{name}-varied" if stage.varied else name
            for seed in (TRAINING_SEED, VALIDATION_SEED):
                for index in range(max(stage.phantoms if name == "phantom" else stage.anatomies, 20)):
                    (work / "rendered" / f"{rendered}-{seed}-{index:05d}.npz").touch()
        place = volumes / name
        place.mkdir()
        (place / ("PAM50_small_t2.nii.gz" if name == REFERENCE_RECIPE.template else "t2.nii.gz")).touch()
    return StudyFolder(work, volumes, workers=1)


def _subjects(paths: list[Path]) -> set[str]:
    return {path.name.split("-")[0] for path in paths}


@pytest.mark.parametrize("left_out", REFERENCE_RECIPE.subjects)
def test_a_subject_that_is_left_out_is_neither_learnt_from_nor_asked(
    folder: StudyFolder, left_out: str
) -> None:
    others = {*REFERENCE_RECIPE.subjects} - {left_out}
    for network in ("levels", "cord", "grader"):
        learnt = training_set(folder, REFERENCE_RECIPE, REFERENCE_RECIPE.mixed, network, left_out).paths
        assert _subjects(learnt) == {"phantom", REFERENCE_RECIPE.template, *others}
        assert all(f"-{TRAINING_SEED}-" in path.name for path in learnt)
    judges = validation_set(folder, REFERENCE_RECIPE, REFERENCE_RECIPE.mixed, left_out).paths
    assert _subjects(judges) == {"phantom", *others}
    assert all(f"-{VALIDATION_SEED}-" in path.name for path in judges)


def test_the_first_stage_knows_phantoms_alone(folder: StudyFolder) -> None:
    stage = REFERENCE_RECIPE.phantoms_only
    assert _subjects(training_set(folder, REFERENCE_RECIPE, stage, "grader", None).paths) == {"phantom"}
    assert _subjects(validation_set(folder, REFERENCE_RECIPE, stage, None).paths) == {"phantom"}


def test_real_anatomies_without_volumes_are_refused_with_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="Give --volumes"):
        StudyFolder(tmp_path, None, 1).anatomies("errsm_20", TRAINING_SEED, 1)


def _fold(subject: str, sharpness: float, seed: int) -> FoldResult:
    """A grader whose most likely grade is right in seven of ten cases, and that is `sharpness` sure of it."""
    rng = np.random.default_rng(seed)
    grades = rng.integers(0, 4, 400)
    told = np.where(rng.random(400) < 0.7, grades, rng.integers(0, 4, 400))
    odds = np.ones((400, 4))
    odds[np.arange(400), told] = np.exp(sharpness)
    acquired = SubjectAccuracy(
        subject,
        "",
        (LevelAccuracy("C2/3", 1.5, 0, ()), LevelAccuracy("C3/4", None, None, ("level_not_found",))),
        0,
        None,
        None,
    )
    pairs = tuple(
        LevelPair(f"{subject}-{k}", "C2/3", int(a), int(b), 0.5, 0.45, 0.52, 1.0)
        for k, (a, b) in enumerate(zip(grades, told, strict=True))
    )
    probabilities = odds / odds.sum(axis=1, keepdims=True)
    short = CroppedField(subject, ("C2/3", "C3/4"), True, 1, 1, 0, True)
    return FoldResult(subject, acquired, (short,), pairs, probabilities, grades, np.arange(400) // 6)


def test_a_grader_that_is_too_sure_is_calibrated_by_those_it_has_not_seen() -> None:
    found = calibrate([_fold("a", 12.0, 1), _fold("b", 12.0, 2)])
    assert found.temperature == found.fitted > 3.0
    assert found.error_before > 0.15
    assert found.error_after < 0.05


def test_a_temperature_that_makes_the_rest_no_better_is_not_used() -> None:
    """The studies that it is fitted to are too sure; the others are not."""
    sure, right = _fold("a", 12.0, 1), _fold("b", 2.0, 2)
    even = sure.studies % 2 == 0
    mixed = replace(
        sure,
        probabilities=np.concatenate([sure.probabilities[even], right.probabilities[~even]]),
        grades=np.concatenate([sure.grades[even], right.grades[~even]]),
        studies=np.concatenate([sure.studies[even], right.studies[~even]]),
    )
    found = calibrate([mixed])
    assert found.fitted > 3.0
    assert found.error_after > found.error_before
    assert found.temperature == 1.0


def test_the_figures_hold_every_subject_and_count_a_level_that_was_not_found() -> None:
    found = fold_figures([_fold("a", 3.0, 1), _fold("b", 3.0, 2)])
    assert found["left_out_subjects"] == ["a", "b"]
    assert (found["as_acquired"]["levels_found"], found["as_acquired"]["levels_judged"]) == (2, 10)
    assert found["as_acquired"]["largest_mm"] == 1.5
    assert [item["subject"] for item in found["as_acquired"]["short_fields"]] == ["a", "b"]
    assert found["made_stenoses"]["levels"] == 800
    assert set(found["made_stenoses_by_subject"]) == {"a", "b"}
    assert found["made_stenoses"]["ratio_bias"] == pytest.approx(0.02)
    assert found["made_stenoses"]["narrowest_ratio_bias"] == pytest.approx(0.07)
