"""A plan ready to run: on stand-ins for TensorRT and the driver, each test in a process of its own; on a GPU.

The stand-ins run the same ONNX through ONNX Runtime, once the stream comes to it: answers are just its own.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from fake_gpu import assert_nothing_is_left, count, environment, in_a_process, on_the_fake_gpu, run_gpu_tests
from onnx import TensorProto, helper, numpy_helper
from typed_models import SHAPE, grader, needs_rtx

from stenosis_trt.engine.cuda.device import Device, Stream
from stenosis_trt.engine.cuda.driver import CudaError
from stenosis_trt.engine.cuda.graph import Graph
from stenosis_trt.engine.cuda.memory import DeviceBuffer
from stenosis_trt.engine.errors import TensorRTError
from stenosis_trt.engine.support.hardware import query_nvidia_driver
from stenosis_trt.engine.trt.api import TensorRT, installed_flavours
from stenosis_trt.engine.trt.engine import LoadedPlan
from stenosis_trt.engine.trt.flavours import FLAVOURS, BuildSettings

BATCHES = (1, 2, 8)


@functools.cache
def _tensorrt(name: str = "tensorrt") -> TensorRT:
    return TensorRT(FLAVOURS[name])


@functools.cache
def _plan(model: bytes, flavour: str = "tensorrt", batches: tuple[int, ...] = BATCHES) -> bytes:
    return _tensorrt(flavour).build(model, SHAPE, BuildSettings(batches)).data


def _answers(model: bytes, images: np.ndarray) -> np.ndarray:
    """ONNX Runtime's."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    answers: np.ndarray = session.run(None, {session.get_inputs()[0].name: images})[0]
    return answers


