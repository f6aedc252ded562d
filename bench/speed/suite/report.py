"""A run's record as JSON keeps it, the short table of it, and its summary in Markdown."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from stenosis_trt.bench.speed.suite.figures import EVENTS, WALL, Measurement
from stenosis_trt.bench.speed.suite.sheet import ScenarioReport
from stenosis_trt.bench.speed.suite.system import SystemUnderTest
from stenosis_trt.engine.errors import TensorRTError
from stenosis_trt.engine.runs.provenance import describe_machine, package_versions
from stenosis_trt.engine.support.hardware import jetson_release
from stenosis_trt.engine.support.versions import package_version
from stenosis_trt.engine.trt.api import TensorRT, installed_flavours
from stenosis_trt.engine.trt.flavours import FLAVOURS, format_capability
from stenosis_trt.kernels.binaries import BinaryError, load_kernel_image

MEASURED, SKIPPED, FAILED = "measured", "skipped", "failed"
STAND_IN = (
    "A program stood in for the GPU: the times are of this machine's processor, say nothing of any GPU, "
    "and are not held against the limits."
)
_VERDICTS = {True: "passed", False: "FAILED", None: "not judged"}
_SCHEMA = 1


@dataclass
class Scenario:
    """What became of one scenario. `reason` says why it was not measured, or not to its end."""

    name: str
    about: str
    sheet: ScenarioReport
    status: str = MEASURED
    reason: str = ""
    seconds: float = 0.0


@dataclass
class SuiteRun:
    """A run so far: its scenarios, when it began, and whether it came to its end."""

    system: SystemUnderTest
    started: str
    scenarios: list[Scenario] = field(default_factory=list)
    finished: bool = False
    seconds: float = 0.0

    @property
    def figures(self) -> Iterator[Measurement]:
        """Of all scenarios."""
        return (figure for scenario in self.scenarios for figure in scenario.sheet.figures)

    @property
    def passed(self) -> bool:
        """Whether no scenario failed, and what was computed keeps its limits."""
        on_stand_in = self.system.on_stand_in
        wrong = (item.about_results and item.passed(on_stand_in) is False for item in self.figures)
        return not any(wrong) and all(item.status != FAILED for item in self.scenarios)


def suite_record(run: SuiteRun) -> dict[str, Any]:
    """All that is known of a run."""
    system, options = run.system, run.system.options
    on_stand_in = system.on_stand_in
    return {
        "schema": _SCHEMA,
        "started": run.started,
        "finished": run.finished,
        "seconds": round(run.seconds, 1),
        "passed": run.passed,
        "stand_in": on_stand_in,
        "command": options.command,
        "machine": {**describe_machine(), "jetson_release": jetson_release() or None},
        "gpu": _gpu(system),
        "versions": _versions(),
        "pack": {
            "name": system.pack.name,
            "version": system.pack.version,
            "sha256": system.pack.sha256,
            "models": {name: model.sha256 for name, model in system.pack.models.items()},
        },
        "options": {
            "precisions": list(system.precisions),
            "flavour": options.flavour,
            "batches": list(options.batches),
            "quick": options.quick,
        },
        "scenarios": {
            item.name: {
                "about": item.about,
                "status": item.status,
                "reason": item.reason or None,
                "seconds": round(item.seconds, 1),
                "notes": item.sheet.notes,
                "figures": [figure.record(on_stand_in) for figure in item.sheet.figures],
                "details": item.sheet.details,
            }
            for item in run.scenarios
        },
    }


def _gpu(system: SystemUnderTest) -> dict[str, Any]:
    gpu, cuda = system.driver.gpus[0], system.driver.cuda_version
    found: dict[str, Any] = {
        "name": gpu.name,
        "compute_capability": format_capability(gpu.compute_capability),
        "memory_bytes": gpu.memory_bytes,
        "driver_cuda": None if cuda is None else format_capability(cuda),
    }
    if cuda is not None:
        try:
            found["kernels"] = load_kernel_image(gpu.compute_capability, cuda[0] * 1000 + cuda[1] * 10).origin
        except BinaryError as error:
            found["kernels"] = str(error)
    return found


def _versions() -> dict[str, str]:
    found = {**package_versions(), **{name: package_version(name) for name in ("pycuda", "torch")}}
    flavours = {name: _flavour_version(name) for name in installed_flavours()}
    return {**found, **flavours, "system": platform.release()}


def _flavour_version(name: str) -> str:
    try:
        return TensorRT(FLAVOURS[name]).version
    except TensorRTError as error:
        return error.reason


def summary_lines(content: Mapping[str, Any]) -> Iterator[str]:
    """The figures that are held against something, and what was not measured, as text."""
    gpu, pack = content["gpu"], content["pack"]
    yield f"{gpu['name']}, CUDA {gpu['driver_cuda']}, pack {pack['name']} {pack['version']}"
    if content["stand_in"]:
        yield STAND_IN
    for name, scenario in content["scenarios"].items():
        for figure in scenario["figures"]:
            if figure["limit"] is not None:
                value = f"{figure['value']:g} {figure['unit']}".rstrip()
                verdict = _VERDICTS[figure["passed"]]
                yield f"{name:12} {figure['name']:64} {value:>18} {figure['limit']:>8} {verdict:>10}"
        if scenario["status"] != MEASURED:
            yield f"{name:12} {scenario['status']}: {_short(scenario['reason'])}"


def markdown_summary(content: Mapping[str, Any]) -> str:
    """Everything that was measured, for a reader."""
    parts = [*_head(content)]
    for name, scenario in content["scenarios"].items():
        parts += ["", f"## {name}", "", scenario["about"]]
        if scenario["status"] != MEASURED:
            parts += ["", f"**{scenario['status'].capitalize()}**: {_short(scenario['reason'])}"]
        if scenario["notes"]:
            parts += ["", *(f"- {note}" for note in scenario["notes"])]
        if scenario["figures"]:
            parts += ["", *_table(scenario["figures"])]
    return "\n".join(parts) + "\n"


def _head(content: Mapping[str, Any]) -> Iterator[str]:
    gpu, pack, options = content["gpu"], content["pack"], content["options"]
    shown = ("tensorrt", "tensorrt-rtx", "pycuda", "torch", "python", "numpy", "onnxruntime", "stenosis-trt")
    known = content["versions"]
    yield f"# GPU suite: {gpu['name']}"
    yield ""
    if content["stand_in"]:
        yield f"**{STAND_IN}**"
        yield ""
    if not content["finished"]:
        yield "**The run did not come to its end.**"
        yield ""
    yield f"- `{content['command']}`, {content['started']}, {content['seconds']:g} s"
    yield (
        f"- compute capability {gpu['compute_capability']}, {gpu['memory_bytes'] / 2**30:.1f} GiB, driver "
        f"for CUDA {gpu['driver_cuda']}; {content['machine']['cpu']}, {content['machine']['cores']} cores"
    )
    yield f"- kernels: {gpu.get('kernels', 'unknown')}"
    yield f"- {', '.join(f'{name} {known[name]}' for name in shown if name in known)}"
    yield f"- pack {pack['name']} {pack['version']}, sha256 {pack['sha256']}"
    batches = ", ".join(map(str, options["batches"]))
    yield f"- precisions {', '.join(options['precisions'])}; plans for batches of {batches}"
    yield ""
    yield (
        f"Values are medians where there are runs. {EVENTS}: on the device, between two events of the "
        f"stream. {WALL.capitalize()}: from the call until its answer is on the host."
    )


def _table(figures: list[dict[str, Any]]) -> Iterator[str]:
    yield "| figure | value | p90 | p99 | runs | clock | limit | |"
    yield "|---|---|---|---|---|---|---|---|"
    for item in figures:
        numbers = ("" if item[key] is None else f"{item[key]:g}" for key in ("p90", "p99"))
        verdict = "" if item["limit"] is None else _VERDICTS[item["passed"]]
        cells = (
            item["name"],
            f"{item['value']:g} {item['unit']}".rstrip(),
            *numbers,
            str(item["runs"]),
            item["clock"] or "",
            item["limit"] or "",
            verdict,
        )
        yield f"| {' | '.join(cells)} |"


def _short(text: str | None) -> str:
    """On one line."""
    return " ".join((text or "").split())[:500]
