"""A phantom and what the reference pack's networks see of it, made once for the tests of precisions."""

from __future__ import annotations

from pathlib import Path

import pytest

from stenosis_trt.bench.phantom import PhantomOptions, write_studies
from stenosis_trt.engine.backends.base import Float32Array
from stenosis_trt.engine.pack import Pack, reference_pack
from stenosis_trt.engine.records import LoadedStudy
from stenosis_trt.export.calibration import record_inputs
from stenosis_trt.export.studies import StudySet, loaded_studies


@pytest.fixture(scope="session")
def pack() -> Pack:
    return Pack.load(reference_pack())


@pytest.fixture(scope="session")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> StudySet:
    folder = tmp_path_factory.mktemp("phantoms")
    write_studies(folder / "in", PhantomOptions(1, 4711))
    return StudySet(folder / "in", "one phantom")


@pytest.fixture(scope="session")
def studies(phantoms: StudySet) -> list[LoadedStudy]:
    return list(loaded_studies(phantoms, "Reading"))


@pytest.fixture(scope="session")
def inputs(pack: Pack, studies: list[LoadedStudy]) -> dict[str, Float32Array]:
    return record_inputs(pack, studies, 8)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"
