"""A phantom and what the reference pack's networks see of it, made once for the tests of precisions."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import shared_phantoms
from shared_products import shared_product

from stenosis_trt.engine.backends.base import Float32Array
from stenosis_trt.engine.packs.pack import Pack, reference_pack
from stenosis_trt.engine.records import LoadedStudy
from stenosis_trt.export.precision.agreement import StudyPair, grading_agreement
from stenosis_trt.export.precision.calibration import CalibrationSet, record_inputs
from stenosis_trt.export.precision.convert import Int8Options
from stenosis_trt.export.precision.gate_result import GateResult
from stenosis_trt.export.precision.quantise import QuantiseOptions, conversion_record, convert_models
from stenosis_trt.export.precision.studies import StudyCollection, loaded_studies
from stenosis_trt.export.precision.writing import QuantisationResult, write_variants


@pytest.fixture(scope="session")
def pack() -> Pack:
    return Pack.load(reference_pack())


@pytest.fixture(scope="session")
def phantoms() -> StudyCollection:
    return StudyCollection(shared_phantoms.phantoms(1, 4711), "one phantom")


@pytest.fixture(scope="session")
def studies(phantoms: StudyCollection) -> list[LoadedStudy]:
    return list(loaded_studies(phantoms, "Reading"))


@pytest.fixture(scope="session")
def inputs(pack: Pack, studies: list[LoadedStudy]) -> dict[str, Float32Array]:
    def make(folder: Path) -> None:
        np.savez(folder / "inputs.npz", **record_inputs(pack, studies, 8))

    with np.load(shared_product("inputs", make) / "inputs.npz") as stored:
        return {name: stored[name] for name in pack.models}


@pytest.fixture(scope="session")
def quantised(pack: Pack, inputs: dict[str, Float32Array], tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """The reference pack with FP16 and INT8 as `quantise` makes them, of two inputs each and ungated."""

    def make(folder: Path) -> None:
        few = CalibrationSet({name: some[:2] for name, some in inputs.items()}, "one phantom", "")
        options = QuantiseOptions(int8=Int8Options("max"))
        made = convert_models(pack, few, options)
        figures = grading_agreement([StudyPair(None, None)])
        outcomes = {name: GateResult(name, "nothing", figures, ()) for name in options.precisions}
        result = QuantisationResult(pack, outcomes, {})
        write_variants(folder / "pack", result, made, conversion_record(options, few))

    copy = tmp_path_factory.mktemp("quantised") / "pack"
    shutil.copytree(shared_product("quantised", make) / "pack", copy)
    return Pack.load(copy)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"
