"""The kernels compiled for every architecture, by both toolkits: no spills, registers within their budget.

This needs no GPU. The toolkits are fetched once into the user's cache by `build_binaries`.
"""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from stenosis_trt.kernels import binaries, build_binaries, sources
from stenosis_trt.kernels.build_binaries import REGISTER_BUDGET, TOOLKITS, Toolkit
from stenosis_trt.kernels.nvrtc import CompilationError, Nvrtc, NvrtcError
from stenosis_trt.kernels.sources import FLAGS, Sources

JETPACK_6, CUDA_13 = TOOLKITS
_IN_SHORT_RUNS = {(JETPACK_6, 87), (CUDA_13, 75), (CUDA_13, 89), (CUDA_13, 90), (CUDA_13, 120)}
NUMBERS = {
    JETPACK_6: (75, 80, 86, 87, 89, 90),
    CUDA_13: (75, 80, 86, 87, 88, 89, 90, 100, 103, 110, 120, 121),
}

# 128 values are alive at once: more than the 64 registers that a block of 1,024 threads leaves a thread.
SPILLING = """
extern "C" __global__ void __launch_bounds__(1024) spilling(float* out, const float* in, int n) {
    float kept[128];
    #pragma unroll
    for (int k = 0; k < 128; ++k) kept[k] = in[k * n + threadIdx.x];
    __syncthreads();
    float sum = 0;
    #pragma unroll
    for (int k = 0; k < 128; ++k) {
        sum += kept[k] * kept[127 - k];
        out[k * n + threadIdx.x] = kept[k] * sum;
    }
}
"""
INDEXING = """
extern "C" __global__ void indexing(float* out, const int* in) {
    float kept[256];
    for (int k = 0; k < 256; ++k) kept[in[k] & 255] = in[k];
    for (int k = 0; k < 256; ++k) out[k] = kept[in[k + 256] & 255];
}
"""
PLAIN = """
extern "C" __global__ void plain(float* out, const float* in) {
    __shared__ float turned[64];
    turned[threadIdx.x] = in[threadIdx.x];
    __syncthreads();
    out[threadIdx.x] = turned[63 - threadIdx.x];
}
"""


@cache
def _compiler(toolkit: Toolkit) -> Nvrtc:
    return build_binaries.pinned_nvrtc(toolkit)


@pytest.mark.parametrize(
    ("toolkit", "number"),
    [
        pytest.param(toolkit, number, marks=[] if (toolkit, number) in _IN_SHORT_RUNS else [pytest.mark.slow])
        for toolkit, numbers in NUMBERS.items()
        for number in numbers
    ],
)
def test_every_architecture_compiles_without_spills_and_within_the_budget(
    toolkit: Toolkit, number: int
) -> None:
    compiled = _compiler(toolkit).compile(sources.load_sources(), f"sm_{number}", FLAGS)
    problems = list(build_binaries.resource_problems(f"sm_{number}", compiled.log, REGISTER_BUDGET))
    assert problems == []


@pytest.mark.parametrize("toolkit", TOOLKITS, ids=lambda toolkit: toolkit.version)
def test_these_are_all_the_architectures_that_a_toolkit_has(toolkit: Toolkit) -> None:
    supported = [
        capability
        for capability in _compiler(toolkit).architectures
        if capability >= binaries.MIN_COMPUTE_CAPABILITY
    ]
    assert supported == [divmod(number, 10) for number in NUMBERS[toolkit]]


def test_the_shipped_binaries_are_those_that_the_sources_give(capfd: pytest.CaptureFixture[str]) -> None:
    status = build_binaries.main(["--check"])
    assert (status, capfd.readouterr().err) == (0, "")


@pytest.mark.slow
def test_another_process_builds_the_same_bytes(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from stenosis_trt.kernels import build_binaries, sources\n"
        "for toolkit in build_binaries.TOOLKITS:\n"
        "    compiler = build_binaries.pinned_nvrtc(toolkit)\n"
        "    made = compiler.compile(sources.load_sources(), 'sm_90', sources.FLAGS)\n"
        "    sys.stdout.buffer.write(made.data)\n"
    )
    outputs = [
        subprocess.run([sys.executable, "-c", script], cwd=folder, capture_output=True, check=True).stdout
        for folder in (tmp_path, Path(__file__).parent)
    ]
    assert outputs[0] == outputs[1] != b""


def _write(folder: Path, text: str) -> Path:
    (folder / "cuda").mkdir()
    (folder / "cuda" / sources.MAIN).write_text(text, encoding="utf-8")
    return folder / "cuda"


@pytest.mark.parametrize(("name", "text"), [("spilling", SPILLING), ("indexing", INDEXING)])
def test_a_kernel_with_a_spill_or_a_stack_frame_is_not_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], name: str, text: str
) -> None:
    monkeypatch.setattr(build_binaries, "REGISTER_BUDGET", {name: 255})
    made = tmp_path / "made"
    assert build_binaries.main([], source_folder=_write(tmp_path, text), folder=made) == 1
    error = capfd.readouterr().err
    cubins = sum(
        architecture.startswith("sm_") for toolkit in TOOLKITS for architecture in toolkit.architectures
    )
    assert len(re.findall(rf"sm_\d+: {name} uses [1-9]\d* bytes of local memory per thread", error)) == cubins
    assert not made.exists()


def test_a_kernel_over_its_budget_without_one_or_gone_is_told() -> None:
    log = _compiler(JETPACK_6).compile(Sources(PLAIN), "sm_87", FLAGS).log
    (used,) = build_binaries.ptxas_resources(log)[0].values()

    def problems(**budget: int) -> str:
        return "\n".join(build_binaries.resource_problems("sm_87", log, budget))

    assert problems(plain=used.registers) == ""
    assert "more than its budget of" in problems(plain=used.registers - 1)
    assert f"plain uses {used.registers} registers and has no budget" in problems()
    assert "has no kernel other" in problems(plain=255, other=255)


