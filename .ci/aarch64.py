"""Check that everything a Jetson runs resolves to wheels there: aarch64, Python 3.10 and 3.12.

Nothing is installed. JetPack 6 has Python 3.10 and glibc 2.35, JetPack 7 has Python 3.12 and glibc 2.39.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import tomllib

_GLIBC = {"3.10": 35, "3.12": 39}
_OLDEST_GLIBC = 17
_EXTRAS = ("sign",)
"""What else runs there. PyCUDA has no wheels, and TensorRT is JetPack's own: neither is asked for."""


def resolves(requirements: list[str], python: str) -> bool:
    """Whether pip finds a wheel for each requirement and all they need, for one Python on aarch64."""
    abi = "cp" + python.replace(".", "")
    platforms = [f"manylinux_2_{minor}_aarch64" for minor in range(_GLIBC[python], _OLDEST_GLIBC - 1, -1)]
    with tempfile.TemporaryDirectory() as target:
        command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--ignore-installed"]
        command += ["--only-binary=:all:", "--implementation", "cp", "--python-version", python]
        command += ["--abi", abi, "--abi", "abi3", "--abi", "none", "--target", target]
        for platform in [*platforms, "manylinux2014_aarch64"]:
            command += ["--platform", platform]
        return subprocess.run([*command, *requirements], check=False).returncode == 0


def main() -> int:
    """Exit code 0 where all resolve."""
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = [*project["dependencies"]]
    for extra in _EXTRAS:
        requirements += project["optional-dependencies"][extra]
    failed = [python for python in _GLIBC if not resolves(requirements, python)]
    for python in _GLIBC:
        outcome = "no wheel for some dependency" if python in failed else "resolves"
        print(f"aarch64, Python {python}: {outcome}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
