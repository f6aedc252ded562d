"""Without /proc, memory is limited all the same, and no wrong value is recorded."""

from __future__ import annotations

import subprocess
import sys

_WITHOUT_PROC = """
import resource
from pathlib import Path
from stenosis_trt.engine.support import memory_limit

known = memory_limit.address_space_bytes()
read_text = Path.read_text
def refuse(path, *arguments, **options):
    if str(path).startswith("/proc"):
        raise FileNotFoundError(2, "No such file or directory", str(path))
    return read_text(path, *arguments, **options)
Path.read_text = refuse

before = resource.getrlimit(resource.RLIMIT_AS)
probed = memory_limit.address_space_bytes()
assert resource.getrlimit(resource.RLIMIT_AS) == before
assert abs(probed - known) < 8 << 20, (probed, known)
memory_limit.limit_memory(64 << 20)
bytearray(16 << 20)
try:
    bytearray(256 << 20)
except MemoryError:
    print("capped")
"""


def test_memory_is_capped_without_proc() -> None:
    done = subprocess.run([sys.executable, "-c", _WITHOUT_PROC], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "capped\n"), done.stderr


def test_the_probe_respects_an_existing_hard_limit() -> None:
    script = "import resource; resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))" + _WITHOUT_PROC
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "capped\n"), done.stderr
