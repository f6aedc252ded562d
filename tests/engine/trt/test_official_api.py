"""What the engine uses of TensorRT, and what the stand-in offers in its place, is in the real bindings.

The bindings are NVIDIA's of 10.3 and 11.4 (see `tensorrt_api`), and TensorRT-RTX's as installed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from tensorrt_api import BINDINGS, STAND_IN, Api, NotThere, Signature, bindings, installed
from tensorrt_uses import ANY, Use, Uses, uses_of

from stenosis_trt.engine.trt import api as tensorrt_compat
from stenosis_trt.engine.trt import engine as tensorrt_engine
from stenosis_trt.engine.trt import network as tensorrt_network
from stenosis_trt.engine.trt.flavours import FLAVOURS, HARDWARE_COMPATIBILITY_LEVELS

ENGINE = Path(tensorrt_compat.__file__).resolve().parent
SOURCES = sorted(ENGINE.glob("*.py"))
RTX = "TensorRT-RTX"
VERSIONS = (*BINDINGS, RTX)
_TENSORRT = set(BINDINGS)

_BY_FLAVOUR = "tensorrt_flavours: `builds_without_gpu`"
GUARDED: Mapping[str, tuple[str, set[str]]] = {
    "OnnxParserFlag.ADJUST_FOR_DLA": ("hasattr", {"10.3.0"}),
    "BuilderFlag.REQUIRE_USER_ALLOCATION": ("hasattr", _TENSORRT),
    "HardwareCompatibilityLevel.SAME_COMPUTE_CAPABILITY": ("getattr", {"10.3.0"}),
    "ComputeCapability": (_BY_FLAVOUR, _TENSORRT),
    **{f"ComputeCapability.SM{name}": (_BY_FLAVOUR, _TENSORRT) for name in (75, 80, 86, 89, 120, 121)},
    "IBuilderConfig.num_compute_capabilities": (_BY_FLAVOUR, _TENSORRT),
    "IBuilderConfig.set_compute_capability": (_BY_FLAVOUR, _TENSORRT),
    "ICudaEngine.create_runtime_config": (_BY_FLAVOUR, {"10.3.0"}),
    "IRuntimeConfig.set_execution_context_allocation_strategy": (_BY_FLAVOUR, {"10.3.0"}),
    "IRuntimeConfig.cuda_graph_strategy": (_BY_FLAVOUR, _TENSORRT),
    "IRuntimeConfig.dynamic_shapes_kernel_specialization_strategy": (_BY_FLAVOUR, _TENSORRT),
    "CudaGraphStrategy": (_BY_FLAVOUR, _TENSORRT),
    "CudaGraphStrategy.DISABLED": (_BY_FLAVOUR, _TENSORRT),
    "DynamicShapesKernelSpecializationStrategy": (_BY_FLAVOUR, _TENSORRT),
    "DynamicShapesKernelSpecializationStrategy.EAGER": (_BY_FLAVOUR, _TENSORRT),
}
"""What not every version has: what the engine asks before it uses it, and the versions that lack it."""

_COMPUTED = {
    "HardwareCompatibilityLevel": set(tensorrt_compat._COMPATIBLE.values()),
    "ComputeCapability": {
        "SM{}{}".format(*capability) for flavour in FLAVOURS.values() for capability in flavour.targets
    },
}
"""Names that are computed where they are used."""

_AS_TEXT = {
    "LayerType": {*tensorrt_network._LAYERS_WITH_WEIGHTS, *tensorrt_network._QUANTISING},
    "DataType": {*tensorrt_engine._DTYPES, "FLOAT", "HALF", "BF16"},
    "TensorIOMode": {"INPUT", "OUTPUT"},
}
"""Names of enumerators that are compared as texts."""


def _api(version: str) -> Api:
    try:
        return installed("tensorrt_rtx_bindings") if version == RTX else bindings(version)
    except NotThere as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def uses() -> Uses:
    """Of TensorRT-RTX's signatures: it has all that either flavour is asked for."""
    return uses_of(SOURCES, _api(RTX))


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def _all_uses(uses: Uses) -> set[Use]:
    by_text = {Use(owner, name) for owner, names in {**_COMPUTED, **_AS_TEXT}.items() for name in names}
    return uses.found | by_text


