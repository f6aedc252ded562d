"""Structs have one layout: the C++ compiler is asked about every field of every NumPy dtype."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

import stenosis_trt.kernels
from stenosis_trt.kernels import table
from stenosis_trt.kernels.layouts import MAX_COPIES, STRUCTS

_CUDA = Path(stenosis_trt.kernels.__path__[0]) / "cuda"
_HOST = Path(__file__).parent / "host"


def _compiles(tmp_path: Path, statements: str) -> bool:
    source = tmp_path / "layouts.cpp"
    source.write_text(f'#include "kernels.cu"\n#include <cstddef>\n{statements}\n')
    command = [
        "g++",
        "-std=c++17",
        "-fsyntax-only",
        "-w",
        f"-I{_CUDA}",
        "-include",
        str(_HOST / "cuda_on_cpu.h"),
    ]
    return subprocess.run([*command, str(source)], check=False, capture_output=True).returncode == 0


@pytest.mark.parametrize("name", STRUCTS)
def test_a_struct_and_its_dtype_agree(name: str, tmp_path: Path) -> None:
    dtype = STRUCTS[name]
    assert dtype.fields is not None
    lines = [f"static_assert(sizeof({name}) == {dtype.itemsize});"]
    lines += [
        f"static_assert(offsetof({name}, {field}) == {place[1]});" for field, place in dtype.fields.items()
    ]
    lines += [
        f"static_assert(sizeof({name}::{field}) == {place[0].itemsize});"
        for field, place in dtype.fields.items()
    ]
    assert _compiles(tmp_path, "\n".join(lines))
    assert not _compiles(tmp_path, f"static_assert(sizeof({name}) == {dtype.itemsize + 1});")


def test_constants_agree(tmp_path: Path) -> None:
    pairs = {
        "kMaxCopies": MAX_COPIES,
        "kStatisticsThreads": table.STATISTICS_THREADS,
        "kPreprocessThreads": table.PREPROCESS_THREADS,
        "kColumns": table.COLUMNS_PER_THREAD,
        "kStripRows": table.STRIP_ROWS,
        "kMaxTaps": table.MAX_TAPS,
        "kMaxMaps": table.MAX_MAPS,
        "kPeaks": table.PEAKS,
        "kLowestPeak": f"{table.LOWEST_PEAK}f",
        "kCordPoints": table.CORD_POINTS,
        "kContrastThreads": table.CONTRAST_THREADS,
    }
    assert _compiles(
        tmp_path, "\n".join(f"static_assert({name} == {value});" for name, value in pairs.items())
    )


def test_the_table_names_every_entry_point() -> None:
    sources = "".join(path.read_text() for path in _CUDA.glob("*.cuh"))
    assert sources.count("\nKERNEL(") == len(table.KERNELS)
    assert all(f" {name}(" in sources for name in table.KERNELS)
