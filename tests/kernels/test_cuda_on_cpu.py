"""The CPU build of CUDA sources: it does what CUDA says, and each build catches its kind of mistake."""

from __future__ import annotations

import ctypes
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from cuda_on_cpu import (
    HOST,
    Build,
    CompileError,
    CpuKernels,
    FaultKind,
    KernelFault,
    Launch,
    compile_kernels,
    run_sanitised,
)

SAMPLES = HOST / "samples.cu"
PLANTED_BUGS = HOST / "planted_bugs.cu"

ONE = (1, 1, 1)
SEEDS = (0, 1, 2)

SEEN_BY_ASAN = {
    "global_read_out_of_bounds": "heap-buffer-overflow",
    "global_write_out_of_bounds": "heap-buffer-overflow",
    "shared_out_of_bounds": "global-buffer-overflow",
    "misaligned_vector": "misaligned address",
    "cast_out_of_range": "outside the range of representable values",
}
SEEN_BY_TSAN = [
    "shared_race",
    "missing_barrier",
    "warp_barrier_for_block_barrier",
    "half_warp_barrier_for_warp_barrier",
    "global_race",
]
FAULTS = {
    "barrier_after_exit": FaultKind.DIVERGENT_BARRIER,
    "barriers_at_two_places": FaultKind.DIVERGENT_BARRIER,
    "shuffle_after_exit": FaultKind.DIVERGENT_WARP_OPERATION,
    "shuffle_and_barrier": FaultKind.DIVERGENT_WARP_OPERATION,
    "vote_outside_of_mask": FaultKind.DIVERGENT_WARP_OPERATION,
}


def kernel_names(source: Path) -> list[str]:
    return re.findall(r"^KERNEL (?:__launch_bounds__\(\d+\) )?(\w+)\(", source.read_text(), re.MULTILINE)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cuda_on_cpu")


@pytest.fixture(scope="module")
def samples(cache: Path) -> CpuKernels:
    return CpuKernels(compile_kernels(SAMPLES, kernel_names(SAMPLES), cache))


@pytest.fixture(scope="module")
def buggy(cache: Path) -> CpuKernels:
    return CpuKernels(compile_kernels(PLANTED_BUGS, kernel_names(PLANTED_BUGS), cache))


@pytest.fixture(scope="module")
def programs(cache: Path) -> dict[Build, Path]:
    names = kernel_names(PLANTED_BUGS)
    return {build: compile_kernels(PLANTED_BUGS, names, cache, build) for build in (Build.ASAN, Build.TSAN)}


def floats(count: int = 64) -> np.ndarray:
    return np.arange(1, count + 1, dtype=np.float32)


def launch_of(kernel: str, inputs: int = 64, grid: tuple[int, int, int] = ONE, seed: int = 0) -> Launch:
    return Launch(kernel, grid, (64, 1, 1), [floats(inputs), np.zeros(64, np.float32)], seed)


class TestSanitisedBuilds:
    @pytest.mark.parametrize("kernel", SEEN_BY_ASAN)
    def test_asan_catches_what_is_out_of_bounds_or_undefined(
        self, programs: dict[Build, Path], kernel: str
    ) -> None:
        report = run_sanitised(programs[Build.ASAN], [launch_of(kernel)])
        assert not report.ok
        assert SEEN_BY_ASAN[kernel] in report.text
        assert kernel in report.text

    def test_asan_catches_a_vector_that_begins_inside_and_ends_outside(
        self, programs: dict[Build, Path]
    ) -> None:
        assert run_sanitised(programs[Build.ASAN], [launch_of("vector_read", inputs=64)]).ok
        report = run_sanitised(programs[Build.ASAN], [launch_of("vector_read", inputs=62)])
        assert "heap-buffer-overflow" in report.text

    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize("kernel", SEEN_BY_TSAN)
    def test_tsan_catches_races_in_any_order(
        self, programs: dict[Build, Path], kernel: str, seed: int
    ) -> None:
        report = run_sanitised(programs[Build.TSAN], [launch_of(kernel, seed=seed)])
        assert not report.ok
        assert "data race" in report.text
        assert kernel in report.text

    @pytest.mark.parametrize("build", [Build.ASAN, Build.TSAN])
    @pytest.mark.parametrize("kernel", FAULTS)
    def test_faults_are_findings_too(self, programs: dict[Build, Path], build: Build, kernel: str) -> None:
        report = run_sanitised(programs[build], [launch_of(kernel)])
        assert not report.ok
        assert report.text.startswith(f"{kernel}: block (0, 0, 0): thread ")

    @pytest.mark.parametrize("build", [Build.ASAN, Build.TSAN])
    def test_a_sound_kernel_has_no_findings(self, programs: dict[Build, Path], build: Build) -> None:
        launches = [launch_of("no_bug", grid=(3, 2, 1), seed=seed) for seed in SEEDS]
        report = run_sanitised(programs[build], launches)
        assert report.ok
        assert report.text == ""

    def test_a_finding_in_a_later_launch_is_reported(self, programs: dict[Build, Path]) -> None:
        launches = [launch_of("no_bug"), launch_of("cast_out_of_range")]
        assert not run_sanitised(programs[Build.ASAN], launches).ok

    def test_a_kernel_that_is_not_there_is_no_finding_but_an_error(self, programs: dict[Build, Path]) -> None:
        with pytest.raises(RuntimeError, match="no kernel absent"):
            run_sanitised(programs[Build.ASAN], [launch_of("absent")])


