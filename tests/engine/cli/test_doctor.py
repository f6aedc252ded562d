"""What the doctor finds. Where a GPU would have to be, a driver library compiled here stands for it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from stenosis_trt.engine.cli.doctor import collect_findings, gpu_findings, gpu_requirements
from stenosis_trt.engine.support.hardware import (
    Gpu,
    NvidiaDriver,
    jetson_release,
    memory_bytes,
    processor_name,
    query_nvidia_driver,
    usable_cores,
)

_DRIVER_SOURCE = """
#include <stddef.h>
#include <string.h>
#include <stdio.h>
int cuDriverGetVersion(int *version) { *version = 13020; return DRIVER_ERROR; }
int cuInit(unsigned flags) { return INIT_ERROR; }
int cuDeviceGetCount(int *count) { *count = GPUS; return 0; }
int cuDeviceGet(int *device, int index) { *device = 40 + index; return 0; }
int cuDeviceGetName(char *name, int size, int device) {
    snprintf(name, size, "Test GPU %d", device);
    return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    *value = attribute == 75 ? 8 : attribute == 76 ? 7 : -1;
    return device == 40 || device == 41 ? 0 : 101;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) { *bytes = (size_t)64 << 30; return MEMORY_ERROR; }
int cuGetErrorName(int code, const char **name) {
    *name = code == 100 ? "CUDA_ERROR_NO_DEVICE" : NULL;
    return code == 100 ? 0 : 1;
}
"""


def _driver(folder: Path, **macros: int) -> str:
    """Compile a driver that answers as the macros say; returns its path."""
    if shutil.which("cc") is None:
        pytest.skip("needs a C compiler")
    values = {"DRIVER_ERROR": 0, "INIT_ERROR": 0, "GPUS": 2, "MEMORY_ERROR": 0, **macros}
    source, library = folder / "driver.c", folder / f"libcuda{'-'.join(map(str, values.values()))}.so"
    source.write_text(_DRIVER_SOURCE)
    defines = [f"-D{name}={value}" for name, value in values.items()]
    subprocess.run(["cc", "-shared", "-fPIC", *defines, "-o", library, source], check=True)
    return str(library)


def test_every_gpu_is_named_with_its_compute_capability_and_memory(tmp_path: Path) -> None:
    driver = query_nvidia_driver(_driver(tmp_path))
    assert driver.cuda_version == (13, 2)
    assert driver.gpus == (Gpu("Test GPU 40", (8, 7), 64 << 30), Gpu("Test GPU 41", (8, 7), 64 << 30))
    assert driver.unavailable_reason == ""


def test_a_driver_without_a_gpu_says_why(tmp_path: Path) -> None:
    driver = query_nvidia_driver(_driver(tmp_path, INIT_ERROR=100))
    assert driver.cuda_version == (13, 2)
    assert driver.gpus == ()
    assert driver.unavailable_reason == "the NVIDIA driver gives no GPU (CUDA_ERROR_NO_DEVICE)"


def test_a_driver_that_lists_nothing_is_in_trouble_too(tmp_path: Path) -> None:
    assert (
        query_nvidia_driver(_driver(tmp_path, GPUS=0)).unavailable_reason == "the NVIDIA driver gives no GPU"
    )


def test_a_driver_that_does_not_answer_is_reported_by_the_errors_number(tmp_path: Path) -> None:
    driver = query_nvidia_driver(_driver(tmp_path, DRIVER_ERROR=999))
    assert driver == NvidiaDriver(None, (), "the NVIDIA driver does not answer (error 999)")


def test_a_gpu_that_fails_is_listed_as_failing(tmp_path: Path) -> None:
    (gpu,) = query_nvidia_driver(_driver(tmp_path, GPUS=1, MEMORY_ERROR=719)).gpus
    assert gpu.name == "GPU 0, which does not answer (error 719)"


def test_no_driver_is_no_error() -> None:
    assert query_nvidia_driver("libcuda-that-is-not-there.so") == NvidiaDriver(
        None, (), "no NVIDIA driver was found"
    )


def test_processor_memory_and_cores_are_real() -> None:
    assert processor_name()
    assert usable_cores() >= 1
    assert memory_bytes() > 1 << 28


def test_the_release_of_a_jetson_is_read(tmp_path: Path) -> None:
    file = tmp_path / "nv_tegra_release"
    assert jetson_release(file) == ""
    file.write_text(
        "# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, DATE: …\n"
    )
    assert jetson_release(file) == "36.4.3"
    file.write_text("something else\n")
    assert jetson_release(file) == "of an unknown release"


def test_a_machine_without_a_driver_is_told_to_install_one_but_a_jetson_is_not() -> None:
    driver = NvidiaDriver(None, (), "no NVIDIA driver was found")
    assert [finding.advice for finding in gpu_findings(driver, on_jetson=True)] == [""]
    (finding,) = gpu_findings(driver, on_jetson=False)
    assert finding.advice.startswith("Install NVIDIA's driver")


def test_a_driver_that_gives_no_gpu_points_at_what_hides_it() -> None:
    driver = NvidiaDriver((13, 0), (), "the NVIDIA driver gives no GPU (CUDA_ERROR_NO_DEVICE)")
    first, second = gpu_findings(driver, on_jetson=False)
    assert first.value == "for CUDA 13.0"
    assert "CUDA_VISIBLE_DEVICES" in second.advice


def test_a_found_gpu_is_shown_on_one_line() -> None:
    driver = NvidiaDriver((13, 0), (Gpu("Orin", (8, 7), 30 << 30),), "")
    assert list(gpu_findings(driver, on_jetson=True))[1].value == "Orin, compute capability 8.7, 30.0 GiB"


def test_what_a_gpu_needs_is_named_as_far_as_it_is_missing() -> None:
    gpu = NvidiaDriver((13, 0), (Gpu("Orin", (8, 7), 30 << 30),), "")
    bare = gpu_requirements(NvidiaDriver(None, (), "none"), has_tensorrt=False, on_jetson=False).value
    assert "an NVIDIA GPU with its driver" in bare
    assert "stenosis-trt[rtx]" in bare
    jetson = gpu_requirements(gpu, has_tensorrt=False, on_jetson=True).value
    assert "an NVIDIA GPU" not in jetson
    assert "--system-site-packages" in jetson
    assert "pip install 'stenosis-trt[rtx]'" not in jetson
    assert "TensorRT" not in gpu_requirements(gpu, has_tensorrt=True, on_jetson=False).value


def test_the_report_ends_with_what_grade_would_take_and_what_is_better() -> None:
    findings = {finding.name: finding for finding in collect_findings()}
    assert {"version", "CPU", "memory", "GPU driver", "TensorRT", "ONNX Runtime", "reference pack"} <= set(
        findings
    )
    assert list(findings)[-2:] == ["grade would take", "GPU grading"]
    assert findings["grade would take"].value.startswith("onnxruntime, because ")


def test_a_gpu_that_is_asked_for_in_vain_is_said_to_be_missing() -> None:
    findings = {finding.name: finding for finding in collect_findings(device="gpu")}
    assert findings["grade would take"].value.startswith("nothing: ")
    assert "--device" in findings["grade would take"].advice
