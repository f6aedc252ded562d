"""Signing and requiring signatures as users do: commands, exit codes, what is printed and recorded."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from dicom_factory import series
from signing_keys import Pair, write_pair
from time_limits import time_limit
from typed_models import NO_GPU, needs_rtx, pack_with_variants

from stenosis_trt.engine.errors import PackError
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.packs.signature import SignedFile, parse_signature
from stenosis_trt.engine.plans.build import BuildRequest, build_plans
from stenosis_trt.engine.plans.store import iter_readable_plans, read_plan
from stenosis_trt.engine.support.progress import show_progress
from stenosis_trt.engine.trt.flavours import BuildSettings

_SCRIPT = "from stenosis_trt.engine.cli.app import main; main()"
_WITHOUT = "import sys; sys.modules['cryptography'] = None; "


def _call(
    *arguments: object, without_cryptography: bool = False, **environment: str
) -> subprocess.CompletedProcess[str]:
    script = (_WITHOUT if without_cryptography else "") + _SCRIPT
    return subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=time_limit(120),
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return pack_with_variants(tmp_path_factory.mktemp("made") / "pack").path


@pytest.fixture
def pack(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "pack"))


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return write_pair(tmp_path)


def test_a_signed_pack_is_verified_and_one_that_was_changed_is_not(pack: Path, pair: Pair) -> None:
    signed = _call("sign", pack, "--signing-key", pair.private)
    assert (signed.returncode, signed.stderr) == (0, "")
    assert signed.stdout == f"pack.json of tiny 1: signed by {pair.public_key.fingerprint}\n"
    answer = _call("verify", pack, "--trusted-key", pair.public)
    assert answer.returncode == 0, answer.stderr
    assert f"Signed by {pair.public_key.fingerprint} ({pair.public})" in answer.stdout.splitlines()
    with (pack / "pack.json").open("a") as stream:
        stream.write("\n")
    answer = _call("verify", pack, "--trusted-key", pair.public)
    assert answer.returncode == 2
    (line,) = answer.stderr.splitlines()
    assert "pack.json" in line
    assert "it or its signature was changed" in line


def test_verify_without_a_key_says_that_the_signature_was_not_checked(pack: Path, pair: Pair) -> None:
    assert "Not signed" in _call("verify", pack).stdout.splitlines()
    assert _call("sign", pack, "--signing-key", pair.private).returncode == 0
    lines = _call("verify", pack).stdout.splitlines()
    (line,) = (line for line in lines if line.startswith("Signed"))
    assert pair.public_key.fingerprint in line
    assert "not checked: give --trusted-key" in line
    (pack / "pack.json.sig").write_text("!")
    assert "in a form that cannot be read; not checked" in _call("verify", pack).stdout


def test_verify_takes_several_keys_and_refuses_where_none_is_the_signers(
    pack: Path, pair: Pair, tmp_path: Path
) -> None:
    other, third = write_pair(tmp_path, "other"), write_pair(tmp_path, "third")
    assert _call("verify", pack, "--trusted-key", pair.public).returncode == 2
    assert _call("sign", pack, "--signing-key", pair.private).returncode == 0
    answer = _call("verify", pack, "--trusted-key", other.public, "--trusted-key", pair.public)
    assert answer.returncode == 0
    assert str(pair.public) in answer.stdout
    answer = _call("verify", pack, "--trusted-key", other.public, "--trusted-key", third.public)
    assert answer.returncode == 2
    for public in (pair.public_key, other.public_key, third.public_key):
        assert public.fingerprint in answer.stderr


def test_a_key_that_is_given_twice_is_one(pack: Path, pair: Pair) -> None:
    assert _call("sign", pack, "--signing-key", pair.private).returncode == 0
    answer = _call("verify", pack, "--trusted-key", pair.public, "--trusted-key", pair.public)
    assert answer.returncode == 0, answer.stderr
    assert f"Signed by {pair.public_key.fingerprint}" in answer.stdout


def test_grade_requires_the_signature_and_records_whose_it_was(
    pack: Path, pair: Pair, tmp_path: Path
) -> None:
    series(tmp_path / "in", 3)
    arguments = ("grade", tmp_path / "in", "--out", tmp_path / "out", "--pack", pack)
    required = ("--trusted-key", pair.public)
    refused = _call(*arguments, *required)
    assert refused.returncode == 2
    assert "is not signed" in refused.stderr
    assert not (tmp_path / "out").exists()
    assert _call("sign", pack, "--signing-key", pair.private).returncode == 0
    assert _call(*arguments, *required).returncode == 1
    record = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert record["pack"]["signed_by"] == pair.public_key.fingerprint
    # The results are the same ones whoever vouches for the pack: a run may go on without.
    assert _call(*arguments, "--resume").returncode == 1
    record = json.loads((tmp_path / "out" / "run.json").read_text(encoding="utf-8"))
    assert record["pack"]["signed_by"] is None


def test_only_who_signs_or_checks_needs_cryptography(pack: Path, pair: Pair, tmp_path: Path) -> None:
    series(tmp_path / "in", 3)
    grade = ("grade", tmp_path / "in", "--out", tmp_path / "out", "--pack", pack)
    for arguments in (
        ("sign", pack, "--signing-key", pair.private),
        ("verify", pack, "--trusted-key", pair.public),
        (*grade, "--trusted-key", pair.public),
    ):
        answer = _call(*arguments, without_cryptography=True)
        assert answer.returncode == 2
        assert "pip install 'stenosis-trt[sign]'" in answer.stderr
        assert len(answer.stderr.splitlines()) == 1
    assert _call("sign", pack, "--signing-key", pair.private).returncode == 0
    assert _call("verify", pack, without_cryptography=True).returncode == 0
    assert _call(*grade, without_cryptography=True).returncode == 1


def test_a_passphrase_comes_from_the_environment_and_is_not_asked_for_where_nobody_sits(
    pack: Path, tmp_path: Path
) -> None:
    pair = write_pair(tmp_path, "secret", passphrase="correct horse")
    arguments = ("sign", pack, "--signing-key", pair.private)
    answer = _call(*arguments)
    assert answer.returncode == 2
    assert "STENOSIS_TRT_KEY_PASSPHRASE" in answer.stderr
    assert _call(*arguments, STENOSIS_TRT_KEY_PASSPHRASE="battery").returncode == 2
    assert not (pack / "pack.json.sig").exists()
    assert _call(*arguments, STENOSIS_TRT_KEY_PASSPHRASE="correct horse").returncode == 0
    assert Pack.load(pack, pair.trust).signed_by == pair.public_key.fingerprint


def test_a_passphrase_is_asked_for_at_a_terminal_and_not_shown(pack: Path, tmp_path: Path) -> None:
    pair = write_pair(tmp_path, "secret", passphrase="correct horse")
    command = [sys.executable, "-c", _SCRIPT, "sign", str(pack), "--signing-key", str(pair.private)]
    here, there = os.openpty()
    with subprocess.Popen(
        command, stdin=there, stdout=subprocess.PIPE, stderr=there, start_new_session=True
    ) as process:
        _until(lambda: not termios.tcgetattr(here)[3] & termios.ECHO)
        os.write(here, b"correct horse\n")
        assert process.wait(60) == 0
    seen = os.read(here, 1 << 16)
    for end in (here, there):
        os.close(end)
    assert b"Passphrase of " in seen
    assert b"correct horse" not in seen
    assert Pack.load(pack, pair.trust).signed_by == pair.public_key.fingerprint


def _until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_private_key_that_others_can_read_is_used_with_a_warning(pack: Path, pair: Pair) -> None:
    pair.private.chmod(0o644)
    answer = _call("sign", pack, "--signing-key", pair.private)
    assert answer.returncode == 0
    assert answer.stderr == (
        f"stenosis-trt: other users can read the private key: chmod 600 {pair.private}\n"
    )


def test_a_pack_that_is_not_what_it_says_is_not_signed(pack: Path, pair: Pair) -> None:
    (pack / "cord.onnx").write_bytes(b"other")
    answer = _call("sign", pack, "--signing-key", pair.private)
    assert answer.returncode == 2
    assert "cord.onnx of pack tiny is not the file its manifest names" in answer.stderr
    assert not (pack / "pack.json.sig").exists()


@needs_rtx
def test_plans_are_signed_as_they_are_built_and_what_is_signed_by_no_one_is_built_again(
    pack: Path, pair: Pair
) -> None:
    options = ("build", pack, "--model", "grader", "--precision", "fp16", "--batch", "1")
    assert "built in" in _call(*options).stdout
    assert "built in" in _call(*options, "--signing-key", pair.private).stdout
    assert "there already" in _call(*options, "--signing-key", pair.private).stdout
    assert "there already" in _call(*options).stdout
    (plan,) = iter_readable_plans(Pack.load(pack))
    found = parse_signature(SignedFile.PLAN, plan.signature or b"")
    assert found is not None
    assert found.fingerprint == pair.public_key.fingerprint
    assert _call("sign", pack, "--signing-key", pair.private).returncode == 0
    assert read_plan(Pack.load(pack, pair.trust), plan)
    other = write_pair(pack.parent, "other")
    assert "built in" in _call(*options, "--signing-key", other.private).stdout


@needs_rtx
def test_plans_are_built_only_of_a_pack_that_is_signed_where_that_is_required(pack: Path, pair: Pair) -> None:
    options = ("build", pack, "--model", "grader", "--precision", "fp16", "--batch", "1")
    required = ("--signing-key", pair.private, "--trusted-key", pair.public)
    answer = _call(*options, *required)
    assert answer.returncode == 2
    assert "is not signed" in answer.stderr
    assert not (pack / "plans").exists()
    assert _call("sign", pack, "--signing-key", pair.private).returncode == 0
    assert _call(*options, *required).returncode == 0


@needs_rtx
def test_plans_that_could_not_be_loaded_unsigned_are_not_built_without_a_key(pack: Path, pair: Pair) -> None:
    assert _call("sign", pack, "--signing-key", pair.private).returncode == 0
    request = BuildRequest("tensorrt-rtx", ("fp16",), ("grader",), BuildSettings((1,)))
    with pytest.raises(PackError, match="there is no key to do that with") as caught:
        list(build_plans(Pack.load(pack, pair.trust), request, NO_GPU, show_progress))
    assert caught.value.advice.endswith("--signing-key KEY")
    assert not (pack / "plans").exists()


@needs_rtx
def test_signing_a_pack_signs_its_plans_and_names_those_that_are_not_what_they_should_be(
    pack: Path, pair: Pair
) -> None:
    options = ("build", pack, "--model", "grader,cord", "--precision", "fp32", "--batch", "1")
    assert _call(*options).returncode == 0
    bad, good = iter_readable_plans(Pack.load(pack))
    bad.path.write_bytes(b"malware")
    answer = _call("sign", pack, "--signing-key", pair.private)
    assert answer.returncode == 1
    assert f"{good.path}: signed" in answer.stdout.splitlines()
    (line,) = answer.stderr.splitlines()
    assert line.startswith(f"{bad.path}: not signed: ")
    assert "is not the plan that its sidecar names" in line
    verified = _call("verify", pack, "--trusted-key", pair.public)
    assert verified.returncode == 1
    assert "cord.plan: NOT TRUSTED: its sidecar is not signed" in verified.stdout
    assert "grader.plan: intact" in verified.stdout
    opened = Pack.load(pack, pair.trust)
    assert [plan.signature is not None for plan in iter_readable_plans(opened)] == [False, True]
