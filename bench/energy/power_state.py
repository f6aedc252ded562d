"""Power mode and clocks of a machine, as far as its files tell."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

_TIMEOUT_SECONDS = 5.0


def power_state(root: Path = Path("/"), nvpmodel: str = "nvpmodel") -> dict[str, Any]:
    """Return power mode, governors and clocks; what the machine does not tell is left out.

    Keys: "power_mode" (Jetson), "cpu_governors", "cpu_mhz" (lowest and highest of the cores), "devfreq_mhz"
    (clocks of other devices by name, such as the GPU of a Jetson).

    Args:
        root: folder that holds `sys`; replaced in tests.
        nvpmodel: Jetson's command for power modes.
    """
    sys = root / "sys"
    state: dict[str, Any] = {}
    mode = _power_mode(nvpmodel)
    if mode:
        state["power_mode"] = mode
    cores = sys / "devices/system/cpu"
    governors = {_text(path) for path in cores.glob("cpu[0-9]*/cpufreq/scaling_governor")} - {""}
    if governors:
        state["cpu_governors"] = sorted(governors)
    clocks = [_text(path) for path in cores.glob("cpu[0-9]*/cpufreq/scaling_cur_freq")]
    megahertz = [int(value) / 1e3 for value in clocks if value.isdigit()]
    if megahertz:
        state["cpu_mhz"] = [min(megahertz), max(megahertz)]
    devices = {
        path.parent.name: int(_text(path)) / 1e6
        for path in sorted((sys / "class/devfreq").glob("*/cur_freq"))
        if _text(path).isdigit()
    }
    if devices:
        state["devfreq_mhz"] = devices
    return state


def _power_mode(command: str) -> str:
    """Return what `nvpmodel -q` says; "" without it."""
    program = shutil.which(command)
    if program is None:
        return ""
    try:
        done = subprocess.run(
            [program, "-q"], capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return " ".join(done.stdout.split()) if done.returncode == 0 else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