class TestFaults:
    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize("kernel", FAULTS)
    def test_waiting_for_those_who_never_come_is_a_fault(
        self, buggy: CpuKernels, kernel: str, seed: int
    ) -> None:
        launch = launch_of(kernel)
        with pytest.raises(KernelFault, match=rf"^{kernel}: .*planted_bugs\.cu:\d+") as caught:
            buggy.launch(kernel, ONE, launch.block, *launch.arguments, seed=seed)
        assert caught.value.kernel == kernel
        assert caught.value.kind is FAULTS[kernel]

    def test_a_launch_after_a_fault_works(self, buggy: CpuKernels) -> None:
        out = np.zeros(64, np.float32)
        with pytest.raises(KernelFault):
            buggy.launch("barrier_after_exit", ONE, (64, 1, 1), floats(), out)
        buggy.launch("no_bug", ONE, (64, 1, 1), floats(), out)
        np.testing.assert_array_equal(out, floats().sum())

    @pytest.mark.parametrize(
        ("grid", "block"),
        [
            ((1, 1, 1), (1025, 1, 1)),
            ((1, 1, 1), (32, 33, 1)),
            ((0, 1, 1), (32, 1, 1)),
            ((1, 65536, 1), (1, 1, 1)),
        ],
    )
    def test_shapes_that_no_gpu_takes_are_refused(
        self, buggy: CpuKernels, grid: tuple[int, int, int], block: tuple[int, int, int]
    ) -> None:
        with pytest.raises(KernelFault) as caught:
            buggy.launch("no_bug", grid, block, floats(), floats())
        assert caught.value.kind is FaultKind.INVALID_LAUNCH

    def test_unwritten_shared_memory_is_other_garbage_for_each_seed(self, buggy: CpuKernels) -> None:
        # What the kernel wants is a maximum: NaN does not disturb it, a large number does.
        results = []
        for seed in SEEDS:
            out = np.zeros(64, np.float32)
            buggy.launch("unwritten_shared_memory", ONE, (64, 1, 1), floats(), out, seed=seed)
            results.append(out[0])
        assert max(results) > 1e38
        assert min(results) == 32

    def test_shared_memory_is_garbage_again_in_each_block(self, buggy: CpuKernels) -> None:
        # Read as it was left by the block before, it would be that block's values.
        out = np.zeros(64, np.float32)
        buggy.launch("unwritten_shared_memory", (2, 1, 1), (64, 1, 1), floats(), out)
        assert out.max() > 1e38


