"""Every fuzz target holds its promise: for all that once broke it, and for some seconds of changed input."""

from __future__ import annotations

import os
import random
from importlib import import_module
from pathlib import Path

import pytest

from fuzz import TARGETS
from fuzz.harness import CORPUS, ContractBroken, Target, run_input, run_seconds

_SECONDS = float(os.environ.get("FUZZ_SECONDS", "1"))
"""For each target."""
_SEED = int(os.environ.get("FUZZ_SEED", "0"))


def _target(name: str) -> Target:
    target: Target = import_module(f"fuzz.{name}").TARGET
    return target


def _corpus() -> list[Path]:
    return sorted(path for path in CORPUS.glob("*/*") if path.is_file())


@pytest.mark.parametrize("path", _corpus(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_what_once_broke_a_reader_does_so_no_more(path: Path) -> None:
    run_input(_target(path.parent.name), path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_changed_input_is_taken_or_refused_as_declared(name: str) -> None:
    assert run_seconds(_target(name), _SECONDS, _SEED) > 0


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_takes_valid_input_and_changes_it_as_its_generator_says(name: str) -> None:
    target = _target(name)
    assert target.name == name
    for data in target.seeds():
        assert run_input(target, data) == "returned"
        changed = {target.mutate(random.Random(seed), data) for seed in range(8)}
        assert len(changed - {data}) > 1
        assert changed == {target.mutate(random.Random(seed), data) for seed in range(8)}


def test_every_folder_of_the_corpus_is_a_targets() -> None:
    assert {path.parent.name for path in _corpus()} <= set(TARGETS)


def _broken(error: BaseException) -> Target:
    def check(data: bytes, folder: Path) -> None:
        raise error

    return Target("made", (KeyError,), lambda: [b"\x00\xff"], lambda rng, data: data, check)


def test_an_exception_that_was_not_declared_is_reported_with_its_input() -> None:
    assert run_input(_broken(KeyError("declared")), b"").startswith("KeyError test_fuzz.py:")
    with pytest.raises(ContractBroken, match=r"made: TypeError test_fuzz.py:\d+: no") as caught:
        run_input(_broken(TypeError("no")), b"\x00\xff")
    assert str(caught.value).splitlines()[-1] == "AP8="


def test_an_input_that_takes_too_much_time_or_memory_breaks_the_promise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fuzz.harness._SECONDS_AN_INPUT", 0.2)

    def slow(data: bytes, folder: Path) -> None:
        while True:
            pass

    def large(data: bytes, folder: Path) -> None:
        bytearray(4 << 30)

    for check, words in ((slow, "processor time"), (large, "MemoryError")):
        target = Target("made", (ValueError,), lambda: [b""], lambda rng, data: data, check)
        with pytest.raises(ContractBroken, match=words):
            run_input(target, b"")
