"""What tests share is made once, anew after a change of the code, and never changed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import shared_products
from shared_products import ChangedProductError, shared_product

_MAKER = """
import sys, time
from pathlib import Path
from shared_products import shared_product

def make(folder):
    time.sleep(1.0)
    with open(sys.argv[1] + "/calls", "a") as stream:
        stream.write("made\\n")
    (folder / "content").write_text("whole")

found = shared_product("slow", make, 1, folder=Path(sys.argv[1]) / "products")
assert (found / "content").read_text() == "whole"
"""


def test_of_processes_that_want_a_product_at_once_one_makes_it(tmp_path: Path) -> None:
    script = tmp_path / "maker.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(Path(shared_products.__file__).parent)!r})\n{_MAKER}"
    )
    processes = [subprocess.Popen([sys.executable, str(script), str(tmp_path)]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert (tmp_path / "calls").read_text() == "made\n"


def test_other_parameters_and_other_code_make_another_product(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []

    def product(*parameters: object) -> Path:
        return shared_product("name", made.append, *parameters, folder=tmp_path)

    monkeypatch.setattr(shared_products.inspect, "getfile", lambda make: __file__)
    first = product(1)
    assert (product(1), len(made)) == (first, 1)
    assert product(2) != first
    states = iter(("one", "two", "three"))
    monkeypatch.setattr(shared_products, "code_fingerprint", lambda: next(states))
    later = [product(1) for _ in range(3)]
    assert len({first, *later}) == 4
    assert len(made) == 5
    assert not first.exists(), "products of old code do not pile up"


def test_the_fingerprint_is_that_of_every_source(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    before = shared_products._content(tmp_path)
    (tmp_path / "a.py").write_text("2")
    changed = shared_products._content(tmp_path)
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert len({before, changed, shared_products._content(tmp_path)}) == 3
    (tmp_path / "__pycache__").mkdir()
    renamed = shared_products._content(tmp_path)
    (tmp_path / "__pycache__" / "b.pyc").touch()
    assert shared_products._content(tmp_path) == renamed


def test_a_product_that_a_test_changed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def make(folder: Path) -> None:
        (folder / "content").write_text("whole")

    (shared_product("name", make, folder=tmp_path) / "content").write_text("changed")
    monkeypatch.setattr(shared_products, "_checked", set[Path]())
    with pytest.raises(ChangedProductError, match="work on a copy"):
        shared_product("name", make, folder=tmp_path)


def test_what_could_not_be_made_is_tried_again(tmp_path: Path) -> None:
    failures = iter((True, False))

    def make(folder: Path) -> None:
        (folder / "part").touch()
        if next(failures):
            raise OSError("full")
        assert [path.name for path in folder.iterdir()] == ["part"]

    with pytest.raises(OSError, match="full"):
        shared_product("name", make, folder=tmp_path)
    assert (shared_product("name", make, folder=tmp_path) / "part").exists()