class TestThreads:
    @pytest.mark.parametrize("seed", SEEDS)
    def test_every_thread_of_every_block_runs_once(self, samples: CpuKernels, seed: int) -> None:
        grid, block = (3, 4, 5), (2, 3, 4)
        count = int(np.prod(grid) * np.prod(block))
        threads = np.full((count, 3), 99, np.uint32)
        blocks = np.full((count, 3), 99, np.uint32)
        samples.launch("indices", grid, block, threads, blocks, seed=seed)
        expected = np.indices((*grid[::-1], *block[::-1])).reshape(6, -1).T[:, ::-1]
        np.testing.assert_array_equal(np.hstack([threads, blocks]), expected)

    def test_seeds_shuffle_threads_and_blocks(self, samples: CpuKernels) -> None:
        orders = []
        for seed in SEEDS:
            order = np.zeros((8, 64), np.uint32)
            samples.launch(
                "order_of_threads", (8, 1, 1), (64, 1, 1), np.zeros(1, np.uint32), order, seed=seed
            )
            orders.append(order)
        np.testing.assert_array_equal(orders[0].ravel(), np.arange(512))
        for order in orders[1:]:
            np.testing.assert_array_equal(np.sort(order.ravel()), np.arange(512))
            assert not np.array_equal(order.argsort(axis=1), orders[0].argsort(axis=1))
            # Blocks run one after the other, in another order.
            assert set(np.ptp(order, axis=1)) == {63}
            assert not np.array_equal(order.min(axis=1).argsort(), np.arange(8))
        assert not np.array_equal(orders[1], orders[2])

    @pytest.mark.parametrize("seed", SEEDS)
    def test_nobody_passes_a_barrier_before_all_have_come(self, samples: CpuKernels, seed: int) -> None:
        order = np.zeros(1024, np.uint32)
        counters = np.zeros(1, np.uint32), np.zeros(1, np.uint32)
        samples.launch("order_after_barrier", ONE, (1024, 1, 1), *counters, order, seed=seed)
        np.testing.assert_array_equal(np.sort(order), np.arange(1024))

    def test_launches_from_another_thread_of_the_process(self, samples: CpuKernels) -> None:
        values, sums = np.arange(256, dtype=np.int32), (np.zeros(2, np.int32), np.zeros(2))
        with ThreadPoolExecutor(1) as other:
            other.submit(samples.launch, "block_sums", (2, 1, 1), (128, 1, 1), values, *sums, seed=1).result()
        np.testing.assert_array_equal(sums[0], values.reshape(2, 128).sum(axis=1))

    @pytest.mark.parametrize("seed", SEEDS)
    def test_reductions_in_shared_memory_of_templates(self, samples: CpuKernels, seed: int) -> None:
        values = np.random.default_rng(seed).integers(-1000, 1000, (50, 128), dtype=np.int32)
        whole, numbers = np.zeros(50, np.int32), np.zeros(50)
        samples.launch("block_sums", (50, 1, 1), (128, 1, 1), values, whole, numbers, seed=seed)
        np.testing.assert_array_equal(whole, values.sum(axis=1))
        np.testing.assert_array_equal(numbers, values.sum(axis=1) / 2)


