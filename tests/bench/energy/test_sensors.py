"""Sensors of power and energy, as files of a made machine and as a library that stands in for NVML."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from stenosis_trt.bench.energy import sensors as module
from stenosis_trt.bench.energy.power_state import power_state
from stenosis_trt.bench.energy.sensors import RaplCounter, Sensor, find_sensors


def _write(folder: Path, **files: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(f"{content}\n")
    return folder


def _only(root: Path) -> Sensor:
    (sensor,) = find_sensors(root, gpu=False).sensors
    return sensor


def test_a_machine_without_sensors_says_what_was_looked_for(tmp_path: Path) -> None:
    found = find_sensors(tmp_path, gpu=True, nvml=("no-such-nvml.so", "no-such-driver.so"))
    assert found.sensors == ()
    assert found.reason.startswith("No power sensor can be read here: NVML cannot be loaded (no-such-nvml.so")
    assert "no INA3221 lies below" in found.reason
    assert f"no RAPL counter of a processor lies below {tmp_path}/sys/class/powercap" in found.reason
    assert found.reason.endswith(".")
    assert "the product runs on the CPU" in find_sensors(tmp_path, gpu=False).reason


def test_the_rails_of_an_ina3221_are_volts_times_amperes_and_add_up(tmp_path: Path) -> None:
    """As on a Jetson AGX Orin: two monitors, a channel without a name, and shunt voltages."""
    monitors = tmp_path / "sys/class/hwmon"
    _write(
        monitors / "hwmon3",
        name="ina3221",
        in1_label="VDD_GPU_SOC",
        in1_input=5000,
        curr1_input=1200,
        in2_label="VDD_CPU_CV",
        in2_input=5000,
        curr2_input=400,
        in3_label="NC",
        in3_input=5000,
        curr3_input=9999,
        in4_input=77,
        in7_label="sum of shunt voltages",
        in7_input=12,
    )
    _write(monitors / "hwmon4", name="ina3221", in1_label="VIN_SYS_5V0", in1_input=4900, curr1_input=1000)
    _write(monitors / "hwmon5", name="nvme", in1_label="VDD_GPU_SOC", in1_input=1, curr1_input=1)
    sensor = _only(tmp_path)
    assert (sensor.part, sensor.name) == ("module", "INA3221, VDD_GPU_SOC + VDD_CPU_CV + VIN_SYS_5V0")
    assert sensor.watts is not None
    assert sensor.watts() == pytest.approx(6.0 + 2.0 + 4.9)
    assert sensor.rails is not None
    assert sensor.rails() == pytest.approx({"VDD_GPU_SOC": 6.0, "VDD_CPU_CV": 2.0, "VIN_SYS_5V0": 4.9})
    _write(monitors / "hwmon3", curr1_input=2400)
    assert sensor.watts() == pytest.approx(12.0 + 2.0 + 4.9)


def test_a_rail_at_the_input_of_the_module_is_its_power(tmp_path: Path) -> None:
    _write(
        tmp_path / "sys/class/hwmon/hwmon1",
        name="ina3221",
        in1_label="VDD_IN",
        in1_input=5000,
        curr1_input=2000,
        in2_label="VDD_CPU_GPU_CV",
        in2_input=5000,
        curr2_input=900,
    )
    sensor = _only(tmp_path)
    assert sensor.name == "INA3221, VDD_IN"
    assert sensor.watts is not None
    assert sensor.watts() == pytest.approx(10.0)
    assert sensor.rails is not None
    assert set(sensor.rails()) == {"VDD_IN", "VDD_CPU_GPU_CV"}


def test_the_iio_files_of_older_releases_are_read(tmp_path: Path) -> None:
    device = _write(
        tmp_path / "sys/bus/iio/devices/iio:device0",
        rail_name_0="POM_5V_IN",
        in_power0_input=3100,
        rail_name_1="POM_5V_GPU",
        in_power1_input=400,
    )
    sensor = _only(tmp_path)
    assert sensor.watts is not None
    assert sensor.watts() == pytest.approx(3.1)
    (device / "in_power1_input").write_text("garbage")
    assert "the INA3221 of this board cannot be read (ValueError)" in find_sensors(tmp_path, gpu=False).reason


def test_packages_and_memory_of_rapl_are_added_and_parts_of_a_package_are_not(tmp_path: Path) -> None:
    zones = tmp_path / "sys/class/powercap"
    _write(zones / "intel-rapl:0", name="package-0", energy_uj=1_000_000, max_energy_range_uj=10_000_000)
    _write(zones / "intel-rapl:0:0", name="core", energy_uj=0, max_energy_range_uj=10_000_000)
    _write(zones / "intel-rapl:0:1", name="dram", energy_uj=500_000, max_energy_range_uj=10_000_000)
    _write(zones / "intel-rapl-mmio:0", name="package-0", energy_uj=1, max_energy_range_uj=10_000_000)
    sensor = _only(tmp_path)
    assert (sensor.part, sensor.name) == ("processor", "RAPL, package-0, dram")
    assert sensor.joules is not None
    assert sensor.joules() == 0.0
    _write(zones / "intel-rapl:0", energy_uj=3_000_000)
    _write(zones / "intel-rapl:0:1", energy_uj=600_000)
    _write(zones / "intel-rapl:0:0", energy_uj=1_900_000)
    assert sensor.joules() == pytest.approx(2.1)


def test_a_counter_that_starts_again_at_zero_goes_on(tmp_path: Path) -> None:
    zone = _write(tmp_path, name="package-0", energy_uj=9_000_000, max_energy_range_uj=9_999_999)
    counter = RaplCounter([zone])
    total = 0.0
    for value, step in ((9_900_000, 0.9), (100_000, 0.2), (100_000, 0.0), (5_100_000, 5.0), (0, 4.9)):
        _write(zone, energy_uj=value)
        total += step
        assert counter.joules() == pytest.approx(total)


def test_counters_that_only_root_can_read_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _write(tmp_path / "sys/class/powercap/intel-rapl:0", name="package-0", energy_uj=1, max_energy_range_uj=9)
    number = module._number

    def refused(path: Path) -> float:
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return number(path)

    monkeypatch.setattr(module, "_number", refused)
    assert "are readable by root alone" in find_sensors(tmp_path, gpu=False).reason


_NVML = """
#include <string.h>
static unsigned long long asked;
int cuInit(unsigned flags) { return 0; }
int cuDeviceGet(int *device, int ordinal) { *device = ordinal; return 0; }
int cuDeviceGetPCIBusId(char *bus, int size, int device) { strcpy(bus, "0000:3b:00.0"); return 0; }
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **device) {
    *device = &asked;
    return strcmp(bus, "0000:3b:00.0") ? 6 : 0;
}
int nvmlDeviceGetName(void *device, char *name, unsigned size) { strcpy(name, "Made GPU"); return 0; }
int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *millijoules) {
    *millijoules = 5000 * asked++;
    return COUNTER ? 0 : 3;
}
int nvmlDeviceGetPowerUsage(void *device, unsigned *milliwatts) { *milliwatts = 61500; return POWER ? 0 : 3; }
int nvmlDeviceGetClockInfo(void *device, int kind, unsigned *megahertz) {
    *megahertz = 1000 + kind;
    return kind == 1 ? 3 : 0;
}
int nvmlDeviceGetPowerManagementLimit(void *device, unsigned *milliwatts) { *milliwatts = 250000; return 0; }
"""


def _nvml(folder: Path, counter: bool, power: bool) -> str:
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    (folder / "nvml.c").write_text(_NVML)
    name = f"nvml{counter:d}{power:d}.so"
    flags = [f"-DCOUNTER={counter:d}", f"-DPOWER={power:d}", "-shared", "-fPIC"]
    subprocess.run(["cc", *flags, "-o", name, "nvml.c"], cwd=folder, check=True)
    return str(folder / name)


def test_a_gpu_has_a_counter_of_energy_or_else_its_power(tmp_path: Path) -> None:
    library = _nvml(tmp_path, counter=True, power=True)
    (sensor,) = find_sensors(tmp_path, nvml=(library, library)).sensors
    assert (sensor.part, sensor.name, sensor.watts) == ("gpu", "NVML, energy counter of Made GPU", None)
    assert sensor.joules is not None
    assert sensor.joules() + 5.0 == sensor.joules()
    library = _nvml(tmp_path, counter=False, power=True)
    (sensor,) = find_sensors(tmp_path, nvml=(library, library)).sensors
    assert sensor.joules is None
    assert sensor.watts is not None
    assert sensor.watts() == 61.5


def test_a_gpu_without_power_says_so_and_clocks_are_those_that_nvml_gives(tmp_path: Path) -> None:
    library = _nvml(tmp_path, counter=False, power=False)
    assert (
        "NVML does not give the power of this GPU (error 3)"
        in find_sensors(tmp_path, nvml=(library, library)).reason
    )
    library = _nvml(tmp_path, counter=True, power=True)
    gpu = module.open_nvml(library, library)
    assert not isinstance(gpu, str)
    assert gpu.state() == {"graphics_mhz": 1000.0, "memory_mhz": 1002.0, "power_limit_watts": 250.0}


def test_power_mode_and_clocks_are_recorded(tmp_path: Path) -> None:
    assert power_state(tmp_path, "no-such-command") == {}
    for core, clock in ((0, 1_500_000), (1, 2_200_000)):
        _write(
            tmp_path / f"sys/devices/system/cpu/cpu{core}/cpufreq",
            scaling_governor="schedutil",
            scaling_cur_freq=clock,
        )
    _write(tmp_path / "sys/class/devfreq/17000000.gpu", cur_freq=918_000_000)
    command = tmp_path / "nvpmodel"
    command.write_text("#!/bin/sh\necho 'NV Power Mode: 15W'\necho 2\n")
    command.chmod(0o755)
    assert power_state(tmp_path, str(command)) == {
        "power_mode": "NV Power Mode: 15W 2",
        "cpu_governors": ["schedutil"],
        "cpu_mhz": [1500.0, 2200.0],
        "devfreq_mhz": {"17000000.gpu": 918.0},
    }
