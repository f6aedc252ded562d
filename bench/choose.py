"""Which device serves so many studies an hour: computed bounds of each known GPU, and measured machines.

A computed study takes at least the sum of its stages' floors, and rather as long as its operators take
unfused (see `bench.speed.roofline`); reading its files is not part of that. Studies arrive at random and are
taken one at a time (see `bench.queueing`). The energy that is computed is the power budget of the device
times each of the two times, without what it draws while it is idle.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from stenosis_trt.bench.choose_records import MeasuredMachine
from stenosis_trt.bench.queueing import largest_service, latency_quantile
from stenosis_trt.bench.record.record import Source
from stenosis_trt.bench.speed.devices import GPU_SPECS, GpuSpec
from stenosis_trt.bench.speed.roofline import StudyWork, stage_times, study_time

Verdict = Literal["yes", "no", "if", "unknown"]
"""Whether a device serves a demand; "if" where that depends on what the reason names."""


@dataclass(frozen=True)
class Demand:
    """What is asked for.

    Attributes:
        studies_per_hour: mean number of studies that arrive.
        p99_seconds: longest acceptable 99th percentile of the latency; None for any.
        joules: largest acceptable energy of a study; None for any.
        host_ms: time to read a study's files on the host, where it is known; None if it is not.
    """

    studies_per_hour: float
    p99_seconds: float | None = None
    joules: float | None = None
    host_ms: float | None = None

    @property
    def rate(self) -> float:
        """Studies a second."""
        return self.studies_per_hour / 3600.0


@dataclass(frozen=True)
class Amount:
    """A figure, or the range between two; `source` says whether it was measured or computed."""

    low: float
    high: float
    source: Source


@dataclass(frozen=True)
class Candidate:
    """A device and what it gives.

    Attributes:
        device: its name.
        precision: that was computed with; "" for a measured machine.
        study_ms: time of a study; of a computed one without reading, unless the demand knows that.
        p99_ms: 99th percentile of the latency at the demanded rate; None if studies pile up.
        joules: of a study; None if unknown.
        utilisation: share of the time in which it is busy.
        verdict: whether it serves the demand.
        reason: why, and what is not known.
    """

    device: str
    precision: str
    study_ms: Amount
    p99_ms: Amount | None
    joules: Amount | None
    utilisation: Amount
    verdict: Verdict
    reason: str


def computed_candidates(
    work: StudyWork, precision: str, demand: Demand, measured: Sequence[MeasuredMachine] = ()
) -> Iterator[Candidate]:
    """Every known GPU, with its computed bounds.

    Args:
        work: of one study.
        precision: "fp32", "fp16" or "int8".
        demand: what is asked for.
        measured: machines at hand; what a kernel benchmark says of a GPU is added to its reason.
    """
    for device in GPU_SPECS:
        time = study_time(stage_times(work, device, precision))
        host = demand.host_ms or 0.0
        study = Amount(time.at_least_ms + host, max(time.unfused_ms, time.at_least_ms) + host, "computed")
        watts = device.watts
        # Reading is not part of it: what the host draws for that is unknown.
        joules = (
            None
            if watts is None
            else Amount(watts * (study.low - host) / 1e3, watts * (study.high - host) / 1e3, "computed")
        )
        verdict, reason = _judge_computed(study, device, joules, demand)
        known = [item.preprocessing_ms for item in measured if item.name == device.driver_name]
        for value in filter(None, known):
            reason += f" Measured: preprocessing of a study {value:.2f} ms."
        yield Candidate(
            device.name,
            precision,
            study,
            _latency(study, demand),
            joules,
            _utilisation(study, demand),
            verdict,
            reason,
        )


def measured_candidates(machines: Sequence[MeasuredMachine], demand: Demand) -> Iterator[Candidate]:
    """Machines whose time from files to results was measured."""
    for machine in machines:
        if machine.whole_ms is None:
            continue
        study = Amount(machine.whole_ms, machine.whole_ms, "measured")
        waiting = latency_quantile(demand.rate, machine.whole_ms / 1e3)
        p99 = None
        if waiting is not None:
            # Single studies that took longer than the median are part of any latency.
            value = max(waiting * 1e3, machine.tail_ms or 0.0)
            p99 = Amount(value, value, "computed")
        joules = None if machine.joules is None else Amount(machine.joules, machine.joules, "measured")
        verdict, reason = _judge_measured(machine, p99, joules, demand)
        yield Candidate(machine.name, "", study, p99, joules, _utilisation(study, demand), verdict, reason)


def _latency(study: Amount, demand: Demand) -> Amount | None:
    low, high = (latency_quantile(demand.rate, value / 1e3) for value in (study.low, study.high))
    if low is None or high is None:
        return None
    return Amount(low * 1e3, high * 1e3, "computed")


def _utilisation(study: Amount, demand: Demand) -> Amount:
    return Amount(demand.rate * study.low / 1e3, demand.rate * study.high / 1e3, "computed")


def _judge_computed(
    study: Amount, device: GpuSpec, joules: Amount | None, demand: Demand
) -> tuple[Verdict, str]:
    fastest = latency_quantile(demand.rate, study.low / 1e3)
    if fastest is None:
        return "no", "Studies arrive faster than they can be computed at the peak rates."
    if demand.p99_seconds is not None and fastest > demand.p99_seconds:
        return "no", f"At the peak rates p99 is already {fastest:.3g} s."
    if demand.joules is not None:
        if joules is None:
            return "unknown", f"Its power is not known ({device.power_source})."
        if joules.high > demand.joules:
            return "unknown", f"At the power budget a study takes up to {joules.high:.3g} J."
    slowest = latency_quantile(demand.rate, study.high / 1e3)
    if slowest is None or (demand.p99_seconds is not None and slowest > demand.p99_seconds):
        return "if", "If enough operators are fused."
    if demand.host_ms is not None:
        return "yes", ""
    if demand.p99_seconds is None:
        room = 1e3 / demand.rate - study.high
    else:
        room = largest_service(demand.rate, demand.p99_seconds) * 1e3 - study.high
    if room <= 0.0:
        return "if", "If enough operators are fused, and its host reads a study fast enough."
    return "if", f"If its host reads a study in less than {room:.0f} ms."


def _judge_measured(
    machine: MeasuredMachine, p99: Amount | None, joules: Amount | None, demand: Demand
) -> tuple[Verdict, str]:
    if machine.stood_in:
        return "unknown", "The GPU was simulated in software."
    if p99 is None:
        rate = machine.studies_a_second
        if rate is not None and rate > demand.rate:
            return "unknown", f"Only with reading ahead, {3600 * rate:.0f} studies/h: p99 is not known."
        return "no", "Studies arrive faster than they are graded."
    if demand.p99_seconds is not None and p99.high > demand.p99_seconds * 1e3:
        return "no", f"p99 is longer than {demand.p99_seconds:g} s."
    if demand.joules is not None:
        if joules is None:
            return "unknown", "Its energy was not measured."
        if joules.high > demand.joules:
            return "no", f"A study takes more than {demand.joules:g} J."
    return "yes", ""


def choice_lines(candidates: Sequence[Candidate]) -> list[str]:
    """Table of the candidates for a terminal."""
    rows = [f"{'':40} {'ms a study':>14} {'p99, ms':>14} {'J a study':>16} {'busy':>6}  serves"]
    for item in candidates:
        name = item.device + (f", {item.precision.upper()}" if item.precision else "")
        rows.append(
            f"{name:40} {_range(item.study_ms):>14} {_range(item.p99_ms):>14} "
            f"{_range(item.joules):>16} {_percent(item.utilisation):>6}  {item.verdict}"
        )
        if item.reason:
            rows.append(f"    {item.reason}")
    return [
        *rows,
        "m: measured. c: computed; of a time, at the peak rates and with operators unfused. –: unknown, or",
        "without end. Joules that are computed are at the device's power budget.",
    ]


def choice_record(work: StudyWork, demand: Demand, candidates: Sequence[Candidate]) -> dict[str, Any]:
    """JSON object of the demand and the candidates."""
    powers = {item.name: {"watts": item.watts, "source": item.power_source} for item in GPU_SPECS}
    return {
        "pack": work.pack,
        "demand": asdict(demand),
        "candidates": [asdict(item) for item in candidates],
        "power": powers,
    }


def _range(amount: Amount | None) -> str:
    if amount is None:
        return "–"
    mark = amount.source[0]
    low, high = (f"{value:.0f}" if value >= 100.0 else f"{value:.3g}" for value in (amount.low, amount.high))
    return f"{low} {mark}" if low == high else f"{low}–{high} {mark}"


def _percent(amount: Amount) -> str:
    return "<1%" if amount.high < 0.01 else f"{amount.high:.0%}"