class TestWarps:
    @pytest.mark.parametrize("seed", SEEDS)
    @pytest.mark.parametrize("width", [32, 16, 4])
    @pytest.mark.parametrize("amount", [0, 1, 3, 17, 31])
    def test_shuffles(self, samples: CpuKernels, amount: int, width: int, seed: int) -> None:
        lane = np.arange(64) % 32
        segment, place = lane // width * width, lane % width
        flipped = lane ^ amount
        sources = [
            segment + amount % width,
            np.where(place >= amount, lane - amount, lane),
            np.where(place + amount < width, lane + amount, lane),
            np.where(flipped < segment + width, flipped, lane),
        ]
        values = np.random.default_rng(amount).integers(-1000, 1000, 64, dtype=np.int32)
        out = np.zeros((4, 64), np.int32)
        arguments = (values, out, np.int32(amount), np.int32(width))
        samples.launch("shuffles", ONE, (64, 1, 1), *arguments, seed=seed)
        warp = np.arange(64) // 32 * 32
        np.testing.assert_array_equal(out, [values[warp + source] for source in sources])

    def test_shuffles_of_eight_bytes(self, samples: CpuKernels) -> None:
        numbers, whole = np.linspace(0, 1, 32), np.arange(32, dtype=np.int64) << 40
        expected = numbers[np.arange(32) ^ 1], whole[np.arange(32) ^ 1]
        samples.launch("shuffle_wide_types", ONE, (32, 1, 1), numbers, whole)
        np.testing.assert_array_equal(numbers, expected[0])
        np.testing.assert_array_equal(whole, expected[1])

    def test_a_lane_outside_of_the_mask_gives_garbage(self, samples: CpuKernels) -> None:
        out = np.zeros(32, np.float32)
        samples.launch("shuffle_of_half_a_warp", ONE, (32, 1, 1), floats(32), out)
        np.testing.assert_array_equal(out[:8], floats(32)[8:16])
        assert np.isnan(out[8:16]).all()

    @pytest.mark.parametrize("seed", SEEDS)
    def test_votes_count_the_lanes_of_their_mask(self, samples: CpuKernels, seed: int) -> None:
        predicate = np.ones(64, np.int32)
        predicate[[3, 40]] = 0
        predicate[48:] = 0
        out = np.zeros((3, 64), np.uint32)
        samples.launch("votes", ONE, (64, 1, 1), predicate, out, seed=seed)
        halves = out.reshape(3, 4, 16)
        assert (halves == halves[:, :, :1]).all()
        np.testing.assert_array_equal(halves[0, :, 0], [0xFFF7, 0xFFFF0000, 0xFEFF, 0])
        np.testing.assert_array_equal(halves[1, :, 0], [1, 1, 1, 0])
        np.testing.assert_array_equal(halves[2, :, 0], [0, 1, 0, 0])

    def test_votes_do_without_lanes_that_have_exited(self, samples: CpuKernels) -> None:
        out = np.zeros(32, np.uint32)
        samples.launch("votes_after_exit", ONE, (32, 1, 1), out)
        np.testing.assert_array_equal(out[:20], 0xFFFFF)


class TestAtomics:
    @pytest.mark.parametrize("seed", SEEDS)
    def test_counting_in_shared_and_global_memory(self, samples: CpuKernels, seed: int) -> None:
        values = np.random.default_rng(seed).integers(5, 250, 10_007, dtype=np.uint8)
        counts, extremes = np.zeros(256, np.uint32), np.array([999, -999], np.int32)
        total = np.zeros(1, np.float32)
        arguments = (values, np.int32(values.size), counts, extremes, total)
        samples.launch("histogram", (7, 1, 1), (96, 1, 1), *arguments, seed=seed)
        np.testing.assert_array_equal(counts, np.bincount(values, minlength=256))
        np.testing.assert_array_equal(extremes, [values.min(), values.max()])
        assert total[0] == values.sum()

    def test_exchanges_give_the_value_before(self, samples: CpuKernels) -> None:
        places = np.zeros(2 + 32, np.uint32)
        places[0] = 77
        samples.launch("exchanges", ONE, (32, 1, 1), places)
        np.testing.assert_array_equal(places, [31, 32, 77, *range(31)])


