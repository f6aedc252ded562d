"""JSON record, short table and Markdown summary of a run."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from stenosis_trt.bench.speed.suite.measurements import EVENTS, WALL, Measurement, ScenarioReport
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
    "The GPU was simulated in software: times are those of this machine's processor and are not held against "
    "limits."
)
_VERDICTS = {True: "passed", False: "FAILED", None: "not judged"}
_SCHEMA = 1


@dataclass
class Scenario:
    """Outcome of one scenario. `reason` says why it was skipped or failed."""

    name: str
    about: str
    report: ScenarioReport
    status: str = MEASURED
    reason: str = ""
    seconds: float = 0.0


@dataclass
class SuiteRun:
    """State of a run: its scenarios, start time, and whether it is finished."""

    system: SystemUnderTest
    started: str
    scenarios: list[Scenario] = field(default_factory=list)
    finished: bool = False
    seconds: float = 0.0

    @property
    def figures(self) -> Iterator[Measurement]:
        """Measurements of all scenarios."""
        return (figure for scenario in self.scenarios for figure in scenario.report.figures)

    @property
    def passed(self) -> bool:
        """True if no scenario failed and all results, as opposed to speeds, are within their limits."""
        simulated = self.system.simulated
        wrong = (item.about_results and item.passed(simulated) is False for item in self.figures)
        return not any(wrong) and all(item.status != FAILED for item in self.scenarios)


def suite_record(run: SuiteRun) -> dict[str, Any]:
    """JSON object of a run."""
    system, options = run.system, run.system.options
    simulated = system.simulated
    return {
        "schema": _SCHEMA,
        "started": run.started,
        "finished": run.finished,
        "seconds": round(run.seconds, 1),
        "passed": run.passed,
        "stand_in": simulated,
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
                "notes": item.report.notes,
                "figures": [figure.record(simulated) for figure in item.report.figures],
                "details": item.report.details,
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
    """Lines of text: the measurements that have a limit, and the scenarios that were not measured."""
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
    """Markdown summary of all measurements."""
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
        yield "**The run did not finish.**"
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
        f"Values are medians over the runs. {EVENTS}: on the device, between two events of the "
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
    """Collapse whitespace to one line of at most 500 characters."""
    return " ".join((text or "").split())[:500]
