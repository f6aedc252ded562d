"""Reading processes that are altered by a test: they answer late, wrongly, or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from stenosis_trt.engine.dicom import process as process_module

_BEFORE = """
import os, pickle, signal, struct, sys, time
from stenosis_trt.engine.dicom import reading_process
from stenosis_trt.engine.dicom.channel import Channel
from stenosis_trt.engine.dicom.pixel_memory import WrittenFrame

def once(name):
    '''Whether this is the first call with `name`, in whichever process.'''
    try:
        os.close(os.open(os.path.join(os.path.dirname(__file__), name), os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True
"""


def alter(folder: Path, monkeypatch: pytest.MonkeyPatch, lines: str) -> None:
    """Have reading processes that are started from now on run `lines`, of a module in `folder`, first."""
    (folder / "altered.py").write_text(f"{_BEFORE}\n{lines}\nreading_process.main()\n")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setattr(process_module, "_MODULE", "altered")