def test_the_bindings_are_of_the_versions_that_they_are_said_to_be() -> None:
    assert [_api(version).version for version in BINDINGS] == list(BINDINGS)


def test_the_source_is_followed(uses: Uses) -> None:
    """A collector that loses its way would find nothing missing."""
    found = {str(use) for use in uses.found}
    assert len(found) > 85
    assert found >= {
        *("Builder", "Builder.build_serialized_network", "OnnxParser.parse", "ParserError.node_operator"),
        *("INetworkDefinition.get_layer", "ILayer.get_input", "ITensor.dtype", "ITensor.shape"),
        *("IBuilderConfig.progress_monitor", "IBuilderConfig.set_timing_cache", "ITimingCache.serialize"),
        *("IOptimizationProfile.set_shape", "Runtime.deserialize_cuda_engine", "ICudaEngine.get_tensor_name"),
        *("IExecutionContext.execute_async_v3", "IExecutionContext.set_device_memory", "__version__"),
    }
    assert uses.computed == set(_COMPUTED)
    assert set(tensorrt_compat._COMPATIBLE) == set(HARDWARE_COMPATIBILITY_LEVELS)


def test_nothing_is_declared_that_the_source_does_not_have() -> None:
    """`uses_of` refuses what is Any and not declared."""
    names = {
        node.name
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.FunctionDef, ast.ClassDef))
    }
    assert {name.partition(".")[0] for name in ANY} <= names


def test_what_is_any_and_not_declared_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "tensorrt_new.py"
    source.write_text("def run(engine: Any) -> None:\n    engine.run_everything()\n")
    with pytest.raises(LookupError, match=r"run\.engine is Any"):
        uses_of([source], _api(RTX))


def test_what_no_version_has_is_found(tmp_path: Path) -> None:
    source = tmp_path / "tensorrt_new.py"
    source.write_text(
        "def _configure(builder: Any, config: Any) -> None:\n"
        "    network = builder.create_network(1, 2)\n"
        "    config.set_everything(True)\n"
        "    config.set_flag(flag=1)\n"
        "    network.get_layer(0).run()\n"
    )
    found = uses_of([source], _api(RTX)).found
    missing = {str(use) for use in found if _api(RTX).member(use.owner, use.name) is None}
    assert missing == {"IBuilderConfig.set_everything", "ILayer.run"}
    assert {str(use) for use in found if use.call and not _fits(_api(RTX), use)} == {
        *missing,
        "Builder.create_network",
    }


def test_what_the_engine_uses_is_there_or_guarded(uses: Uses, version: str) -> None:
    api = _api(version)
    missing = {str(use) for use in _all_uses(uses) if api.member(use.owner, use.name) is None}
    assert missing == {name for name, (_, lacking) in GUARDED.items() if version in lacking}


def test_what_is_asked_for_before_it_is_used_is_listed(uses: Uses) -> None:
    assert uses.asked_for == {name for name, (how, _) in GUARDED.items() if how == "hasattr"}


def test_calls_fit_the_signatures(uses: Uses, version: str) -> None:
    api = _api(version)
    wrong = {
        str(use): use.call
        for use in uses.found
        if use.call is not None and api.member(use.owner, use.name) is not None and not _fits(api, use)
    }
    assert wrong == {}


def _fits(api: Api, use: Use) -> bool:
    assert use.call is not None
    positional, keywords = use.call
    if use.name == "__init__":
        # Called on the class, with `self`.
        positional -= 1
    return any(item.takes(positional, keywords) for item in _signatures(api, use))


def _signatures(api: Api, use: Use) -> Iterator[Signature]:
    """Of a method; of a class those of its `__init__`."""
    inner = f"{use.owner}.{use.name}" if use.owner else use.name
    member = api.member(inner, "__init__") if inner in api.classes else api.member(use.owner, use.name)
    if member is not None:
        yield from member.signatures


def test_what_tensorrt_calls_takes_what_it_gives(uses: Uses, version: str) -> None:
    api = _api(version)
    assert {name for _, name, _ in uses.overrides} == {"log", "phase_start", "step_complete", "phase_finish"}
    for owner, name, parameters in uses.overrides:
        member = api.member(owner, name)
        assert member is not None, (owner, name)
        assert {len(item.parameters) for item in member.signatures} == {parameters}


