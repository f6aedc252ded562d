"""Scenario: build the pack's plans for this GPU; build time and size of each."""

from __future__ import annotations

from stenosis_trt.bench.speed.suite.measurements import WALL, Measurement, ScenarioReport
from stenosis_trt.bench.speed.suite.system import SystemUnderTest


def plans(system: SystemUnderTest, report: ScenarioReport) -> None:
    """Build missing plans. The build time of an existing plan is taken from its sidecar."""
    report.details["plans"] = listed = []
    troubles = []
    for precision in system.precisions:
        for outcome in system.build(precision):
            name = f"{outcome.model} {outcome.precision}"
            if outcome.plan is None:
                troubles.append(f"{name}: {outcome.reason}")
                continue
            sidecar = outcome.plan.sidecar
            how = "there already, built in" if outcome.already_present else "built in"
            report.add(Measurement(f"{name}, {how}", sidecar.build_seconds, "s", WALL))
            report.add(Measurement(f"{name}, size", sidecar.plan_bytes / 1e6, "MB"))
            listed.append(
                {
                    "model": outcome.model,
                    "precision": outcome.precision,
                    "found": outcome.already_present,
                    "sha256": sidecar.plan_sha256,
                    "flavour": sidecar.flavour,
                    "version": sidecar.version,
                    "batches": list(sidecar.batches),
                }
            )
    if troubles:
        raise RuntimeError("Not all plans could be built. " + " ".join(troubles))
