"""What other processes take is told from what the run itself takes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stenosis_trt.bench.systems.busy import BusyWatch, Load, load_between
from stenosis_trt.bench.systems.machine import describe_machine, describe_versions, machine_slug
from stenosis_trt.bench.systems.processor_time import ProcessorTime, processor_time

CORES = len(os.sched_getaffinity(0))


def _spin(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_own_time_and_that_of_children_is_counted_as_own() -> None:
    before = processor_time()
    program = "import time\nend = time.process_time() + 0.4\nwhile time.process_time() < end: pass"
    child = subprocess.Popen([sys.executable, "-c", program + "\ninput()"], stdin=subprocess.PIPE)
    _spin(0.3)
    time.sleep(0.1)
    while processor_time().own - before.own < 0.65:
        time.sleep(0.05)
    running = processor_time()
    child.communicate(b"\n")
    after = processor_time()
    assert running.own - before.own == pytest.approx(0.7, abs=0.15)
    # A child that has ended and was waited for still counts.
    assert after.own >= running.own - 0.02
    assert after.busy - before.busy >= 0.6


def _proc(folder: Path, busy: int, steal: int, processes: dict[int, tuple[int, int]]) -> Path:
    """Write what /proc has: ticks of core 0, and parent and ticks of processes."""
    folder.mkdir()
    core = min(os.sched_getaffinity(0))
    (folder / "stat").write_text(
        f"cpu  9 9 9\ncpu{core} {busy} 0 0 77 5 0 0 {steal} 0 0\ncpu999 8 8 8 8 8 8 8 8\n"
    )
    for pid, (parent, ticks) in processes.items():
        (folder / str(pid)).mkdir()
        fields = ["S", str(parent), *["0"] * 9, str(ticks), "0", "0", "0", *["0"] * 20]
        (folder / str(pid) / "stat").write_text(f"{pid} (a) b (c)) {' '.join(fields)}\n")
    (folder / "self").mkdir()
    return folder


def test_descendants_of_any_depth_are_own_and_others_are_not(tmp_path: Path) -> None:
    me = os.getpid()
    processes = {me: (1, 100), me + 1: (me, 20), me + 2: (me + 1, 3), me + 3: (1, 5000)}
    read = processor_time(_proc(tmp_path / "proc", 900, 70, processes))
    ticks = os.sysconf("SC_CLK_TCK")
    assert (read.busy, read.stolen, read.own) == (900 / ticks, 70 / ticks, 123 / ticks)


def test_waiting_is_counted_for_each_second_that_threads_run() -> None:
    first = ProcessorTime(
        0.0, 0.0, 0.0, 0.0, {(1, 1): (5_000_000_000, 7_000_000_000, 100), (1, 2): (1, 1, 1)}
    )
    # One thread has ended, and another one is new.
    threads = {(1, 1): (7_000_000_000, 8_000_000_000, 300), (1, 3): (2_000_000_000, 1_000_000_000, 200)}
    load = load_between([first, ProcessorTime(5.0, 9.0, 0.0, 4.0, threads)])
    assert (load.waited, load.waited_high) == (0.5, 0.5)
    assert load.turn_seconds == pytest.approx(2.0 / 400)
    assert load_between([first, ProcessorTime(5.0, 9.0, 0.0, 4.0, {})]).waited is None


def test_a_thread_that_shares_a_core_waits_as_long_as_it_runs() -> None:
    if not Path("/proc/self/schedstat").exists():
        pytest.skip("this kernel counts no waiting")
    before = processor_time()
    program = (
        "import os, time\n"
        f"os.sched_setaffinity(0, [{min(os.sched_getaffinity(0))}])\n"
        "end = time.process_time() + 0.6\n"
        "while time.process_time() < end: pass\n"
        "input()"
    )
    children = [subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE) for _ in range(2)]
    while processor_time().own - before.own < 1.15:
        time.sleep(0.05)
    load = load_between([before, processor_time()])
    for child in children:
        child.communicate(b"\n")
    assert load.waited is not None
    assert load.waited > 0.5


def test_load_is_the_difference_of_readings() -> None:
    readings = [ProcessorTime(0.0, 0.0, 0.0, 0.0, {}), ProcessorTime(10.0, 12.0, 1.0, 9.0, {})]
    load = load_between(readings)
    assert (load.others, load.stolen, load.own) == pytest.approx((0.4, 0.1, 0.9))
    # Ticks are counted differently for cores and processes: own may exceed busy by a little.
    assert load_between([readings[0], ProcessorTime(10.0, 8.9, 0.0, 9.0, {})]).others == 0.0


def test_a_short_disturbance_is_seen_in_its_sample() -> None:
    quiet = [ProcessorTime(5.0 * index, 5.0 * index, 0.0, 5.0 * index, {}) for index in range(10)]
    last = ProcessorTime(50.0, 50.0 + 0.45 * CORES * 5, 0.0, 50.0, {})
    load = load_between([*quiet, last])
    assert load.others < 0.05 * CORES
    assert load.others_high > 0.25 * CORES
    assert load.disturbed
    assert not load_between(quiet).disturbed


def test_a_disturbed_section_is_said_in_one_sentence() -> None:
    watch = BusyWatch()
    with watch.section("load"):
        time.sleep(0.05)
    watch.during["load"] = Load(1.6, 0.1, 0.9, 1.9, 300.0, 2)
    watch.during["energy"] = Load(0.01, 0.0, 0.9, 0.02, 30.0, 2)
    said = watch.as_json(["load", "energy"])
    assert said["sentence"] == (
        "The machine was busy: other processes took up to 1.60 of 2 cores (0.10 of them the hypervisor) "
        "during load, on average, and figures of load are worse than on a quiet machine."
    )
    assert said["during"]["load"]["others_share"] == 0.8
    assert watch.as_json(["energy"])["sentence"] == ""


def test_the_machine_is_described_without_its_name() -> None:
    machine = describe_machine()
    assert machine["cores"] == CORES
    assert machine["processor"]
    assert os.uname().nodename not in str(machine["system"])
    assert "numpy" in describe_versions()


@pytest.mark.parametrize(
    ("processor", "cores", "slug"),
    [
        ("AMD EPYC 9R14 96-Core Processor", 2, "amd-epyc-9r14-2-cores"),
        ("Intel(R) Xeon(R) CPU E5-2670 v3 @ 2.30GHz", 1, "intel-xeon-e5-2670-v3-1-core"),
        ("NVIDIA Jetson Orin Nano/../ü", 6, "nvidia-jetson-orin-nano-6-cores"),
        ("", 2, "machine-2-cores"),
    ],
)
def test_a_processor_becomes_a_name_for_files(processor: str, cores: int, slug: str) -> None:
    assert machine_slug(processor, cores) == slug
