"""A limit on the memory of a process that decodes files, and the size of its address space."""

from __future__ import annotations

import mmap
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_LARGEST_ADDRESS_SPACE, _PROBE_BYTES = 1 << 47, 1 << 20
"""Largest address space of a process, and the precision with which its size is determined without /proc."""


def limit_memory(extra: int) -> None:
    """Limit the address space of this process to `extra` bytes more than it has, and forbid core files."""
    cap = address_space_bytes() + extra
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    resource.setrlimit(resource.RLIMIT_AS, (cap if hard == resource.RLIM_INFINITY else min(cap, hard), hard))
    # A crash must not leave patient data in a core file.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


@contextmanager
def exempt_from_limit() -> Iterator[None]:
    """Within it, memory does not count against the limit: for libraries that are loaded when first needed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if soft == hard:
        yield
        return
    before = address_space_bytes()
    resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    try:
        yield
    finally:
        cap = soft + max(0, address_space_bytes() - before)
        cap = cap if hard == resource.RLIM_INFINITY else min(cap, hard)
        resource.setrlimit(resource.RLIMIT_AS, (cap, hard))


def address_space_bytes() -> int:
    """Return the size of this process's address space, even if /proc is not mounted."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE
    except OSError:
        return probed_address_space_bytes()


def probed_address_space_bytes() -> int:
    """Return the lowest limit of the address space under which a page can be mapped."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    too_low, enough = 0, _LARGEST_ADDRESS_SPACE if hard == resource.RLIM_INFINITY else hard
    try:
        while enough - too_low > _PROBE_BYTES:
            middle = (too_low + enough) // 2
            resource.setrlimit(resource.RLIMIT_AS, (middle, hard))
            try:
                mmap.mmap(-1, mmap.PAGESIZE).close()
                enough = middle
            except (OSError, MemoryError):
                too_low = middle
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    return enough
