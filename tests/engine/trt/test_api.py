"""TensorRT-RTX's real parser and builder, which need no GPU; what flavours have; a stub of TensorRT."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from typed_models import NO_GPU, SHAPE, grader, needs_rtx, unknown_operator

from stenosis_trt.engine.cli.options import parse_batches, parse_capabilities, parse_names
from stenosis_trt.engine.errors import TensorRTError
from stenosis_trt.engine.packs.models import MODEL_NAMES
from stenosis_trt.engine.packs.pack import Pack, reference_pack
from stenosis_trt.engine.plans.build import check_precision
from stenosis_trt.engine.plans.store import model_files, read_model_file
from stenosis_trt.engine.plans.target import choose_flavour, select_gpu
from stenosis_trt.engine.support.hardware import Gpu, NvidiaDriver, query_nvidia_driver
from stenosis_trt.engine.support.sizes import parse_size
from stenosis_trt.engine.trt.api import TensorRT, installed_flavours
from stenosis_trt.engine.trt.flavours import DEFAULT_BATCHES, FLAVOURS, BuildSettings, Capability
from stenosis_trt.engine.trt.progress import BuildProgress

RTX, TENSORRT = FLAVOURS["tensorrt-rtx"], FLAVOURS["tensorrt"]


def _with(capability: Capability, name: str = "NVIDIA Test") -> NvidiaDriver:
    return NvidiaDriver((13, 0), (Gpu(name, capability, 8 << 30),), "")


@pytest.fixture(scope="module")
def rtx() -> TensorRT:
    return TensorRT(RTX)


# The real builder


@needs_rtx
@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        ("fp32", {"convolution float32": 1}),
        ("fp16", {"convolution float16": 1}),
        ("int8", {"convolution int8": 1, "quantize": 2, "dequantize": 2}),
    ],
)
def test_the_parsed_network_computes_in_what_the_file_says(
    rtx: TensorRT, precision: str, expected: dict[str, int]
) -> None:
    network = rtx.parse_network(grader(precision))
    assert network.layer_counts == expected
    assert (network.inputs, network.outputs) == ({"image": "float32"}, {"out": "float32"})
    assert len(rtx.build(grader(precision), SHAPE, BuildSettings((1, 8))).data) > 10_000


@needs_rtx
def test_every_file_of_the_reference_pack_computes_in_what_the_pack_says(rtx: TensorRT) -> None:
    """FP32 too: weights are stored as FP16 and cast, which must not decide what a network computes in."""
    pack = Pack.load(reference_pack())
    for name in MODEL_NAMES:
        for precision, file in model_files(pack, name).items():
            network = rtx.parse_network(read_model_file(pack, name, file))
            assert len(network.layers) > 20
            check_precision(precision, network)


@needs_rtx
@pytest.mark.parametrize("name", ["levels", "cord"])
def test_plans_of_the_reference_pack_are_built_with_progress_that_rises_to_the_end(
    rtx: TensorRT, name: str
) -> None:
    pack, seen = Pack.load(reference_pack()), []

    def report(done: int, total: int) -> None:
        seen.append(done)
        assert total == 100

    shape = pack.models[name].input_shape
    plan = rtx.build(pack.read_model(name), shape, BuildSettings((1, 8)), report=report)
    assert len(plan.data) > 1_000_000
    assert plan.seconds > 0
    assert seen == sorted(set(seen))
    assert seen[-1] == 100
    assert len(seen) > 10


@needs_rtx
def test_the_grader_of_the_reference_pack_is_built(rtx: TensorRT) -> None:
    pack = Pack.load(reference_pack())
    built = rtx.build(pack.read_model("grader"), pack.models["grader"].input_shape, BuildSettings((6,)))
    assert built.layers["convolution float32"] > 100


@needs_rtx
def test_an_operator_that_is_not_known_is_named_with_its_node(rtx: TensorRT) -> None:
    with pytest.raises(TensorRTError, match=r"node determinant \(Det\): unsupported node"):
        rtx.build(unknown_operator(), SHAPE, BuildSettings((1,)))


@needs_rtx
def test_what_is_no_onnx_is_refused(rtx: TensorRT) -> None:
    with pytest.raises(TensorRTError, match="cannot take the ONNX model"):
        rtx.parse_network(b"garbage")


@needs_rtx
def test_a_fixed_batch_and_another_size_are_refused_before_building(rtx: TensorRT) -> None:
    with pytest.raises(TensorRTError, match="dynamic batch"):
        rtx.build(grader("fp32", batch=4), SHAPE, BuildSettings((1, 8)))
    with pytest.raises(TensorRTError, match=r"\(-1, 3, 64, 64\), and the pack says \(-1, 3, 32, 32\)"):
        rtx.build(grader("fp32"), (3, 32, 32), BuildSettings((1, 8)))


@needs_rtx
def test_every_option_of_the_flavour_builds(rtx: TensorRT) -> None:
    settings = BuildSettings(
        batches=(2,),
        builder_level=5,
        workspace_bytes=1 << 28,
        tf32=True,
        compute_capabilities=((8, 6), (12, 0)),
        detailed=True,
    )
    RTX.check(settings)
    assert rtx.build(grader("fp32"), SHAPE, settings).data


@needs_rtx
def test_every_compute_capability_that_can_be_asked_for_is_one_of_the_library(rtx: TensorRT) -> None:
    for capability in RTX.targets:
        assert rtx.build(grader("fp32"), SHAPE, BuildSettings((1,), compute_capabilities=(capability,))).data


@needs_rtx
@pytest.mark.skipif(bool(query_nvidia_driver().gpus), reason="there is a GPU")
def test_a_plan_without_a_gpu_is_refused_in_the_librarys_words(rtx: TensorRT) -> None:
    plan = rtx.build(grader("fp32"), SHAPE, BuildSettings((1,)))
    with pytest.raises(TensorRTError, match=r"rejects the plan: .*CUDA"):
        rtx.deserialise(plan.data)


@pytest.mark.gpu
@needs_rtx
def test_a_plan_is_deserialised_with_a_profile_for_each_batch(rtx: TensorRT) -> None:
    gpus = query_nvidia_driver().gpus
    if not gpus or not RTX.runs_on(gpus[0].compute_capability):
        pytest.skip("needs a GPU that TensorRT-RTX runs on")
    plan = rtx.build(grader("fp32"), SHAPE, BuildSettings((1, 8)))
    assert rtx.deserialise(plan.data).num_optimization_profiles == 2


# What flavours have, and which is taken


def test_a_flavour_that_is_not_installed_says_what_to_install() -> None:
    missing = next((name for name in FLAVOURS if name not in installed_flavours()), None)
    if missing is None:
        pytest.skip("both are installed")
    with pytest.raises(TensorRTError, match=r"is not installed.*Install it: "):
        TensorRT(FLAVOURS[missing])


@pytest.mark.parametrize(
    ("settings", "option"),
    [
        (BuildSettings(version_compatible=True), "--version-compatible"),
        (BuildSettings(hardware_compatible="ampere-plus"), "--hardware-compatible"),
        (BuildSettings(dla_core=0), "--dla-core"),
    ],
)
def test_what_tensorrt_rtx_lacks_is_refused_by_the_name_of_the_option(
    settings: BuildSettings, option: str
) -> None:
    TENSORRT.check(settings)
    with pytest.raises(TensorRTError, match=rf"{option}.*--flavour tensorrt"):
        RTX.check(settings)


def test_compute_capabilities_are_asked_of_tensorrt_rtx_and_only_known_ones() -> None:
    asked = BuildSettings(compute_capabilities=((8, 6),))
    RTX.check(asked)
    with pytest.raises(TensorRTError, match="--compute-capability"):
        TENSORRT.check(asked)
    with pytest.raises(TensorRTError, match=r"cannot build for compute capability 9\.0"):
        RTX.check(BuildSettings(compute_capabilities=((8, 6), (9, 0))))


@pytest.mark.parametrize("capability", [(8, 0), (8, 6), (8, 9), (12, 0), (12, 1), (13, 0)])
def test_plans_of_tensorrt_rtx_run_from_ampere_on(capability: Capability) -> None:
    assert RTX.runs_on(capability)
    assert select_gpu(RTX, BuildSettings(), _with(capability)) is None


@pytest.mark.parametrize("capability", [(7, 5), (8, 7), (9, 0), (10, 0), (11, 0)])
def test_a_gpu_that_tensorrt_rtx_does_not_run_on_is_refused_before_building(capability: Capability) -> None:
    with pytest.raises(TensorRTError, match="do not run on this machine's NVIDIA Test"):
        select_gpu(RTX, BuildSettings(), _with(capability))
    assert select_gpu(RTX, BuildSettings(compute_capabilities=((8, 6),)), _with(capability)) is None


def test_a_refused_gpu_is_told_what_to_do_instead() -> None:
    with pytest.raises(TensorRTError, match=r"Use TensorRT here .*--compute-capability 8\.0,8\.6"):
        select_gpu(RTX, BuildSettings(), _with((9, 0)))
    with pytest.raises(TensorRTError, match=r"Give --compute-capability 7\.5"):
        select_gpu(RTX, BuildSettings(), _with((7, 5)))


def test_tensorrt_builds_on_the_gpu_it_builds_for() -> None:
    assert select_gpu(TENSORRT, BuildSettings(), _with((8, 7), "Orin")) == Gpu("Orin", (8, 7), 8 << 30)
    with pytest.raises(TensorRTError, match="here is none: no NVIDIA driver was found"):
        select_gpu(TENSORRT, BuildSettings(), NO_GPU)


def test_of_two_flavours_the_one_that_suits_the_machine_is_taken() -> None:
    both = ("tensorrt", "tensorrt-rtx")
    assert choose_flavour(None, both, _with((9, 0))) is TENSORRT
    assert choose_flavour(None, both, NO_GPU) is RTX
    assert choose_flavour(None, ("tensorrt-rtx",), _with((9, 0))) is RTX
    assert choose_flavour("tensorrt-rtx", both, _with((9, 0))) is RTX
    with pytest.raises(TensorRTError, match="tensorrt is not installed"):
        choose_flavour("tensorrt", ("tensorrt-rtx",), NO_GPU)
    with pytest.raises(TensorRTError, match="Neither TensorRT nor TensorRT-RTX"):
        choose_flavour(None, (), NO_GPU)


@pytest.mark.parametrize(
    "change",
    [
        {"batches": ()},
        {"batches": (0,)},
        {"batches": (8, 1)},
        {"batches": (1, 1)},
        {"batches": (5000,)},
        {"builder_level": 6},
        {"builder_level": -1},
        {"workspace_bytes": 0},
        {"hardware_compatible": "everything"},
        {"dla_core": -1},
    ],
)
def test_settings_out_of_range_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        BuildSettings(**change)


def test_settings_are_told_as_the_options_that_give_them() -> None:
    assert list(BuildSettings().command_options()) == []
    settings = BuildSettings((1, 8), 4, 1 << 30, True, True, "ampere-plus", ((8, 6), (8, 9)), 0, True)
    assert list(settings.command_options()) == [
        "--batch 1,8",
        "--builder-level 4",
        "--workspace 1073741824",
        "--tf32",
        "--version-compatible",
        "--hardware-compatible ampere-plus",
        "--compute-capability 8.6,8.9",
        "--dla-core 0",
        "--detailed-profiling",
    ]


def test_what_is_typed_becomes_values() -> None:
    assert parse_batches("8, 1,1") == (1, 8)
    assert parse_batches(",".join(map(str, DEFAULT_BATCHES))) == DEFAULT_BATCHES
    assert parse_names(" fp16,int8 ,") == ("fp16", "int8")
    assert parse_capabilities("8.9,8.6") == ((8, 6), (8, 9))
    assert (parse_size("2GiB"), parse_size("512")) == (2 << 30, 512)
    for parse, text in (
        (parse_batches, "1,x"),
        (parse_batches, "-1"),
        (parse_capabilities, "86"),
        (parse_size, "2GB"),
    ):
        with pytest.raises(ValueError, match=r"Give"):
            parse(text)


# Progress


def test_phases_within_phases_are_shares_of_a_step() -> None:
    seen: list[int] = []
    phases = BuildProgress(lambda done, total: seen.append(done))
    phases.start("build", None, 2)
    phases.start("inner", "build", 4)
    phases.step("inner", 1)
    assert seen[-1] == 25
    phases.finish("inner")
    phases.step("build", 0)
    phases.start("inner", "build", 10)
    phases.step("inner", 0)
    assert seen[-1] == 55
    phases.finish("inner")
    phases.finish("build")
    assert seen == sorted(set(seen))
    assert seen[-1] == 100


def test_a_phase_that_was_not_announced_does_no_harm() -> None:
    seen: list[int] = []
    phases = BuildProgress(lambda done, total: seen.append(done))
    phases.step("unheard of", 3)
    phases.finish("unheard of")
    phases.start("build", "gone", 0)
    assert seen == [0]


# A STUB of TensorRT 10 and 11, for what they have and TensorRT-RTX has not: it shows which calls are made,
# and nothing of what TensorRT does with them.


class _Recorder:
    """Builder, config, network, parser and timing cache in one, which remembers what it was told."""

    def __init__(self, cores: int = 2) -> None:
        self.flags: set[str] = set()
        self.cleared: set[str] = set()
        self.caches: list[bytes] = []
        self.profiles: list[tuple[int, ...]] = []
        self.num_DLA_cores = cores
        self.num_outputs = self.num_errors = self.num_layers = 0
        self.num_inputs = 1
        self.parser_flags: list[str] = []
        self.network_flags = 0
        self.current = b""

    def create_network(self, flags: int) -> _Recorder:
        self.network_flags = flags
        return self

    def create_builder_config(self) -> _Recorder:
        return self

    def create_optimization_profile(self) -> _Recorder:
        return self

    def add_optimization_profile(self, profile: _Recorder) -> None: ...

    def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
        assert len(set(shapes)) == 1
        self.profiles.append(shapes[0])

    def get_input(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(name="image", shape=(-1, *SHAPE), dtype=SimpleNamespace(name="FLOAT"))

    def parse(self, data: bytes) -> bool:
        return True

    def set_flag(self, flag: str) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: str) -> None:
        self.cleared.add(flag)

    def create_timing_cache(self, data: bytes) -> bytes | None:
        return None if data == b"of another version" else data

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.caches.append(cache)
        self.current = cache
        return cache != b"of another GPU"

    def get_timing_cache(self) -> _Recorder:
        return self

    def serialize(self) -> bytes:
        return self.current + b"+"

    def build_serialized_network(self, network: _Recorder, config: _Recorder) -> bytes:
        return b"plan"


@pytest.fixture(params=["10.3.0", "11.4.1"])
def stub(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[TensorRT, _Recorder]:
    module, recorder = ModuleType("tensorrt"), _Recorder()
    words = ("TF32", "VERSION_COMPATIBLE", "GPU_FALLBACK")
    levels = {"AMPERE_PLUS": "AMPERE_PLUS"}
    if request.param.startswith("11"):
        levels["SAME_COMPUTE_CAPABILITY"] = "SAME_COMPUTE_CAPABILITY"
    severity = SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2, INFO=3)
    for name, value in {
        "__version__": request.param,
        "__spec__": SimpleNamespace(name="tensorrt"),
        "ILogger": type("ILogger", (), {"Severity": severity}),
        "IProgressMonitor": type("IProgressMonitor", (), {}),
        "Builder": lambda log: recorder,
        "OnnxParser": lambda network, log: recorder,
        "OnnxParserFlag": SimpleNamespace(ADJUST_FOR_DLA="ADJUST_FOR_DLA"),
        "NetworkDefinitionCreationFlag": SimpleNamespace(STRONGLY_TYPED=1),
        "BuilderFlag": SimpleNamespace(**{word: word for word in words}),
        "HardwareCompatibilityLevel": SimpleNamespace(**levels),
        "MemoryPoolType": SimpleNamespace(WORKSPACE="WORKSPACE"),
        "ProfilingVerbosity": SimpleNamespace(DETAILED="DETAILED"),
        "DeviceType": SimpleNamespace(DLA="DLA"),
    }.items():
        setattr(module, name, value)
    monkeypatch.setitem(sys.modules, "tensorrt", module)
    return TensorRT(TENSORRT), recorder


def test_stub_networks_are_strongly_typed_with_a_profile_a_batch(stub: tuple[TensorRT, _Recorder]) -> None:
    tensorrt, recorder = stub
    tensorrt.build(b"onnx", SHAPE, BuildSettings((1, 8)))
    assert recorder.network_flags == 1 << 1
    assert recorder.profiles == [(1, *SHAPE), (8, *SHAPE)]
    assert recorder.cleared == {"TF32"}
    assert recorder.flags == set()


def test_stub_options_reach_the_config(stub: tuple[TensorRT, _Recorder]) -> None:
    tensorrt, recorder = stub
    settings = BuildSettings((1,), version_compatible=True, hardware_compatible="ampere-plus", dla_core=1)
    tensorrt.build(b"onnx", SHAPE, settings)
    assert {"VERSION_COMPATIBLE", "GPU_FALLBACK", "ADJUST_FOR_DLA"} <= recorder.flags
    assert vars(recorder)["hardware_compatibility_level"] == "AMPERE_PLUS"
    assert (vars(recorder)["default_device_type"], vars(recorder)["DLA_core"]) == ("DLA", 1)


def test_stub_a_level_of_compatibility_that_came_later_is_refused_by_earlier_versions(
    stub: tuple[TensorRT, _Recorder],
) -> None:
    tensorrt, recorder = stub
    settings = BuildSettings((1,), hardware_compatible="same-compute-capability")
    if tensorrt.version.startswith("11"):
        tensorrt.build(b"onnx", SHAPE, settings)
        assert vars(recorder)["hardware_compatibility_level"] == "SAME_COMPUTE_CAPABILITY"
    else:
        with pytest.raises(
            TensorRTError, match=r"tensorrt 10\.3\.0 does not support same-compute-capability"
        ):
            tensorrt.build(b"onnx", SHAPE, settings)


def test_stub_a_dla_that_is_not_there_is_refused(stub: tuple[TensorRT, _Recorder]) -> None:
    tensorrt, recorder = stub
    recorder.num_DLA_cores = 0
    with pytest.raises(TensorRTError, match="There is no DLA core 0"):
        tensorrt.build(b"onnx", SHAPE, BuildSettings((1,), dla_core=0))


@pytest.mark.parametrize("foreign", [b"of another GPU", b"of another version"])
def test_stub_the_timing_cache_is_read_kept_and_begun_anew_where_it_is_foreign(
    stub: tuple[TensorRT, _Recorder], tmp_path: Path, foreign: bytes
) -> None:
    tensorrt, recorder = stub
    file = tmp_path / "timing" / "gpu.cache"
    tensorrt.build(b"onnx", SHAPE, BuildSettings((1,)), file)
    tensorrt.build(b"onnx", SHAPE, BuildSettings((1,)), file)
    assert file.read_bytes() == b"++"
    file.write_bytes(foreign)
    tensorrt.build(b"onnx", SHAPE, BuildSettings((1,)), file)
    assert recorder.caches[-1] == b""
    assert file.read_bytes() == b"+"


@pytest.mark.parametrize("host_code", [False, True])
def test_stub_a_plan_may_run_code_on_the_host_only_where_its_sidecar_says_that_it_needs_to(
    stub: tuple[TensorRT, _Recorder], monkeypatch: pytest.MonkeyPatch, host_code: bool
) -> None:
    tensorrt, _ = stub
    seen = []

    class Runtime:
        engine_host_code_allowed = False

        def __init__(self, log: object) -> None: ...

        def deserialize_cuda_engine(self, plan: bytes) -> str:
            seen.append(self.engine_host_code_allowed)
            return "an engine"

    monkeypatch.setattr(sys.modules["tensorrt"], "Runtime", Runtime, raising=False)
    assert tensorrt.deserialise(b"plan", host_code) == "an engine"
    assert seen == [host_code]
