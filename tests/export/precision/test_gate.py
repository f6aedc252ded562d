"""Accuracy gate: agreement figures, limits, published and refused precisions, and the report."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from made_study import made_study, sparse
from onnx import numpy_helper
from tiny_pack import write_tiny_pack
from typer.testing import CliRunner

from stenosis_trt.bench.roofline.layer_work import fold_fp16_weights
from stenosis_trt.engine.backends.base import Float32Array
from stenosis_trt.engine.cli import quantise as cli_quantise
from stenosis_trt.engine.cli.app import app
from stenosis_trt.engine.errors import PackError
from stenosis_trt.engine.packs.pack import Pack, reference_pack
from stenosis_trt.engine.records import LEVELS, CordMeasurement, LevelResult, LoadedStudy, StudyResult
from stenosis_trt.export.onnx.graphs import activation_percentiles, set_activation_scales
from stenosis_trt.export.precision.agreement import StudyPair, grading_agreement
from stenosis_trt.export.precision.candidates import write_candidate
from stenosis_trt.export.precision.convert import ConvertedModel, Int8Options, to_fp16, to_int8
from stenosis_trt.export.precision.gate import Gate
from stenosis_trt.export.precision.gate_result import GateLimits, GateResult, check_limits, gate_report_lines
from stenosis_trt.export.precision.quantise import QuantiseOptions
from stenosis_trt.export.precision.studies import StudyCollection
from stenosis_trt.export.precision.writing import QuantisationResult, write_variants

FEW = GateLimits(minimum_levels=6, minimum_patients=1)


def _cord(ratio: float) -> CordMeasurement:
    point = (0.0, 0.0, 0.0)
    return CordMeasurement("1", (point, point, point, point), 10 * ratio, 10.0, ratio, 0.9)


def _level(name: str, grade: int | None, ratio: float | None = 0.5, x: float = 0.0) -> LevelResult:
    if grade is None:
        return LevelResult(name, None, None, None, None, "", 0.1)
    p0, p1, p2, p3 = (1.0 if k == grade else 0.0 for k in range(4))
    cord = None if ratio is None else _cord(ratio)
    return LevelResult(name, (x, 0.0, 0.0), grade, (p0, p1, p2, p3), cord, "1", 0.9)


def _study(uid: str, *levels: LevelResult, patient: str = "") -> StudyResult:
    return StudyResult(uid, patient, "1", "1", tuple(levels), ())


def _graded(uid: str, *grades: int | None, patient: str = "", ratio: float = 0.5) -> StudyResult:
    levels = [_level(name, grade, ratio) for name, grade in zip(LEVELS, grades, strict=False)]
    return _study(uid, *levels, patient=patient)


def _failed(pairs: list[StudyPair], limits: GateLimits = FEW) -> dict[str, float | None]:
    return {
        check.figure: check.excess
        for check in check_limits(grading_agreement(pairs), limits)
        if not check.passed
    }


def test_a_precision_that_gives_invalid_values_for_one_study_is_refused(tmp_path: Path) -> None:
    sound = write_tiny_pack(tmp_path / "sound")
    invalid = write_tiny_pack(tmp_path / "invalid", invalid="levels")
    with pytest.raises(PackError, match=r"cannot be used as the model levels: its output is not finite"):
        Gate(sound, lambda _: [made_study(fill=sparse)], "a study").measure({"fp16": invalid})


def test_many_studies_of_one_patient_are_not_enough() -> None:
    studies = [_graded(str(k), 0, 1, 2, 3, 0, 1, patient="ANONYMOUS") for k in range(20)]
    assert _failed([StudyPair(study, study) for study in studies], GateLimits()) == {"patients compared": 9}
    studies = [_graded(str(k), 0, 1, 2, 3, 0, 1, patient=str(k)) for k in range(20)]
    assert _failed([StudyPair(study, study) for study in studies], GateLimits()) == {}


def test_equal_results_agree_in_everything() -> None:
    pairs = [StudyPair(study, study) for study in (_graded("1", 0, 1, 2, 3), _graded("2", 3, 0, 1))]
    figures = grading_agreement(pairs)
    assert (figures.studies, figures.patients, figures.levels) == (2, 2, 7)
    assert figures.identical_grades == figures.kappa == figures.kappa_low == figures.ratios_kept == 1.0
    assert figures.ratio.bias == figures.level_shift_mm_largest == figures.largest_probability_change == 0.0
    assert _failed(pairs) == {}


def test_a_changed_grade_counts_and_says_by_how_much() -> None:
    pairs = [StudyPair(_graded("1", 0, 1, 2, 3), _graded("1", 0, 1, 2, 3)) for _ in range(24)]
    pairs += [StudyPair(_graded("2", 0, 0, 0, 0), _graded("2", 3, 3, 0, 0))]
    assert grading_agreement(pairs).identical_grades == pytest.approx(0.98)
    assert _failed(pairs)["share of identical grades"] == pytest.approx(0.01)


def test_levels_and_studies_that_one_of_them_loses_are_different() -> None:
    lost_level = StudyPair(_graded("1", 0, 1), _study("1", _level("C2/3", 0), _level("C3/4", None)))
    assert grading_agreement([lost_level]).identical_grades == 0.5
    lost_study = StudyPair(_graded("1", 0, 1), None)
    assert grading_agreement([lost_study]).identical_grades == 0.0
    gained_study = StudyPair(None, _graded("1", 0, 1))
    assert grading_agreement([gained_study]).levels == 2
    assert grading_agreement([StudyPair(None, None)]).levels == 0


def _unlike(name: str, p_ood: float) -> LevelResult:
    """A level with a point and a cord, and without a grade."""
    return replace(_level(name, 0), grade=None, probabilities=None, p_ood=p_ood)


def test_a_level_that_one_of_them_finds_unlike_the_training_is_different() -> None:
    graded = replace(_level("C3/4", 1), p_ood=0.4)
    expected = _study("1", _unlike("C2/3", 0.9), graded)
    assert grading_agreement([StudyPair(expected, expected)]).levels == 1
    assert grading_agreement([StudyPair(expected, expected)]).identical_grades == 1.0
    found = _study("1", _unlike("C2/3", 0.7), _unlike("C3/4", 0.5))
    figures = grading_agreement([StudyPair(expected, found)])
    assert figures.identical_grades == 0.0
    assert figures.ratios_kept == 1.0
    assert figures.largest_probability_change == pytest.approx(0.2)


def test_ratios_that_are_no_longer_measured_fail() -> None:
    lost = _study("1", *(_level(name, 1, None) for name in LEVELS))
    pairs = [StudyPair(_graded("1", 0, 1, 2, 3, 0, 1), lost)]
    assert grading_agreement(pairs).ratios_kept == 0.0
    assert _failed(pairs)["share of ratios kept"] == pytest.approx(0.99)


@pytest.mark.parametrize(
    ("ratio", "fails"),
    [(0.501, set()), (0.503, {"ratio bias"}), (0.52, {"ratio bias", "ratio limits of agreement"})],
)
def test_a_bias_of_the_ratio_is_held_against_both_limits(ratio: float, fails: set[str]) -> None:
    grades = (0, 1, 2, 3, 0, 1)
    pairs = [StudyPair(_graded("1", *grades), _graded("1", *grades, ratio=ratio))]
    assert set(_failed(pairs)) == fails
    change = grading_agreement(pairs).ap_mm
    assert change.bias == pytest.approx(10 * (ratio - 0.5))


def test_limits_of_agreement_are_bias_and_spread() -> None:
    moved = [0.5, 0.52, 0.48, 0.5, 0.5, 0.5]
    found = _study("1", *(_level(name, 1, ratio) for name, ratio in zip(LEVELS, moved, strict=True)))
    ratio = grading_agreement([StudyPair(_graded("1", *[1] * 6), found)]).ratio
    assert ratio.high == pytest.approx(1.96 * np.std(np.array(moved), ddof=1))
    assert ratio.low == pytest.approx(-ratio.high)


def test_one_level_that_moves_too_far_fails() -> None:
    levels = [_level(name, k % 4, x=0.8 if k == 2 else 0.0) for k, name in enumerate(LEVELS)]
    pairs = [StudyPair(_graded("1", 0, 1, 2, 3, 0, 1), _study("1", *levels))]
    assert _failed(pairs) == {"largest level shift in mm": pytest.approx(0.3)}


def test_a_figure_that_cannot_be_measured_fails() -> None:
    """One grade throughout leaves kappa undefined, and no axial series leaves the ratio so."""
    pairs = [StudyPair(study, study) for study in [_study("1", *(_level(name, 1, None) for name in LEVELS))]]
    failed = _failed(pairs)
    assert failed == {
        "lower bound of kappa": None,
        "share of ratios kept": None,
        "ratio bias": None,
        "ratio limits of agreement": None,
    }
    outcome = GateResult(
        "fp16", "studies", grading_agreement(pairs), check_limits(grading_agreement(pairs), FEW)
    )
    assert any("NOT MEASURED" in line for line in gate_report_lines(outcome))
    json.dumps(outcome.to_dict(), allow_nan=False)


def test_too_few_levels_fail() -> None:
    study = _graded("1", 0, 1, 2, 3)
    assert "levels compared" in _failed([StudyPair(study, study)], GateLimits())


def test_studies_of_one_patient_stay_together() -> None:
    pairs = [StudyPair(s, s) for s in (_graded("1", 0, patient="A"), _graded("2", 3, patient="A"))]
    assert grading_agreement(pairs).patients == 1
    apart = [StudyPair(s, s) for s in (_graded("1", 0), _graded("2", 3))]
    assert grading_agreement(apart).patients == 2


def _damaged(data: bytes) -> bytes:
    """The weights of a model with noise of a third of their spread."""
    rng = np.random.default_rng(0)
    model = fold_fp16_weights(onnx.load_model_from_string(data))
    for item in model.graph.initializer:
        values = numpy_helper.to_array(item)
        if values.size >= 512 and values.dtype == np.float32:
            noise = 0.3 * values.std() * rng.standard_normal(values.shape)
            item.CopyFrom(numpy_helper.from_array((values + noise).astype(np.float32), item.name))
    return bytes(model.SerializeToString())


def _with(pack: Pack, folder: Path, **models: bytes) -> Pack:
    """The pack with some models replaced."""
    return write_candidate(pack, folder, "fp16", models)


def _outcome(pack: Pack, candidate: Pack, studies: list[LoadedStudy]) -> GateResult:
    return Gate(pack, lambda _: studies, "one phantom", FEW).measure({"fp16": candidate})["fp16"]


def test_the_gate_passes_an_equal_pack_and_fp16_of_the_small_networks(
    pack: Pack, studies: list[LoadedStudy], inputs: dict[str, Float32Array], tmp_path: Path
) -> None:
    equal = _outcome(pack, _with(pack, tmp_path / "equal"), studies)
    assert equal.passed
    assert equal.figures.largest_probability_change == equal.figures.level_shift_mm_largest == 0.0
    half = {name: to_fp16(pack.read_model(name), inputs[name]).data for name in ("levels", "cord")}
    outcome = _outcome(pack, _with(pack, tmp_path / "half", **half), studies)
    assert outcome.passed
    assert outcome.figures.level_shift_mm_largest > 0.0


@pytest.mark.parametrize(
    ("name", "figure"), [("levels", "largest level shift in mm"), ("cord", "ratio limits of agreement")]
)
def test_the_gate_refuses_a_damaged_model_and_says_by_how_much(
    pack: Pack, studies: list[LoadedStudy], tmp_path: Path, name: str, figure: str
) -> None:
    damaged = _with(pack, tmp_path, **{name: _damaged(pack.read_model(name))})
    outcome = _outcome(pack, damaged, studies)
    assert not outcome.passed
    lines = gate_report_lines(outcome)
    assert "FAILS the gate" in lines[0]
    failed = {check.figure: check for check in outcome.failures}
    assert figure in failed or "share of identical grades" in failed
    for check in outcome.failures:
        line = next(line for line in lines if check.figure in line)
        assert (f"FAILS by {check.excess:.4g}" if check.excess else "NOT MEASURED") in line


def test_the_gate_refuses_int8_whose_scales_are_saturated(
    pack: Pack, studies: list[LoadedStudy], inputs: dict[str, Float32Array], tmp_path: Path
) -> None:
    """A calibration gone wrong: every activation is cut off at a tenth of its range."""
    data, images = pack.read_model("cord"), inputs["cord"]
    sound = to_int8(data, images, Int8Options("max", high_precision_dtype="fp32")).data
    model = onnx.load_model_from_string(sound)
    plain = fold_fp16_weights(onnx.load_model_from_string(data))
    largest = activation_percentiles(plain, model, images, 100.0)
    set_activation_scales(model, {name: value / 10 for name, value in largest.items()})
    broken = bytes(model.SerializeToString())
    assert _outcome(pack, _with(pack, tmp_path / "sound", cord=sound), studies).figures.ratios_kept == 1.0
    outcome = _outcome(pack, _with(pack, tmp_path / "broken", cord=broken), studies)
    assert not outcome.passed
    assert {check.figure for check in outcome.failures} & {
        "share of ratios kept",
        "ratio limits of agreement",
    }


@pytest.fixture(scope="module")
def published(pack: Pack, studies: list[LoadedStudy], tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """A pack whose FP16 passed and whose INT8 did not; the models are FP32, which does not matter here."""
    folder = tmp_path_factory.mktemp("published")
    models = {name: ConvertedModel(pack.read_model(name), {"bytes": 1.0}) for name in pack.models}
    equal = _outcome(pack, _with(pack, folder / "equal"), studies)
    bad = _outcome(pack, _with(pack, folder / "bad", cord=_damaged(pack.read_model("cord"))), studies)
    found = QuantisationResult(
        pack, {"fp16": equal, "int8": replace(bad, precision="int8")}, {"int8": {"cord": bad}}
    )
    return write_variants(folder / "pack", found, {"fp16": models, "int8": models}, {"calibrator": "max"})


def test_what_passes_is_published_and_what_fails_is_not(published: Pack) -> None:
    assert published.precisions == ("fp32", "fp16")
    assert not list(published.path.glob("*.int8.onnx"))
    manifest = json.loads((published.path / "pack.json").read_text())
    assert manifest["refused"]["int8"]["passed"] is False
    assert manifest["refused"]["int8"]["by_model"]["cord"]["passed"] is False
    entry = manifest["models"]["levels"]["variants"]["fp16"]
    assert set(entry) == {"file", "sha256", "metrics", "gate"}
    assert entry["gate"]["passed"] is True
    assert entry["gate"]["figures"]["identical_grades"] == 1.0
    half = published.in_precision("fp16")
    assert half.models["cord"].file == "cord.fp16.onnx"
    assert half.read_model("cord") == published.read_model("cord")
    with pytest.raises(PackError, match="no int8 models that passed"):
        published.in_precision("int8")


def test_a_pack_is_not_written_over_another(published: Pack) -> None:
    with pytest.raises(FileExistsError):
        write_variants(published.path, QuantisationResult(published, {}, {}), {}, {})


def test_verify_shows_the_variants_and_repeats_the_gate(published: Pack, phantoms: StudyCollection) -> None:
    """One phantom has too few levels and patients for the gate: it fails on that, and on nothing else."""
    command = ["verify", str(published.path), "--validation-studies", str(phantoms.folder)]
    answer = CliRunner().invoke(app, command)
    assert "cord in fp16: cord.fp16.onnx, passed the gate on one phantom" in answer.output
    assert "fp16 FAILS the gate" in answer.output
    assert answer.output.count("FAILS by") == 2
    assert "levels compared" in answer.output
    assert "patients compared" in answer.output
    assert answer.exit_code == 1


def test_the_precision_that_graded_is_recorded(
    published: Pack, phantoms: StudyCollection, tmp_path: Path
) -> None:
    command = ["grade", str(phantoms.folder), "--out", str(tmp_path / "R"), "--pack", str(published.path)]
    answer = CliRunner().invoke(app, [*command, "--precision", "fp16"])
    assert answer.exit_code == 0, answer.output
    record = json.loads((tmp_path / "R" / "run.json").read_text())
    assert record["options"]["precision"] == "fp16"
    answer = CliRunner().invoke(app, [*command, "--precision", "fp32", "--resume"])
    assert answer.exit_code == 2
    answer = CliRunner().invoke(app, [*command, "--precision", "int8"])
    assert answer.exit_code == 2
    assert "no int8 models that passed the gate" in answer.output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--precision", "int4"], "There is no precision int4"),
        (["--calibration-method", "mean"], "no calibration method 'mean'"),
        (["--calibration-studies", "/absent"], "nothing at /absent"),
        (["--percentile", "99.9"], "Nothing reads --percentile without --calibration-method percentile"),
        (
            ["--precision", "fp16", "--calibration-method", "max", "--squeeze-excite-rewrite", "off"],
            "Nothing reads --calibration-method and --squeeze-excite-rewrite without int8",
        ),
    ],
)
def test_quantise_says_what_is_wrong_in_one_line(
    published: Pack, tmp_path: Path, arguments: list[str], words: str
) -> None:
    command = ["quantise", str(published.path), "--out", str(tmp_path / "new"), *arguments]
    answer = CliRunner().invoke(app, command)
    assert answer.exit_code == 2
    assert words in answer.output
    assert len(answer.output.splitlines()) == 1
    assert not (tmp_path / "new").exists()


def test_without_a_pack_quantise_takes_the_reference_pack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = list[Path]()

    def publish(pack: Pack, _out: Path, _options: QuantiseOptions) -> int:
        taken.append(pack.path)
        return 0

    monkeypatch.setattr(cli_quantise, "quantise_and_report", publish)
    assert CliRunner().invoke(app, ["quantise", "--out", str(tmp_path / "new")]).exit_code == 0
    assert taken == [reference_pack()]


def test_options_of_quantise_are_checked() -> None:
    with pytest.raises(ValueError, match="asked for"):
        QuantiseOptions(precisions=())
    with pytest.raises(ValueError, match="0 inputs"):
        QuantiseOptions(calibration_inputs=0)