def test_the_check_tells_stale_missing_and_foreign_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(build_binaries, "REGISTER_BUDGET", {"plain": 32})
    code, made = _write(tmp_path, PLAIN), tmp_path / "made"

    def check() -> tuple[int, str]:
        status = build_binaries.main(["--check"], source_folder=code, folder=made)
        return status, capfd.readouterr().err

    status, error = check()
    assert status == 1
    assert "manifest.json is missing\n" in error
    assert build_binaries.main([], source_folder=code, folder=made) == 0
    assert check() == (0, "")
    (made / "sm_87.cubin").write_bytes((made / "sm_86.cubin").read_bytes())
    (made / "sm_99.cubin").touch()
    (made / "sm_120.cubin").unlink()
    assert check() == (
        1,
        "sm_120.cubin is missing\nsm_87.cubin differs from what the sources give\n"
        f"sm_99.cubin is not built by this script\nrebuild with `{build_binaries.COMMAND}`\n",
    )
    assert build_binaries.main([], source_folder=code, folder=made) == 0
    assert check() == (0, "")
    # A remark changes no instruction, but the sources are others than those that were built.
    (code / sources.MAIN).write_text(PLAIN + "// changed\n", encoding="utf-8")
    assert check() == (
        1,
        f"manifest.json differs from what the sources give\nrebuild with `{build_binaries.COMMAND}`\n",
    )


@pytest.mark.parametrize(
    ("toolkit", "number"), [(JETPACK_6, 75), (JETPACK_6, 90), (CUDA_13, 90), (CUDA_13, 120)]
)
def test_resources_of_each_kernel_are_read_from_the_report_of_ptxas(toolkit: Toolkit, number: int) -> None:
    source = Sources(SPILLING + INDEXING + PLAIN)
    found, other = build_binaries.ptxas_resources(
        _compiler(toolkit).compile(source, f"sm_{number}", FLAGS).log
    )
    assert list(found) == ["indexing", "plain", "spilling"]
    assert found["plain"].stack_bytes == 0
    assert found["indexing"].stack_bytes >= 4 * 256
    assert found["spilling"].stack_bytes > 0
    assert found["spilling"].registers == 64
    assert other == ""


CALLING = """
__device__ __noinline__ float called(const float* in, int k) { return in[k] + in[k + 1] * in[k + 2]; }
extern "C" __global__ void calling(float* out, const float* in) { out[0] = called(in, threadIdx.x); }
"""
WARNING = """
extern "C" __global__ void plain(float* out) { int unused; out[0] = 1.0f; }
"""


@pytest.mark.parametrize("toolkit", TOOLKITS, ids=lambda toolkit: toolkit.version)
@pytest.mark.parametrize(("name", "text"), [("calling", CALLING), ("plain", WARNING)])
def test_output_that_is_no_known_report_is_a_problem(toolkit: Toolkit, name: str, text: str) -> None:
    log = _compiler(toolkit).compile(Sources(text), "sm_90", FLAGS).log
    problems = list(build_binaries.resource_problems("sm_90", log, {name: 255}))
    assert problems[0].startswith("sm_90: the compiler reports:\n")


@pytest.mark.parametrize("toolkit", TOOLKITS, ids=lambda toolkit: toolkit.version)
def test_both_toolkits_work_in_one_process_and_say_where_a_source_is_wrong(toolkit: Toolkit) -> None:
    compiler = _compiler(toolkit)
    assert compiler.name == f"NVRTC {'.'.join(toolkit.version.split('.')[:2])}"
    wrong = Sources('#include "wrong.cuh"\n', {"wrong.cuh": "\nint f() { return undeclared; }\n"})
    with pytest.raises(CompilationError, match=r"does not compile for sm_90 with NVRTC \d") as refused:
        compiler.compile(wrong, "sm_90", FLAGS)
    assert 'wrong.cuh(2): error: identifier "undeclared" is undefined' in refused.value.log
    assert refused.value.log in str(refused.value)


def test_the_shipped_ptx_is_one_that_the_driver_of_jetpack_6_reads() -> None:
    text = (binaries.PREBUILT_FOLDER / "compute_75.ptx").read_text(encoding="ascii")
    assert ".version 8.5\n.target sm_75\n" in text
    assert "\0" not in text
    for kernel in REGISTER_BUDGET:
        assert f".visible .entry {kernel}(" in text


def test_nvrtc_compiles_for_a_device_here_when_nothing_shipped_fits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = _compiler(JETPACK_6)
    monkeypatch.setattr(binaries, "find_nvrtc", lambda: [_compiler(CUDA_13).path, library.path])
    image = binaries.compile_image((8, 7), 12060, cache=tmp_path)
    assert image.data == library.compile(sources.load_sources(), "sm_87", FLAGS).data
    assert (
        image.origin == f"compiled here for sm_87 by NVRTC 12.6, sources {sources.load_sources().sha256[:12]}"
    )
    assert binaries.compile_image((8, 7), 12060, cache=tmp_path).origin.endswith("taken from the cache")


def test_a_toolkit_that_cannot_be_fetched_is_told_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(
        NvrtcError, match=r"pip cannot fetch nvidia-cuda-nvrtc-cu12==0\.0; install it by hand"
    ):
        build_binaries.pinned_nvrtc(Toolkit("nvidia-cuda-nvrtc-cu12", "0.0", ()))
    assert list((tmp_path / "stenosis-trt" / "toolkits").iterdir()) == []
