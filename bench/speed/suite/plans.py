"""Scenario: plans of the pack for this GPU, what each took to build, and how large it is."""

from __future__ import annotations

from stenosis_trt.bench.speed.suite.figures import WALL, Measurement
from stenosis_trt.bench.speed.suite.sheet import ScenarioReport
from stenosis_trt.bench.speed.suite.system import SystemUnderTest


def plans(system: SystemUnderTest, sheet: ScenarioReport) -> None:
    """Build what is missing. A plan that was there has its build's time from its sidecar."""
    sheet.details["plans"] = listed = []
    troubles = []
    for precision in system.precisions:
        for outcome in system.build(precision):
            name = f"{outcome.model} {outcome.precision}"
            if outcome.plan is None:
                troubles.append(f"{name}: {outcome.reason}")
                continue
            sidecar = outcome.plan.sidecar
            how = "there already, built in" if outcome.already_present else "built in"
            sheet.add(Measurement(f"{name}, {how}", sidecar.build_seconds, "s", WALL))
            sheet.add(Measurement(f"{name}, size", sidecar.plan_bytes / 1e6, "MB"))
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
