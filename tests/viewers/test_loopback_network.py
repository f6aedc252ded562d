"""Tests of the network that servers and browsers of these tests run in."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from loopback_network import LoopbackNetwork, stop

pytestmark = pytest.mark.viewers

_SERVER = [sys.executable, "-I", "-m", "http.server", "--bind", "0.0.0.0", "47113"]
_WAIT = """
import socket, time
for _ in range(400):
    try:
        socket.create_connection(("127.0.0.1", 47113), 1).close()
        break
    except ConnectionRefusedError:
        time.sleep(0.05)
else:
    raise SystemExit("no server")
"""


def test_a_server_on_all_addresses_is_reached_from_within_alone(
    network: LoopbackNetwork, tmp_path: Path
) -> None:
    server = network.start(_SERVER, tmp_path / "log")
    assert network.run([sys.executable, "-I", "-c", _WAIT]).returncode == 0
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", 47113), 1)
    stop(server)


def test_nothing_outside_is_reached(network: LoopbackNetwork) -> None:
    script = "import socket; socket.create_connection(('192.0.2.1', 80), 5)"
    done = network.run([sys.executable, "-I", "-c", script])
    assert b"Network is unreachable" in done.stderr


def test_a_command_that_takes_too_long_is_killed(network: LoopbackNetwork) -> None:
    began = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        network.run(["sleep", "60"], timeout=0.5)
    assert time.monotonic() - began < 30


def test_all_processes_end_with_the_network(tmp_path: Path) -> None:
    alive = tmp_path / "alive"
    script = (
        f"setsid sh -c 'while :; do date +%s%N > {alive}; sleep 0.1; done' > /dev/null 2>&1 < /dev/null &"
    )
    with LoopbackNetwork() as network:
        assert network.run(["sh", "-c", script]).returncode == 0
        network.run(["sh", "-c", f"until [ -s {alive} ]; do sleep 0.05; done"])
    last = alive.read_bytes()
    time.sleep(1)
    assert alive.read_bytes() == last