def _images(batch: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((batch, *SHAPE)).astype(np.float32)


@dataclass
class _Bench:
    """A loaded plan with memory for its largest batch."""

    device: Device
    stream: Stream
    plan: LoadedPlan
    images: DeviceBuffer
    answers: DeviceBuffer
    scratch: DeviceBuffer

    def prepare(self, batch: int, **other: int) -> None:
        places = {
            "input": self.images.address,
            "output": self.answers.address,
            "scratch": self.scratch.address,
        }
        places |= other
        self.plan.prepare(batch, places["input"], places["output"], places["scratch"], self.stream)

    def upload(self, images: np.ndarray) -> None:
        self.images.copy_from(images.astype(self.plan.input_dtype), self.stream)

    def enqueue(self, batch: int) -> None:
        self.plan.enqueue(batch, self.stream)

    def download(self, batch: int) -> np.ndarray:
        result = np.empty((batch, *self.plan.output_shape), self.plan.output_dtype)
        self.answers.copy_to(result, self.stream)
        self.stream.synchronize()
        return result

    def run(self, images: np.ndarray) -> np.ndarray:
        self.prepare(len(images))
        self.upload(images)
        self.enqueue(len(images))
        return self.download(len(images))


@contextmanager
def _loaded(model: bytes, flavour: str = "tensorrt", batches: tuple[int, ...] = BATCHES) -> Iterator[_Bench]:
    with ExitStack() as stack:
        device = stack.enter_context(Device())
        stack.enter_context(device.current())
        yield _bench(device, stack, model, flavour, batches)


def _bench(
    device: Device,
    stack: ExitStack,
    model: bytes,
    flavour: str = "tensorrt",
    batches: tuple[int, ...] = BATCHES,
) -> _Bench:
    plan = stack.enter_context(LoadedPlan(_tensorrt(flavour), _plan(model, flavour, batches), batches))
    most = batches[-1]
    sizes = (
        most * int(np.prod(plan.input_shape)) * plan.input_dtype.itemsize,
        most * int(np.prod(plan.output_shape)) * plan.output_dtype.itemsize,
        max(plan.scratch_bytes, 1),
    )
    buffers = [stack.enter_context(DeviceBuffer(device, size)) for size in sizes]
    return _Bench(device, stack.enter_context(Stream(device)), plan, *buffers)


def _model(
    nodes: list[onnx.NodeProto],
    outputs: dict[str, tuple[int, list[Any]]],
    inputs: dict[str, tuple[int, list[Any]]] | None = None,
    **constants: np.ndarray,
) -> bytes:
    """Of an "image" of (N, 3, 64, 64) where no inputs are given; (type, shape) by name."""
    inputs = inputs or {"image": (TensorProto.FLOAT, ["batch", *SHAPE])}
    graph = helper.make_graph(
        nodes,
        "made",
        [helper.make_tensor_value_info(name, *kind) for name, kind in inputs.items()],
        [helper.make_tensor_value_info(name, *kind) for name, kind in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    return bytes(model.SerializeToString())


@contextmanager
def _asked_to_fail(what: str) -> Iterator[None]:
    os.environ["STAND_IN_TENSORRT_FAIL"] = what
    try:
        yield
    finally:
        del os.environ["STAND_IN_TENSORRT_FAIL"]


# On the stand-ins


@on_the_fake_gpu()
def test_every_batch_and_precision_answers_what_onnx_runtime_does() -> None:
    for precision in ("fp32", "fp16", "int8"):
        model = grader(precision)
        with _loaded(model) as bench:
            plan = bench.plan
            assert (plan.batches, plan.input_shape, plan.output_shape) == (BATCHES, SHAPE, (4,))
            assert (plan.input_dtype, plan.output_dtype) == (np.float32, np.float32)
            for batch in (8, 1, 2, 8):
                images = _images(batch, seed=batch)
                assert np.array_equal(bench.run(images), _answers(model, images))
    assert_nothing_is_left()


@on_the_fake_gpu(STAND_IN_TENSORRT_SCRATCH="0")
def test_half_precision_open_sizes_and_no_scratch_memory_are_taken_as_they_are() -> None:
    open_sizes = {"image": (TensorProto.FLOAT16, ["batch", 3, None, None])}
    nodes = [
        helper.make_node("AveragePool", ["image"], ["small"], kernel_shape=[4, 4], strides=[4, 4]),
        helper.make_node("Expand", ["small", "shape"], ["maps"]),
    ]
    outputs = {"maps": (TensorProto.FLOAT16, ["batch", 3, None, None])}
    model = _model(nodes, outputs, open_sizes, shape=np.array([1, 3, 1, 1]))
    with _loaded(model) as bench:
        plan = bench.plan
        assert (plan.input_shape, plan.output_shape) == (SHAPE, (3, 16, 16))
        assert (plan.input_dtype, plan.output_dtype) == (np.float16, np.float16)
        assert plan.scratch_bytes == 0
        images = _images(2)
        assert np.array_equal(bench.run(images), _answers(model, images.astype(np.float16)))


@on_the_fake_gpu()
def test_a_batch_runs_when_its_stream_comes_to_it() -> None:
    with _loaded(grader("fp32")) as bench:
        bench.prepare(2)
        bench.answers.fill(0, bench.stream)
        bench.enqueue(2)
        bench.upload(_images(2))
        early = bench.download(2)
        bench.enqueue(2)
        assert np.isnan(early).all()  # of memory that nothing has been written to
        assert np.array_equal(bench.download(2), _answers(grader("fp32"), _images(2)))


@on_the_fake_gpu()
def test_a_graph_runs_a_batch_each_time_on_what_is_there_then() -> None:
    model = grader("fp32")
    with _loaded(model) as bench:
        bench.run(_images(8))
        other = Stream(bench.device)
        graph = Graph(bench.stream, functools.partial(bench.enqueue, 8))
        # What is bound afterwards changes nothing in the graph.
        elsewhere = DeviceBuffer(bench.device, bench.answers.nbytes)
        bench.prepare(8, output=elsewhere.address)
        for seed in (1, 2):
            images = _images(8, seed)
            bench.upload(images)
            bench.stream.synchronize()
            bench.answers.fill(0, other)
            graph.launch(other)
            other.synchronize()
            assert np.array_equal(bench.download(8), _answers(model, images))
        graph.close()
        elsewhere.close()
        other.close()
    assert_nothing_is_left()


@on_the_fake_gpu()
def test_a_graph_is_refused_once_its_plan_is_closed() -> None:
    with _loaded(grader("fp32")) as bench:
        bench.run(_images(1))
        graph = Graph(bench.stream, functools.partial(bench.enqueue, 1))
        bench.plan.close()
        with pytest.raises(CudaError, match="A LoadedPlan that this graph uses is closed"):
            graph.launch(bench.stream)
        graph.close()


@on_the_fake_gpu()
def test_preparing_again_with_the_same_addresses_does_nothing() -> None:
    with _loaded(grader("fp32")) as bench:
        before = count("device_memory")
        bench.run(_images(1))
        bench.run(_images(8))
        contexts = count("device_memory") - before
        assert contexts == 1  # that of the first batch was there
        for batch in (1, 8):
            bench.prepare(batch)
        # It still counts as having run uncaptured.
        with Graph(bench.stream, functools.partial(bench.enqueue, 8)):
            assert count("device_memory") - before == contexts


@on_the_fake_gpu()
def test_plans_on_one_stream_share_scratch_memory() -> None:
    first, second = grader("fp32"), grader("int8")
    with _loaded(first) as bench, ExitStack() as stack:
        other = _bench(bench.device, stack, second)
        assert other.plan.scratch_bytes == bench.plan.scratch_bytes > 0
        images = _images(8)
        for each in (bench, other):
            each.prepare(8, scratch=bench.scratch.address)
            each.upload(images)
        other.stream.synchronize()
        bench.stream.synchronize()
        for each in (bench, other):
            each.plan.enqueue(8, bench.stream)
        assert np.array_equal(bench.download(8), _answers(first, images))
        assert np.array_equal(other.download(8), _answers(second, images))


@on_the_fake_gpu()
def test_what_has_not_run_since_it_was_prepared_cannot_be_captured_and_then_can() -> None:
    with _loaded(grader("fp32")) as bench:
        bench.prepare(1)
        with pytest.raises(TensorRTError, match=r"cannot run a batch of 1: .*has to run once before"):
            Graph(bench.stream, functools.partial(bench.enqueue, 1))
        with pytest.raises(CudaError, match="Resources cannot be created"):
            Graph(bench.stream, functools.partial(bench.prepare, 2))
        assert np.array_equal(bench.run(_images(1)), _answers(grader("fp32"), _images(1)))
        Graph(bench.stream, functools.partial(bench.enqueue, 1)).close()


@on_the_fake_gpu()
def test_tensorrt_rtx_compiles_at_once_and_leaves_graphs_to_others() -> None:
    model = grader("fp16")
    with _loaded(model, "tensorrt-rtx") as bench:
        images = _images(2)
        assert np.array_equal(bench.run(images), _answers(model, images))
        with Graph(bench.stream, functools.partial(bench.enqueue, 2)) as graph:
            images = _images(2, seed=3)
            bench.upload(images)
            graph.launch(bench.stream)
            assert np.array_equal(bench.download(2), _answers(model, images))
    assert_nothing_is_left()


def _refusals() -> Iterator[tuple[bytes, tuple[int, ...], str]]:
    """A plan, the batches of its sidecar, and what the error says."""
    plan = _plan(grader("fp32"))
    yield b"garbage", BATCHES, "rejects the plan: .*wrong magic"
    yield plan[:60], BATCHES, "rejects the plan: .*cut short"
    yield plan.replace(b"10.3.0", b"10.4.0"), BATCHES, "rejects the plan: .*tensorrt 10.4.0"
    for batches in ((1, 2), (1, 2, 4), (1, 2, 8, 16)):
        yield plan, batches, rf"profiles of \(1, 3, 64, 64\); .* batches of {', '.join(map(str, batches))}\."
    image = (TensorProto.FLOAT, ["batch", *SHAPE])
    relu = [helper.make_node("Relu", ["image"], ["out"])]
    two = [*relu, helper.make_node("Abs", ["image"], ["more"])]
    yield _plan(_model(two, {"out": image, "more": image})), BATCHES, "1 inputs and 2 outputs"
    whole = [helper.make_node("ArgMax", ["image"], ["out"], axis=1)]
    integers = {"out": (TensorProto.INT64, ["batch", 1, 64, 64])}
    yield _plan(_model(whole, integers)), BATCHES, "'out' is INT64"
    mean = [helper.make_node("ReduceMean", ["image", "axes"], ["out"])]
    one = _model(mean, {"out": (TensorProto.FLOAT, [1, *SHAPE])}, axes=np.array([0]))
    yield _plan(one, batches=(2, 8)), (2, 8), r"for a batch of 2 has the shape \(1, 3, 64, 64\)"


@on_the_fake_gpu()
def test_a_plan_that_is_not_what_its_sidecar_says_is_refused_when_it_is_loaded() -> None:
    with Device() as device, device.current():
        for plan, batches, message in _refusals():
            with pytest.raises(TensorRTError, match=message) as caught:
                LoadedPlan(_tensorrt(), plan, batches)
            assert caught.value.advice
            assert not caught.value.out_of_memory
            del caught
            assert count("device_memory") == 0
    assert_nothing_is_left()


@on_the_fake_gpu()
def test_what_tensorrt_refuses_is_told_in_its_words_and_can_be_mended() -> None:
    with _loaded(grader("fp32")) as bench, ExitStack() as stack:
        small = stack.enter_context(DeviceBuffer(bench.device, 64))
        gone = DeviceBuffer(bench.device, bench.images.nbytes)
        gone.close()
        for changed, message in (
            ({"input": 0}, "image has no address"),
            ({"output": 0}, "out has no address"),
            ({"input": bench.images.address + 16}, "image is no multiple of 256"),
            ({"output": small.address}, "out is not at 128 bytes of live memory"),
            ({"input": gone.address}, "image is not at .* live memory"),
            ({"scratch": 0}, "524288 bytes of scratch memory are needed"),
            ({"scratch": small.address}, "scratch memory is not 524288 bytes of live memory"),
        ):
            bench.prepare(8, **changed)
            with pytest.raises(TensorRTError, match=f"cannot run a batch of 8: .*{message}"):
                bench.enqueue(8)
        images = _images(8)
        assert np.array_equal(bench.run(images), _answers(grader("fp32"), images))


@on_the_fake_gpu()
def test_what_is_not_there_to_be_run_is_refused() -> None:
    with _loaded(grader("fp32")) as bench:
        for use in (bench.prepare, bench.enqueue):
            with pytest.raises(ValueError, match="A batch of 4: the plan was built for 1, 2, 8"):
                use(4)
        with pytest.raises(ValueError, match="A batch of 2 is not prepared"):
            bench.enqueue(2)
        bench.plan.close()
        bench.plan.close()
        for use in (bench.prepare, bench.enqueue):
            with pytest.raises(ValueError, match="closed"):
                use(1)


@on_the_fake_gpu()
def test_what_fails_on_the_way_leaves_a_plan_that_works_when_it_fails_no_more() -> None:
    images, expected = _images(2), _answers(grader("fp32"), _images(2))
    with Device() as device, device.current():
        for failure, message in (("deserialise", "rejects the plan"), ("context", "OutOfMemory")):
            with _asked_to_fail(failure), pytest.raises(TensorRTError, match=message) as caught:
                LoadedPlan(_tensorrt(), _plan(grader("fp32")), BATCHES)
            assert caught.value.out_of_memory == (failure == "context")
            del caught
            assert count("device_memory") == 0
    for failure, message in (
        ("context", "makes no execution context: .*OutOfMemory"),
        ("profile", "rejects profile 1: .*no optimization profile 1"),
        ("shape", "rejects the shape"),
        ("address", "rejects the address of 'image'"),
        ("enqueue", "cannot run a batch of 2: .*asked to fail"),
    ):
        with _loaded(grader("fp32")) as bench:
            with _asked_to_fail(failure), pytest.raises(TensorRTError, match=message) as caught:
                bench.run(images)
            assert caught.value.out_of_memory == (failure == "context")
            assert np.array_equal(bench.run(images), expected)


@on_the_fake_gpu()
def test_a_capture_that_tensorrt_refuses_leaves_plain_runs() -> None:
    with _loaded(grader("fp32")) as bench:
        images = _images(2)
        bench.run(images)
        with _asked_to_fail("capture"), pytest.raises(TensorRTError, match="asked not to be captured"):
            Graph(bench.stream, functools.partial(bench.enqueue, 2))
        assert np.array_equal(bench.run(images), _answers(grader("fp32"), images))
        assert (count("graphs"), count("graph_execs")) == (0, 0)


@on_the_fake_gpu(FAKE_CUDA_MEMORY="70000")
def test_memory_that_is_short_is_told_as_such() -> None:
    plan = _plan(grader("fp32"))
    with Device() as device, device.current():
        with DeviceBuffer(device, 70000 - len(plan) // 2):
            with pytest.raises(TensorRTError, match=r"rejects the plan: .*OutOfMemory") as caught:
                LoadedPlan(_tensorrt(), plan, BATCHES)
            assert caught.value.out_of_memory
        with DeviceBuffer(device, 70000 - len(plan) - 2048):
            with pytest.raises(TensorRTError, match=r"makes no execution context: .*OutOfMemory") as caught:
                LoadedPlan(_tensorrt(), plan, BATCHES)
            assert caught.value.out_of_memory
            assert "End other programs" in caught.value.advice
        LoadedPlan(_tensorrt(), plan, BATCHES).close()


@on_the_fake_gpu(FAKE_CUDA_FAIL="cuLaunchHostFunc=719")
def test_the_drivers_error_is_in_tensorrts_words() -> None:
    with (
        _loaded(grader("fp32")) as bench,
        pytest.raises(TensorRTError, match=r"Cuda Runtime \(unspecified launch failure\)"),
    ):
        bench.run(_images(1))


@on_the_fake_gpu()
def test_a_plan_that_goes_before_its_run_loses_the_device_and_all_can_be_closed() -> None:
    with _loaded(grader("fp32")) as bench:
        bench.prepare(1)
        bench.enqueue(1)
        bench.plan.close()
        with pytest.raises(CudaError, match="CUDA_ERROR_ILLEGAL_ADDRESS") as caught:
            bench.stream.synchronize()
        assert caught.value.device_lost
    assert_nothing_is_left()


@on_the_fake_gpu()
def test_a_graph_whose_memory_is_gone_loses_the_device() -> None:
    with _loaded(grader("fp32")) as bench:
        bench.run(_images(1))
        graph = Graph(bench.stream, functools.partial(bench.enqueue, 1))
        bench.images.close()
        graph.launch(bench.stream)
        with pytest.raises(CudaError, match="CUDA_ERROR_ILLEGAL_ADDRESS"):
            bench.stream.synchronize()
        with pytest.raises(TensorRTError, match="an illegal memory access was encountered"):
            bench.enqueue(1)


@on_the_fake_gpu()
def test_another_thread_may_use_the_device_while_a_batch_runs() -> None:
    model = grader("fp32")
    with _loaded(model) as bench:
        expected = [_answers(model, _images(8, seed)) for seed in range(4)]
        stop, made = threading.Event(), []

        def make() -> None:
            while not stop.is_set():
                with DeviceBuffer(bench.device, 1 << 20) as buffer:
                    made.append(buffer.address)

        thread = threading.Thread(target=make)
        thread.start()
        try:
            for seed in [*range(4)] * 5:
                assert np.array_equal(bench.run(_images(8, seed)), expected[seed])
        finally:
            stop.set()
            thread.join()
        assert made


@on_the_fake_gpu()
def test_a_thousand_runs_and_a_hundred_plans_leave_nothing_behind() -> None:
    with _loaded(grader("fp32")) as bench:
        for batch in BATCHES:
            bench.run(_images(batch))
        kinds = ("device_memory", "host_memory", "streams", "events", "graphs", "graph_execs")
        before = {kind: count(kind) for kind in kinds}
        graph = Graph(bench.stream, functools.partial(bench.enqueue, 2))
        for number in range(1000):
            batch = BATCHES[number % 3]
            bench.prepare(batch)
            bench.enqueue(batch)
            graph.launch(bench.stream)
            if number % 50 == 0:
                bench.stream.synchronize()
        bench.stream.synchronize()
        graph.close()
        assert {kind: count(kind) for kind in kinds} == before
        for _ in range(100):
            with LoadedPlan(_tensorrt(), _plan(grader("fp32")), BATCHES) as plan:
                plan.prepare(
                    2, bench.images.address, bench.answers.address, bench.scratch.address, bench.stream
                )
                plan.enqueue(2, bench.stream)
                bench.stream.synchronize()
        assert {kind: count(kind) for kind in kinds} == before
    assert_nothing_is_left()


@needs_rtx
def test_the_stand_in_offers_nothing_that_tensorrt_rtx_does_not() -> None:
    """Without the stand-in driver: TensorRT-RTX's bindings are loaded beside the stand-in."""
    there = environment()
    del there["LD_LIBRARY_PATH"]
    in_a_process(Path(__file__), "_compare_with_the_bindings()", there)


def _compare_with_the_bindings() -> None:
    import tensorrt_rtx as stand_in
    import tensorrt_rtx_bindings as real
    from tensorrt import _building, _running

    compared = 0
    for name, kind in {**vars(_building), **vars(_running), **vars(stand_in)}.items():
        if isinstance(kind, type) and kind.__module__.startswith("tensorrt") and hasattr(real, name):
            offered = getattr(kind, "__members__", dir(kind))
            assert {each for each in offered if each[0] != "_"} <= set(dir(getattr(real, name))), name
            compared += 1
    assert compared > 20


def test_the_gpu_tests_of_this_module_pass_on_the_stand_ins(tmp_path: Path) -> None:
    """So that what cannot be run without a GPU is not run there for the first time."""
    there = environment(FAKE_CUDA_CAPABILITY="89")
    assert run_gpu_tests(Path(__file__), tmp_path / "report.xml", there) == 6


# On a GPU


@pytest.fixture(params=FLAVOURS)
def flavour(request: pytest.FixtureRequest) -> str:
    """Each that is installed and runs on this GPU; skips, and says why, where it does not."""
    name, driver = str(request.param), query_nvidia_driver()
    if not driver.gpus:
        pytest.skip(f"needs an NVIDIA GPU: {driver.unavailable_reason}")
    if name not in installed_flavours():
        pytest.skip(f"needs {name}: {FLAVOURS[name].install}")
    if FLAVOURS[name].builds_without_gpu and not FLAVOURS[name].runs_on(driver.gpus[0].compute_capability):
        pytest.skip(f"{name} does not run on {driver.gpus[0].name}")
    return name


@pytest.mark.gpu
def test_on_a_gpu_every_precision_answers_as_onnx_runtime_does(flavour: str) -> None:
    """Probabilities: the sizes of the steps of FP16 and INT8 show in them."""
    for precision, most in (("fp32", 1e-4), ("fp16", 5e-3), ("int8", 5e-2)):
        model = grader(precision)
        with _loaded(model, flavour) as bench:
            for batch in BATCHES:
                images = _images(batch, seed=batch)
                assert np.abs(bench.run(images) - _answers(model, images)).max() <= most, (precision, batch)


@pytest.mark.gpu
def test_on_a_gpu_a_graph_answers_what_a_plain_run_does_for_every_batch(flavour: str) -> None:
    with _loaded(grader("fp16"), flavour) as bench:
        for batch in BATCHES:
            plain = [bench.run(_images(batch, seed)) for seed in range(3)]
            with Graph(bench.stream, functools.partial(bench.enqueue, batch)) as graph:
                for seed in range(3):
                    bench.upload(_images(batch, seed))
                    bench.answers.fill(0, bench.stream)
                    graph.launch(bench.stream)
                    assert np.array_equal(bench.download(batch), plain[seed])


@pytest.mark.gpu
def test_on_a_gpu_runs_and_plans_take_no_more_memory_with_time(flavour: str) -> None:
    with _loaded(grader("fp16"), flavour) as bench:

        def round_trip() -> None:
            with LoadedPlan(_tensorrt(flavour), _plan(grader("fp16"), flavour), BATCHES) as plan:
                plan.prepare(
                    8, bench.images.address, bench.answers.address, bench.scratch.address, bench.stream
                )
                for _ in range(50):
                    plan.enqueue(8, bench.stream)
                bench.stream.synchronize()

        round_trip()
        before = bench.device.memory()[0]
        for _ in range(10):
            round_trip()
        assert before - bench.device.memory()[0] < 16 << 20
