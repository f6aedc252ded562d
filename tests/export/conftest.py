"""A phantom and what the reference pack's networks see of it, made once for the tests of precisions."""

from __future__ import annotations

from pathlib import Path

import pytest

from stenosis_trt.bench.phantom import PhantomOptions, write_studies
from stenosis_trt.engine.backends.base import Float32Array
from stenosis_trt.engine.packs.pack import Pack, reference_pack
from stenosis_trt.engine.records import LoadedStudy
from stenosis_trt.export.precision.agreement import StudyPair, grading_agreement
from stenosis_trt.export.precision.calibration import CalibrationSet, record_inputs
from stenosis_trt.export.precision.convert import Int8Options
from stenosis_trt.export.precision.gate import GateResult
from stenosis_trt.export.precision.quantise import (
    QuantisationResult,
    QuantiseOptions,
    conversion_record,
    convert_models,
    write_variants,
)
from stenosis_trt.export.precision.studies import StudyCollection, loaded_studies


@pytest.fixture(scope="session")
def pack() -> Pack:
    return Pack.load(reference_pack())


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> StudyCollection:
    folder = tmp_path_factory.mktemp("phantoms")
    write_studies(folder / "in", PhantomOptions(1, 4711))
    return StudyCollection(folder / "in", "one phantom")


@pytest.fixture(scope="session")
def studies(phantoms: StudyCollection) -> list[LoadedStudy]:
    return list(loaded_studies(phantoms, "Reading"))


@pytest.fixture(scope="session")
def inputs(pack: Pack, studies: list[LoadedStudy]) -> dict[str, Float32Array]:
    return record_inputs(pack, studies, 8)


@pytest.fixture(scope="session")
def quantised(pack: Pack, inputs: dict[str, Float32Array], tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """The reference pack with FP16 and INT8 as `quantise` makes them, of two inputs each and ungated."""
    few = CalibrationSet({name: some[:2] for name, some in inputs.items()}, "one phantom", "")
    options = QuantiseOptions(int8=Int8Options("max"))
    made = convert_models(pack, few, options)
    figures = grading_agreement([StudyPair(None, None)])
    outcomes = {name: GateResult(name, "nothing", figures, ()) for name in options.precisions}
    out = tmp_path_factory.mktemp("quantised") / "pack"
    return write_variants(out, QuantisationResult(pack, outcomes, {}), made, conversion_record(options, few))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"