# The stand-in

Offered = dict[str, dict[str, tuple[str, ...] | None]]
"""Public classes, with their public names; of methods also the parameters."""


def _classes(path: Path, version: str) -> Offered:
    """Public classes of a module of the stand-in, with their public names; of methods also the parameters."""
    found: Offered = {}
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            _read_class(node, node.name, found, version)
        elif isinstance(node, ast.Assign) and _is_enumeration(node.value):
            found[ast.unparse(node.targets[0])] = dict.fromkeys(_enumerators(node.value, version))
    return found


def _read_class(node: ast.ClassDef, name: str, found: Offered, version: str) -> None:
    members = found.setdefault(name, {})
    for item in node.body:
        if isinstance(item, ast.FunctionDef):
            is_property = any(ast.unparse(mark) == "property" for mark in item.decorator_list)
            parameters = tuple(argument.arg for argument in item.args.args[1:])
            if item.args.vararg is not None:
                parameters = (*parameters, item.args.vararg.arg)
            members[item.name] = None if is_property else parameters
            for target in (part for part in ast.walk(item) if isinstance(part, ast.Attribute)):
                if isinstance(target.ctx, ast.Store) and ast.unparse(target.value) == "self":
                    members[target.attr] = None
        elif isinstance(item, ast.Assign):
            target = ast.unparse(item.targets[0])
            if target == "__slots__":
                members |= dict.fromkeys(ast.literal_eval(item.value))
            elif _is_enumeration(item.value):
                members[target] = None
                found[f"{name}.{target}"] = dict.fromkeys(_enumerators(item.value, version))
            else:
                members[target] = None
    for member in [key for key in members if key.startswith("_") and key != "__init__"]:
        del members[member]


def _is_enumeration(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) in ("Enum", "IntEnum")


def _enumerators(node: ast.expr, version: str) -> list[str]:
    """Names of an enumeration, which may be others before TensorRT 11."""
    assert isinstance(node, ast.Call)
    names = node.args[1]
    if isinstance(names, ast.IfExp):
        assert ast.unparse(names.test) == "IS_10"
        names = names.body if version.startswith("10.") else names.orelse
    names = ast.literal_eval(names)
    return list(names) if isinstance(names, dict) else names.split()


def _stand_in(version: str) -> Offered:
    """What the stand-in for a flavour offers."""
    offered: Offered = {}
    for name in ("_words", "_building", "_running"):
        offered |= _classes(STAND_IN / "tensorrt" / f"{name}.py", version)
    if version != RTX:
        return offered
    for name, members in _classes(STAND_IN / "rtx" / "tensorrt_rtx" / "__init__.py", version).items():
        # A class has what it inherits; an enumeration is all there is of it.
        whole = all(value is None for value in members.values()) and "__init__" not in members
        offered[name] = members if whole else {**offered.get(name, {}), **members}
    return offered


def test_the_stand_in_offers_nothing_that_tensorrt_does_not_have(version: str) -> None:
    api = _api(version)
    extra = {
        f"{owner}.{name}"
        for owner, members in _stand_in(version).items()
        for name in members
        if api.member(owner, name) is None and name != "__init__"
    }
    assert extra == set()
    assert not [owner for owner in _stand_in(version) if owner not in api.classes]


def test_the_stand_ins_methods_have_the_parameters_that_tensorrts_have(version: str) -> None:
    api = _api(version)
    wrong = {}
    for owner, members in _stand_in(version).items():
        for name, parameters in members.items():
            member = api.member(owner, name)
            if parameters is None or member is None or name == "__init__":
                continue
            if not any(item.parameters[: len(parameters)] == parameters for item in member.signatures):
                wrong[f"{owner}.{name}"] = (parameters, [item.parameters for item in member.signatures])
    assert wrong == {}


def test_the_stand_in_has_all_that_the_engine_uses(uses: Uses) -> None:
    offered = {
        f"{owner}.{name}"
        for version in (RTX, "11.4.0.106")
        for owner, members in _stand_in(version).items()
        for name in members
    }
    needed = {str(use) for use in _all_uses(uses) if use.owner and use.name != "__init__"}
    assert needed - offered == set()