class TestNumbers:
    def test_every_half_becomes_the_float_that_numpy_makes_of_it(self, samples: CpuKernels) -> None:
        bits = np.arange(65536, dtype=np.uint16)
        out = np.zeros(65536, np.float32)
        samples.launch("from_half", (256, 1, 1), (256, 1, 1), bits, out)
        expected = bits.view(np.float16).astype(np.float32)
        numbers = ~np.isnan(expected)
        np.testing.assert_array_equal(out.view(np.uint32)[numbers], expected.view(np.uint32)[numbers])
        assert np.isnan(out[~numbers]).all()

    def test_floats_become_the_halves_that_numpy_makes_of_them(self, samples: CpuKernels) -> None:
        random = np.random.default_rng(0)
        anything = random.integers(0, 2**32, 500_000, dtype=np.uint32).view(np.float32)
        exponents = random.integers(-26, 16, 300_000, dtype=np.int32)
        in_range = np.ldexp(random.normal(0, 1, 300_000).astype(np.float32), exponents)
        halves = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float32)
        ties = np.append((halves[:-1] + halves[1:]) / 2, np.float32(65520))
        near_ties = np.concatenate(
            [ties, np.nextafter(ties, np.float32(0)), np.nextafter(ties, np.float32(1e9))]
        )
        special = np.array([0, -0.0, np.inf, -np.inf, np.nan], np.float32)
        values = np.concatenate([anything, in_range, halves, near_ties, -near_ties, special])
        assert values.dtype == np.float32
        out = np.zeros(values.size, np.uint16)
        grid = (-(-values.size // 256), 1, 1)
        samples.launch("to_half", grid, (256, 1, 1), values, out, np.int32(values.size))
        with np.errstate(over="ignore", invalid="ignore"):
            expected = values.astype(np.float16)
        numbers = ~np.isnan(expected)
        np.testing.assert_array_equal(out[numbers], expected.view(np.uint16)[numbers])
        assert (out[~numbers] == 0x7FFF).all()

    def test_conversions_round_as_named_and_saturate(self, samples: CpuKernels) -> None:
        values = np.array([-2.5, -0.5, 0.5, 1.5, 2.7, np.nan, 3e9, -3e9, 1e30, np.inf, -np.inf], np.float32)
        n = values.size
        whole, natural = np.zeros((4, n), np.int32), np.zeros((2, n), np.uint32)
        numbers = np.zeros((2, n), np.float32)
        samples.launch("conversions", ONE, (n, 1, 1), values, whole, natural, numbers)
        exact = np.nan_to_num(values.astype(np.float64))
        limits = np.iinfo(np.int32)
        for row, rounded in zip(whole, (np.rint, np.trunc, np.floor, np.ceil), strict=True):
            np.testing.assert_array_equal(row, np.clip(rounded(exact), limits.min, limits.max))
        np.testing.assert_array_equal(natural[0], np.clip(np.rint(exact), 0, 2**32 - 1))
        np.testing.assert_array_equal(natural[1], values.view(np.uint32))
        np.testing.assert_array_equal(numbers[0], np.clip(exact, 0, 1))
        np.testing.assert_array_equal(numbers[1], values)


class Mixed(ctypes.Structure):
    _fields_ = (("first", ctypes.c_byte), ("second", ctypes.c_double))


class TestArguments:
    def test_each_lies_at_its_natural_alignment(self, samples: CpuKernels) -> None:
        out = np.zeros(8)
        arguments = (
            ctypes.c_byte(-3),
            ctypes.c_double(0.1),
            np.int16(-300),
            Mixed(7, 2.5),
            None,
            np.float32(4),
            ctypes.c_bool(True),
            out,
        )
        samples.launch("parameters", ONE, ONE, *arguments)
        np.testing.assert_array_equal(out, [-3, 0.1, -300, 7, 2.5, 4, 1, 0])

    def test_a_python_number_is_refused_because_its_size_is_unknown(self, samples: CpuKernels) -> None:
        with pytest.raises(TypeError, match="no size"):
            samples.launch("from_half", ONE, ONE, 1, 2.0)

    def test_an_array_with_gaps_is_refused(self, samples: CpuKernels) -> None:
        with pytest.raises(ValueError, match="C-contiguous"):
            samples.launch("from_half", ONE, ONE, np.zeros(8, np.uint16)[::2], np.zeros(4, np.float32))


class TestCompiling:
    def test_what_is_in_the_cache_is_used_until_an_included_file_changes(self, tmp_path: Path) -> None:
        source, header = tmp_path / "kernels.cu", tmp_path / "value.cuh"
        source.write_text(
            '#include "value.cuh"\nextern "C" __global__ void fill(int* out) { *out = VALUE; }\n'
        )
        header.write_text("#define VALUE 1\n")
        first = compile_kernels(source, ["fill"], tmp_path / "cache")
        written = first.stat().st_mtime_ns
        assert compile_kernels(source, ["fill"], tmp_path / "cache") == first
        assert first.stat().st_mtime_ns == written

        header.write_text("#define VALUE 2\n")
        results = []
        for library in (first, compile_kernels(source, ["fill"], tmp_path / "cache")):
            out = np.zeros(1, np.int32)
            CpuKernels(library).launch("fill", ONE, ONE, out)
            results.append(out[0])
        assert results == [1, 2]

    def test_what_the_compiler_says_is_in_the_error(self, tmp_path: Path) -> None:
        source = tmp_path / "kernels.cu"
        source.write_text('extern "C" __global__ void broken(int* out) { *out = missing_name; }\n')
        with pytest.raises(CompileError, match="missing_name"):
            compile_kernels(source, ["broken"], tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["kernels.cu"]
