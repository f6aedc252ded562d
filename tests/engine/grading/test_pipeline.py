"""The whole pipe, on real ONNX Runtime, with models whose answers the test draws into the images."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from made_study import made_study, noise, noise_above_grey
from tiny_pack import write_tiny_pack

from stenosis_trt.engine.backends.cpu.backend import CpuBackend
from stenosis_trt.engine.backends.stepwise import StepwiseBackend
from stenosis_trt.engine.errors import CannotGrade, PackError
from stenosis_trt.engine.grading.pipeline import grade_study
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.records import LANDMARKS, LEVELS, LoadedStudy, Stage


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    return write_tiny_pack(tmp_path_factory.mktemp("pack") / "tiny")


@pytest.fixture(scope="module")
def backend(pack: Pack) -> Iterator[CpuBackend]:
    opened = CpuBackend(pack, threads=1)
    yield opened
    opened.close()


class _Known(StepwiseBackend):
    """The real backend, except that it is told where the levels and the cord are."""

    name = "known"
    # Its keypoints are those of a whole stack.
    locates_in_parts = False

    def __init__(self, inner: CpuBackend) -> None:
        super().__init__(inner.pack)
        self.inner = inner
        self.batches: dict[str, int] = {}
        self.calls: list[str] = []

    def preprocess(self, slices, rois, spec):  # type: ignore[no-untyped-def]
        return self.inner.preprocess(slices, rois, spec)

    def infer(self, model, batch):  # type: ignore[no-untyped-def]
        self.calls.append(model)
        self.batches[model] = len(batch)
        if model == "grader":
            return self.inner.infer(model, batch)
        return model

    def decode_peaks(self, heatmaps):  # type: ignore[no-untyped-def]
        """Each map has one peak."""
        return self.decode(heatmaps)[:, :, None]

    def support(self, heatmaps):  # type: ignore[no-untyped-def]
        """Each map is high at its own peak alone."""
        heights = self.decode(heatmaps)[:, :, 2:]
        return heights * np.eye(heights.shape[1], dtype=np.float32)

    def decode(self, heatmaps):  # type: ignore[no-untyped-def]
        count = self.batches[heatmaps]
        if heatmaps == "levels":
            decoded = np.zeros((count, 6, 3), np.float32)
            decoded[:, :, 0] = 28.0
            decoded[:, :, 1] = 22.0 + 4.0 * np.arange(6)
            fade = np.exp(-0.5 * ((np.arange(count) - 4) * 3.0 / 6.0) ** 2)
            decoded[:, :, 2] = 0.9 * fade[:, None]
            return decoded
        corners = np.array([[31.5, 28.0], [31.5, 35.0], [38.0, 31.5], [25.0, 31.5]], np.float32)
        return np.concatenate(
            [np.tile(corners, (count, 1, 1)), np.full((count, 4, 1), 0.8, np.float32)], axis=2
        )

    def close(self) -> None:
        self.inner.close()


def test_every_level_is_graded_and_measured(pack: Pack, backend: CpuBackend) -> None:
    known = _Known(backend)
    result = grade_study(made_study(), pack, known)
    assert tuple(item.level for item in result.levels) == LEVELS
    for item in result.levels:
        assert item.grade is not None
        assert item.probabilities is not None
        assert sum(item.probabilities) == pytest.approx(1.0, abs=1e-5)
        assert item.grade == int(np.argmax(item.probabilities))
        assert item.cord is not None
        assert item.cord.ap_mm == pytest.approx(7.0, abs=1e-3)
        assert item.cord.compression_ratio == pytest.approx(7.0 / 13.0, abs=1e-3)
        assert item.point is not None
        assert item.point[0] == pytest.approx(0.0, abs=0.5)
        assert item.sagittal_sop_uid == "s4"
    assert set(result.seconds) == {"load", "levels", "grade", "cord"}


class _BlindOnOneSlice(_Known):
    """Heatmaps of nothing on the first axial slice: all four peaks are in their first pixel."""

    def decode(self, heatmaps):  # type: ignore[no-untyped-def]
        decoded = super().decode(heatmaps)
        if heatmaps == "cord":
            decoded[0] = 0.0
        return decoded


def test_a_slice_on_which_no_cord_is_seen_costs_no_other(pack: Pack, backend: CpuBackend) -> None:
    whole = grade_study(made_study(), pack, _Known(backend))
    result = grade_study(made_study(), pack, _BlindOnOneSlice(backend))
    assert result.cord_slices == whole.cord_slices[1:]
    assert len([item for item in result.levels if item.cord]) >= len(LEVELS) - 1
    json.dumps(asdict(result), allow_nan=False)


def test_all_regions_of_a_study_go_through_each_model_in_one_call(pack: Pack, backend: CpuBackend) -> None:
    known = _Known(backend)
    grade_study(made_study(), pack, known)
    assert known.calls == ["levels", "grader", "cord"]
    assert known.batches["levels"] == 9
    assert known.batches["grader"] == 6


class _InParts(_Known):
    """Told one part of the stack at a time: the levels fade with the distance from slice 4."""

    locates_in_parts = True

    def preprocess(self, slices, rois, spec):  # type: ignore[no-untyped-def]
        self.shown = np.array([roi.slices[0] for roi in rois])
        return super().preprocess(slices, rois, spec)

    def decode(self, heatmaps):  # type: ignore[no-untyped-def]
        decoded = super().decode(heatmaps)
        if heatmaps == "levels":
            decoded[:, :, 2] = 0.9 * np.exp(-0.5 * (self.shown - 4) ** 2)[:, None]
        return decoded


def test_a_backend_that_takes_time_for_each_slice_is_asked_for_the_middle_of_the_stack(
    pack: Pack, backend: CpuBackend
) -> None:
    study = made_study()
    wide = tuple(
        replace(item, pose=replace(item.pose, origin=(5.0 * (k - 4), *item.pose.origin[1:])))
        for k, item in enumerate(study.sagittal)
    )
    known = _InParts(backend)
    result = grade_study(replace(study, sagittal=wide), pack, known)
    assert known.calls == ["levels", "grader", "cord"]
    assert known.batches["levels"] == 5
    assert all(item.grade is not None for item in result.levels)
    assert all(item.sagittal_sop_uid == "s4" for item in result.levels)


class _TurnedCord(_Known):
    """The cord is turned by 20° in its slices."""

    def decode(self, heatmaps):  # type: ignore[no-untyped-def]
        decoded = super().decode(heatmaps)
        if heatmaps == "cord":
            middle = decoded[..., :2].mean(axis=1, keepdims=True)
            turn = np.radians(20.0)
            matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
            decoded[..., :2] = (decoded[..., :2] - middle) @ matrix.T + middle
        return decoded


def test_sagittal_slices_oblique_to_the_neck_are_said_to_be_that(pack: Pack, backend: CpuBackend) -> None:
    assert "oblique_sagittal" not in grade_study(made_study(), pack, _Known(backend)).warnings
    turned = grade_study(made_study(), pack, _TurnedCord(backend))
    assert turned.warnings == ("oblique_sagittal",)
    assert all("oblique_sagittal" in row["warnings"] for row in turned.rows())
    # Without axial slices nobody can tell.
    assert grade_study(made_study(axial=False), pack, _TurnedCord(backend)).warnings == ()


def test_levels_match_the_axial_slice_nearest_in_patient_coordinates(pack: Pack, backend: CpuBackend) -> None:
    study = made_study()
    result = grade_study(study, pack, _Known(backend))
    heights = {item.frame.sop_instance_uid: item.pose.origin[2] for item in study.axial}
    for item in result.levels:
        assert item.cord is not None
        assert item.point is not None
        assert abs(heights[item.cord.sop_instance_uid] - item.point[2]) < 8.0


def test_without_an_axial_series_levels_are_graded_and_say_why_there_is_no_ratio(
    pack: Pack, backend: CpuBackend
) -> None:
    result = grade_study(made_study(axial=False), pack, _Known(backend))
    assert all(item.grade is not None and item.cord is None for item in result.levels)
    assert all("no_axial_series" in item.warnings for item in result.levels)
    assert result.axial_series_uid == ""


def test_another_frame_of_reference_is_never_matched(pack: Pack, backend: CpuBackend) -> None:
    known = _Known(backend)
    result = grade_study(made_study(same_frame=False), pack, known)
    assert "cord" not in known.calls
    assert all("axial_unmatched" in item.warnings and item.cord is None for item in result.levels)


def test_a_flat_image_is_flagged_for_its_contrast(pack: Pack, backend: CpuBackend) -> None:
    result = grade_study(made_study(fill=noise(0)), pack, _Known(backend))
    assert all("low_contrast" in item.warnings for item in result.levels)


@pytest.mark.parametrize(("least", "recognised"), [(None, True), (0.85, True), (0.95, False)])
def test_discs_that_are_less_sure_than_the_pack_asks_for_are_no_neck(
    least: float | None, recognised: bool, pack: Pack, backend: CpuBackend
) -> None:
    """The discs have a confidence of 0.9."""
    levels = pack.models["levels"]
    output = replace(levels.output, minimum_mean_confidence=least)
    asking = replace(pack, models={**pack.models, "levels": replace(levels, output=output)})
    if recognised:
        assert all(
            item.point is not None for item in grade_study(made_study(), asking, _Known(backend)).levels
        )
        return
    with pytest.raises(CannotGrade, match=r"their mean confidence is 0\.\d\d, not 0\.95 or more") as caught:
        grade_study(made_study(), asking, _Known(backend))
    assert caught.value.stage is Stage.LEVELS


def test_noise_is_no_cervical_spine(pack: Pack, backend: CpuBackend) -> None:
    with pytest.raises(CannotGrade) as caught:
        grade_study(made_study(), pack, backend)
    assert caught.value.stage is Stage.LEVELS
    assert "No cervical spine" in caught.value.reason
    assert caught.value.advice.endswith(".")


class _ShowsLandmarks(_Known):
    """Told where C2 and the dens are, too, and two discs below C7/T1."""

    def decode(self, heatmaps):  # type: ignore[no-untyped-def]
        decoded = super().decode(heatmaps)
        if heatmaps != "levels":
            return decoded
        further = np.repeat(decoded[:, :1], 4, axis=1)
        further[:, :, 1] = (46.0, 50.0, 19.0, 13.0)
        return np.concatenate([decoded, further], axis=1)


def _with_landmarks(pack: Pack) -> Pack:
    """The pack, whose levels model is said to have maps of the landmarks."""
    levels = pack.models["levels"]
    output = replace(levels.output, names=(*LEVELS, *LANDMARKS))
    return replace(pack, models={**pack.models, "levels": replace(levels, output=output)})


def _with_rows(study: LoadedStudy, rows: int) -> LoadedStudy:
    """The study with sagittal images of other height about the same middle."""
    slices = []
    for item in study.sagittal:
        x, y, z = item.pose.origin
        pose = replace(item.pose, rows=rows, origin=(x, y, z + (rows - item.pose.rows) / 2 * 0.8))
        slices.append(replace(item, pose=pose, stored=np.resize(item.stored, (rows, item.pose.columns))))
    return replace(study, sagittal=tuple(slices))


def test_a_study_that_does_not_show_c2_is_not_numbered(pack: Pack, backend: CpuBackend) -> None:
    """C2/3 lies 38 mm above the middle of the images."""
    shown, cut = _with_rows(made_study(), 140), _with_rows(made_study(), 120)
    result = grade_study(shown, _with_landmarks(pack), _ShowsLandmarks(backend))
    assert all(item.grade is not None for item in result.levels)
    assert not any("level_number_uncertain" in item.warnings for item in result.levels)
    with pytest.raises(CannotGrade) as caught:
        grade_study(cut, _with_landmarks(pack), _ShowsLandmarks(backend))
    assert caught.value.stage is Stage.LEVELS
    assert "C2 is not shown" in caught.value.reason
    # Without maps of landmarks nobody can tell, and the number is in doubt.
    doubted = grade_study(cut, pack, _Known(backend))
    assert all("level_number_uncertain" in item.warnings for item in doubted.levels if item.point)


def test_images_larger_than_the_field_are_searched_in_one_call(pack: Pack, backend: CpuBackend) -> None:
    known = _Known(backend)
    grade_study(_with_rows(made_study(), 560), pack, known)
    assert known.calls == ["levels", "levels", "grader", "cord"]
    assert known.batches["levels"] == 9


@pytest.fixture(scope="module")
def cautious(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CpuBackend]:
    """Its grader has the fifth class, for regions of middle brightness."""
    written = write_tiny_pack(tmp_path_factory.mktemp("pack") / "cautious", other=True)
    with closing(CpuBackend(written, threads=1)) as opened:
        yield opened


def test_a_level_unlike_the_training_has_no_grade_and_keeps_the_rest(
    pack: Pack, backend: CpuBackend, cautious: CpuBackend
) -> None:
    study = made_study(fill=noise_above_grey)
    result = grade_study(study, cautious.pack, _Known(cautious))
    plain = grade_study(study, pack, _Known(backend))
    unlike = ["out_of_distribution" in item.warnings for item in result.levels]
    assert unlike == [True, True, False, False, False, False]
    for item, other in zip(result.levels, plain.levels, strict=True):
        assert item.p_ood is not None
        assert other.p_ood is None
        assert (item.p_ood >= 0.5) == ("out_of_distribution" in item.warnings) == (item.grade is None)
        assert (item.point, item.cord) == (other.point, other.cord)
        assert item.cord is not None
        assert item.sagittal_sop_uid == "s4"
        if item.grade is None:
            assert item.probabilities is None
            assert item.confidence == pytest.approx(0.9, abs=0.01)
            assert "grade_low_confidence" not in item.warnings
        else:
            # Softmax over five, without the fifth, is softmax over the four.
            assert item.grade == other.grade
            assert item.probabilities == pytest.approx(other.probabilities, abs=1e-5)
            assert item.confidence == pytest.approx(other.confidence, abs=1e-5)


def _with_void(study: LoadedStudy, top_mm: float, foot_mm: float) -> LoadedStudy:
    """A study whose sagittal slices are black between two heights."""
    changed = []
    for item in study.sagittal:
        stored = item.stored.copy()
        rows = item.pose.to_patient(np.stack([np.zeros(250), np.arange(250)], axis=-1))[:, 2]
        stored[(rows < top_mm) & (rows > foot_mm)] = 0
        changed.append(replace(item, stored=stored))
    return replace(study, sagittal=tuple(changed))


def test_a_level_in_a_signal_void_has_no_grade_and_keeps_the_rest(pack: Pack, backend: CpuBackend) -> None:
    study = made_study()
    plain = grade_study(study, pack, _Known(backend))
    middle = plain.levels[2].point
    assert middle is not None
    result = grade_study(_with_void(study, middle[2] + 7, middle[2] - 7), pack, _Known(backend))
    assert ["signal_void" in item.warnings for item in result.levels] == [False, False, True, *[False] * 3]
    found = result.levels[2]
    assert (found.grade, found.probabilities) == (None, None)
    assert (found.point, found.cord) == (plain.levels[2].point, plain.levels[2].cord)
    assert [item.grade is None for item in result.levels].count(True) == 1


def test_a_study_without_a_grade_says_that_voids_are_among_the_reasons(tmp_path: Path) -> None:
    anxious = write_tiny_pack(tmp_path / "pack", other=True, maximum_other=1e-9)
    study = _with_void(made_study(), -2.0, -17.0)
    with (
        closing(CpuBackend(anxious, threads=1)) as opened,
        pytest.raises(CannotGrade, match="out of distribution for the grader or in a signal void"),
    ):
        grade_study(study, anxious, _Known(opened))


def test_a_study_of_which_every_level_is_unlike_the_training_is_not_graded(cautious: CpuBackend) -> None:
    with pytest.raises(CannotGrade) as caught:
        grade_study(made_study(), cautious.pack, _Known(cautious))
    assert caught.value.stage is Stage.GRADE
    assert "All 6 levels that were found are out of distribution" in caught.value.reason
    assert caught.value.advice.endswith(".")


@pytest.mark.parametrize(("limit", "graded"), [(1.0, 6), (0.001, 2)])
def test_the_pack_says_from_which_probability_a_level_is_unlike_the_training(
    tmp_path: Path, limit: float, graded: int
) -> None:
    other = write_tiny_pack(tmp_path / "pack", other=True, maximum_other=limit)
    with closing(CpuBackend(other, threads=1)) as opened:
        result = grade_study(made_study(fill=noise_above_grey), other, _Known(opened))
    assert sum(item.grade is not None for item in result.levels) == graded


class _OfHalfPrecision(_Known):
    """Answers of a grader that is sure, rounded: in one row nothing is left of the grades."""

    def infer(self, model, batch):  # type: ignore[no-untyped-def]
        found = super().infer(model, batch)
        if model == "grader":
            found[0] = (0.0, 0.0, 0.0, 0.0, 1.0)
            found[1] = (0.0004, 0.0002, 0.0, 0.0, 0.999)
        return found


def test_what_rounding_leaves_of_the_grades_still_adds_up_to_one(tmp_path: Path) -> None:
    other = write_tiny_pack(tmp_path / "pack", other=True, maximum_other=1.0)
    with closing(CpuBackend(other, threads=1)) as opened:
        lost, rounded, *_ = grade_study(made_study(), other, _OfHalfPrecision(opened)).levels
    assert (lost.grade, lost.p_ood) == (None, 1.0)
    assert rounded.probabilities == pytest.approx((2 / 3, 1 / 3, 0.0, 0.0))


def test_a_model_that_is_no_onnx_file_says_so(pack: Pack, tmp_path: Path) -> None:
    import hashlib
    import json

    folder = write_tiny_pack(tmp_path / "broken").path
    (folder / "levels.onnx").write_bytes(b"not a model")
    manifest = json.loads((folder / "pack.json").read_text())
    manifest["models"]["levels"]["sha256"] = hashlib.sha256(b"not a model").hexdigest()
    (folder / "pack.json").write_text(json.dumps(manifest))
    with pytest.raises(PackError, match="not encoded as an ONNX model"):
        CpuBackend(Pack.load(folder), threads=1)


def test_batches_larger_than_a_call_come_back_whole(pack: Pack, backend: CpuBackend) -> None:
    rng = np.random.default_rng(0)
    batch = rng.random((37, 1, 128, 128), dtype=np.float32)
    whole = backend.infer("cord", batch)
    assert whole.shape == (37, 4, 64, 64)
    for index in (0, 15, 16, 36):
        assert np.allclose(whole[index], backend.infer("cord", batch[index : index + 1])[0], atol=1e-6)
