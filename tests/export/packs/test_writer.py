"""Replacing a pack is atomic, even if the program is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_pack import write_tiny_pack

from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.support import atomic_files as whole_files
from stenosis_trt.engine.support.atomic_files import recover_directory, replace_directory

_REPLACE = """
import os, shutil, signal, sys
from pathlib import Path
sys.path[:0] = {path!r}
from stenosis_trt.engine.support import atomic_files as whole_files
calls = 0
def killed_at(call):
    def run(*arguments, **options):
        global calls
        calls += 1
        if calls == {number}:
            os.kill(os.getpid(), signal.SIGKILL)
        return call(*arguments, **options)
    return run
if not {exchange}:
    whole_files._exchange = lambda one, other: False
for module, name in ((os, "rename"), (os, "replace"), (shutil, "rmtree"), (whole_files, "_exchange")):
    setattr(module, name, killed_at(getattr(module, name)))
from tiny_pack import write_tiny_pack
calls = 0
write_tiny_pack(Path(sys.argv[1]), other=True)
"""
"""Writes another pack in the place of one; killed before the n-th call that moves or removes a folder."""


def _replace(pack: Path, number: int, exchange: bool) -> int:
    path = [str(Path(__file__).resolve().parents[2] / "support")]
    script = _REPLACE.format(path=path, number=number, exchange=exchange)
    return subprocess.run([sys.executable, "-c", script, str(pack)], check=False).returncode


def _classes(pack: Path) -> int:
    return len(Pack.load(pack).models["grader"].output.names)


@pytest.mark.parametrize("exchange", [True, False])
def test_a_kill_while_a_pack_is_replaced_leaves_the_old_or_the_new_one(
    tmp_path: Path, exchange: bool
) -> None:
    pack = tmp_path / "pack"
    seen = []
    for number in range(1, 100):
        write_tiny_pack(pack)
        code = _replace(pack, number, exchange)
        if not exchange and not pack.exists():
            seen.append(0)
            recover_directory(pack)
        seen.append(_classes(pack))
        if code == 0:
            break
        assert code == -signal.SIGKILL
        # What was left behind does not stop the next one.
        write_tiny_pack(pack, other=True)
        assert _classes(pack) == 5
    assert seen[-1] == 5
    assert {4, 5} <= set(seen[:-1])
    assert (0 in seen) == (not exchange)
    assert len(seen) > 3


def test_a_pack_that_is_replaced_leaves_nothing_else_behind(tmp_path: Path) -> None:
    write_tiny_pack(tmp_path / "pack")
    write_tiny_pack(tmp_path / "pack", other=True)
    assert [path.name for path in tmp_path.iterdir()] == ["pack"]


def test_a_link_to_a_pack_stays_one(tmp_path: Path) -> None:
    write_tiny_pack(tmp_path / "there" / "pack")
    (tmp_path / "link").symlink_to(tmp_path / "there" / "pack")
    write_tiny_pack(tmp_path / "link", other=True)
    assert (tmp_path / "link").is_symlink()
    assert _classes(tmp_path / "there" / "pack") == 5


def test_what_the_system_refuses_leaves_both_folders(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    with pytest.raises(FileNotFoundError):
        replace_directory(tmp_path / "new", tmp_path / "nowhere")
    assert (tmp_path / "new").is_dir()


def test_without_an_exchange_a_refused_rename_brings_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "file").write_text("kept")
    monkeypatch.setattr(whole_files, "_exchange", lambda one, other: False)
    with pytest.raises(FileNotFoundError):
        replace_directory(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old" / "file").read_text() == "kept"
    assert os.listdir(tmp_path) == ["old"]
