"""Signed packs and plans: each file is tampered with in turn, in a folder and in a zip."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from signing_keys import Pair, write_pair
from typed_models import pack_with_variants

from stenosis_trt.engine.errors import PackError, PlanError
from stenosis_trt.engine.packs.files import MANIFEST
from stenosis_trt.engine.packs.keys import PublicKey
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.packs.signature import (
    SignedFile,
    TrustedKeys,
    create_signature,
    parse_signature,
    signed_message,
)
from stenosis_trt.engine.plans.sidecar import RuntimeTarget, Sidecar
from stenosis_trt.engine.plans.signing import sign_pack, sign_plans
from stenosis_trt.engine.plans.store import (
    StoredPlan,
    find_plan,
    iter_readable_plans,
    model_files,
    read_plan,
    record_measurement,
    spec_sha256,
    write_plan,
)

DATA = b"what TensorRT made"
ADA = RuntimeTarget("tensorrt-rtx", "1.7.1.116", "NVIDIA RTX 4090", (8, 9))
PLANS = "plans/tensorrt-rtx-1.7.1.116-any-fp32"

PACK_FILES = (
    "cord.onnx",
    "grader.fp16.onnx",
    "grader.int8.onnx",
    "grader.onnx",
    "levels.onnx",
    "pack.json",
    "pack.json.sig",
)
PLAN_FILES = tuple(
    f"{PLANS}/{model}.{ending}" for model in ("grader", "levels") for ending in ("json", "json.sig", "plan")
)


@pytest.fixture(scope="module")
def maker(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return write_pair(tmp_path_factory.mktemp("maker"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return write_pair(tmp_path_factory.mktemp("stranger"))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, maker: Pair) -> Path:
    """A signed pack with two signed plans."""
    pack = pack_with_variants(tmp_path_factory.mktemp("made") / "pack")
    sign_pack(pack, maker.key)
    for model in ("grader", "levels"):
        write_plan(pack, "any", _sidecar(pack, model), DATA, maker.key)
    return pack.path


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "pack"))


def _sidecar(pack: Pack, model: str, data: bytes = DATA) -> Sidecar:
    """Of a plan in FP32 that TensorRT-RTX built for all its GPUs."""
    return Sidecar(
        model=model,
        precision="fp32",
        plan_sha256=hashlib.sha256(data).hexdigest(),
        plan_bytes=len(data),
        onnx_sha256=model_files(pack, model)["fp32"].sha256,
        spec_sha256=spec_sha256(pack.models[model]),
        pack_sha256=pack.sha256,
        flavour=ADA.flavour,
        version=ADA.version,
        compute_capabilities=("8.9",),
        newer_than=None,
        gpu_name=None,
        driver=None,
        batches=(1,),
        settings=(),
        version_compatible=False,
        hardware_compatible="",
        dla_core=None,
        layers={},
        build_seconds=1.0,
        built_with="a test",
    )


def _zipped(folder: Path) -> Path:
    archive = folder.with_suffix(".zip")
    with zipfile.ZipFile(archive, "w") as stream:
        for path in sorted(folder.rglob("*")):
            stream.write(path, path.relative_to(folder))
    return archive


def _as_it_is(folder: Path) -> Path:
    return folder


FORMS = pytest.mark.parametrize("form", [_as_it_is, _zipped], ids=["folder", "zip"])


def _flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(bytes(data))


def _rehash(folder: Path, name: str) -> None:
    """Make pack.json name the file of a model that is there now."""
    content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    content["models"][name]["sha256"] = hashlib.sha256((folder / f"{name}.onnx").read_bytes()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(content), encoding="utf-8")


def test_the_files_tampered_with_below_are_all_that_there_are(made: Path) -> None:
    files = {path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()}
    assert files == {*PACK_FILES, *PLAN_FILES}


@FORMS
def test_a_pack_that_is_signed_as_required_tells_by_whom(
    folder: Path, maker: Pair, stranger: Pair, form: Callable[[Path], Path]
) -> None:
    pack = Pack.load(form(folder), TrustedKeys((stranger.public_key, maker.public_key)))
    assert pack.signed_by == maker.public_key.fingerprint
    assert pack.in_precision("fp32").trust is not None
    assert Pack.load(form(folder)).signed_by == ""


@FORMS
@pytest.mark.parametrize("name", PACK_FILES)
@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
def test_a_pack_of_which_one_byte_was_changed_is_refused(
    folder: Path, maker: Pair, name: str, part: float, form: Callable[[Path], Path]
) -> None:
    size = (folder / name).stat().st_size
    _flip(folder / name, round((size - 1) * part))
    with pytest.raises(PackError) as caught:
        Pack.load(form(folder), maker.trust)
    assert name.removesuffix(".sig") in caught.value.reason
    # A changed fingerprint looks like another signer's.
    assert re.search("again from its maker|otherwise do not use it", caught.value.advice)


@FORMS
@pytest.mark.parametrize("name", PACK_FILES)
def test_a_pack_of_which_a_file_was_taken_away_is_refused(
    folder: Path, maker: Pair, name: str, form: Callable[[Path], Path]
) -> None:
    (folder / name).unlink()
    with pytest.raises(PackError, match=r"cannot be read|is not signed") as caught:
        Pack.load(form(folder), maker.trust)
    assert name.removesuffix(".sig") in caught.value.reason


@FORMS
def test_a_model_and_its_hash_changed_together_are_refused_by_the_signature(
    folder: Path, maker: Pair, form: Callable[[Path], Path]
) -> None:
    shutil.copy(folder / "levels.onnx", folder / "cord.onnx")
    _rehash(folder, "cord")
    assert Pack.load(form(folder)).signed_by == ""
    with pytest.raises(PackError, match=r"pack\.json of the pack .* is not what SHA256:.* signed") as caught:
        Pack.load(form(folder), maker.trust)
    assert str(maker.public) in caught.value.reason


@FORMS
def test_a_pack_signed_by_another_names_both(
    folder: Path, maker: Pair, stranger: Pair, form: Callable[[Path], Path]
) -> None:
    sign_pack(Pack.load(folder), stranger.key)
    with pytest.raises(PackError) as caught:
        Pack.load(form(folder), maker.trust)
    assert f"names {stranger.public_key.fingerprint} as its signer" in caught.value.reason
    assert f"trusted is {maker.public_key.fingerprint}" in caught.value.reason


def test_a_signature_that_names_a_trusted_key_and_is_anothers_is_refused(
    folder: Path, maker: Pair, stranger: Pair
) -> None:
    text = create_signature(stranger.key, SignedFile.PACK, (folder / MANIFEST).read_bytes()).decode()
    forged = text.replace(stranger.public_key.fingerprint, maker.public_key.fingerprint)
    (folder / "pack.json.sig").write_text(forged)
    with pytest.raises(PackError, match="it or its signature was changed"):
        Pack.load(folder, maker.trust)


def test_an_unsigned_pack_is_refused_before_anything_else_of_it_is_read(folder: Path, maker: Pair) -> None:
    for path in (folder / "pack.json.sig", *folder.glob("*.onnx")):
        path.unlink()
    (folder / MANIFEST).write_text("{")
    with pytest.raises(PackError, match="is not signed") as caught:
        Pack.load(folder, maker.trust)
    assert "stenosis-trt sign PACK --signing-key KEY" in caught.value.advice


def test_a_huge_signature_is_not_read(folder: Path, maker: Pair) -> None:
    with (folder / "pack.json.sig").open("r+b") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(PackError, match="over 4096"):
        Pack.load(folder, maker.trust)


def test_files_exchanged_after_loading_are_refused(folder: Path, maker: Pair) -> None:
    """A model that is exchanged after loading, and the manifest with it."""
    pack = Pack.load(folder, maker.trust)
    shutil.copy(folder / "levels.onnx", folder / "cord.onnx")
    _rehash(folder, "cord")
    with pytest.raises(PackError, match="is not the file its manifest names"):
        pack.read_model("cord")
    with pytest.raises(PackError, match=r"pack\.json of .* was changed while it was in use"):
        pack.read_manifest()
    with pytest.raises(PackError, match="was changed while it was in use"):
        sign_pack(pack, maker.key)


def test_signed_plans_are_found_and_read(folder: Path, maker: Pair) -> None:
    pack = Pack.load(folder, maker.trust)
    assert {plan.sidecar.model for plan in iter_readable_plans(pack)} == {"grader", "levels"}
    assert read_plan(pack, find_plan(pack, "grader", "fp32", ADA)) == DATA


@pytest.mark.parametrize("name", PLAN_FILES)
@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
def test_a_plan_of_which_one_byte_was_changed_is_not_read(
    folder: Path, maker: Pair, name: str, part: float
) -> None:
    size = (folder / name).stat().st_size
    _flip(folder / name, round((size - 1) * part))
    _refused(Pack.load(folder, maker.trust), name)


@pytest.mark.parametrize("name", PLAN_FILES)
def test_a_plan_of_which_a_file_was_taken_away_is_not_read(folder: Path, maker: Pair, name: str) -> None:
    (folder / name).unlink()
    _refused(Pack.load(folder, maker.trust), name)


def _refused(pack: Pack, name: str) -> None:
    """That the plan a file belongs to is not read, and that the file and the command that helps are told."""
    model = Path(name).name.split(".")[0]
    with pytest.raises(PlanError) as caught:
        read_plan(pack, find_plan(pack, model, "fp32", ADA))
    assert f"{PLANS}/{model}.plan" in caught.value.reason
    assert "stenosis-trt build" in caught.value.advice
    assert caught.value.advice.endswith("--signing-key KEY")
    other = {"grader": "levels", "levels": "grader"}[model]
    assert read_plan(pack, find_plan(pack, other, "fp32", ADA)) == DATA


def test_a_plan_exchanged_together_with_its_sidecar_is_refused_by_the_signature(
    folder: Path, maker: Pair, stranger: Pair
) -> None:
    pack = Pack.load(folder, maker.trust)
    for key in (None, stranger.key):
        write_plan(pack, "any", _sidecar(pack, "grader", b"malware"), b"malware", key)
        assert read_plan(Pack.load(folder), find_plan(Pack.load(folder), "grader", "fp32", ADA)) == b"malware"
        with pytest.raises(PlanError, match=r"its sidecar (is not signed|names SHA256:.* as its signer)"):
            find_plan(pack, "grader", "fp32", ADA)
        for plan in iter_readable_plans(pack):
            if plan.sidecar.model == "grader":
                with pytest.raises(PlanError, match="is not to be loaded: its sidecar"):
                    read_plan(pack, plan)


def test_a_huge_or_broken_signature_matters_only_where_one_is_required(folder: Path, maker: Pair) -> None:
    for size in (0, 1 << 40):
        with (folder / PLANS / "grader.json.sig").open("r+b") as stream:
            stream.truncate(size)
        unconcerned = Pack.load(folder)
        assert read_plan(unconcerned, find_plan(unconcerned, "grader", "fp32", ADA)) == DATA
        with pytest.raises(PlanError, match="its sidecar has a signature that cannot be read"):
            find_plan(Pack.load(folder, maker.trust), "grader", "fp32", ADA)


def test_the_sidecar_of_another_model_with_its_signature_is_refused(folder: Path, maker: Pair) -> None:
    for ending in ("json", "json.sig", "plan"):
        shutil.copy(folder / PLANS / f"levels.{ending}", folder / PLANS / f"grader.{ending}")
    with pytest.raises(PlanError, match=r"grader\.plan: the sidecar is one of levels"):
        find_plan(Pack.load(folder, maker.trust), "grader", "fp32", ADA)


def test_the_signature_of_another_sidecar_is_refused(folder: Path, maker: Pair) -> None:
    shutil.copy(folder / PLANS / "levels.json.sig", folder / PLANS / "grader.json.sig")
    with pytest.raises(PlanError, match="it or its signature was changed"):
        find_plan(Pack.load(folder, maker.trust), "grader", "fp32", ADA)


def test_a_signed_plan_of_another_packs_model_is_refused(folder: Path, maker: Pair, tmp_path: Path) -> None:
    pack = Pack.load(folder)
    other = replace(_sidecar(pack, "grader"), onnx_sha256="0" * 64)
    plan = write_plan(pack, "any", other, DATA, maker.key)
    for opened in (pack, Pack.load(folder, maker.trust)):
        with pytest.raises(PlanError, match=r"built from another grader\.onnx"):
            read_plan(opened, plan)


def test_the_signature_of_a_pack_is_none_of_a_plan_and_the_other_way_round(maker: Pair) -> None:
    data = b"the same bytes"
    for kind, other in ((SignedFile.PACK, SignedFile.PLAN), (SignedFile.PLAN, SignedFile.PACK)):
        file = create_signature(maker.key, kind, data)
        assert maker.trust.verify_signature(kind, data, file).key == maker.public_key
        renamed = file.replace(kind.value.encode(), other.value.encode())
        for attempt in (file, renamed):
            assert maker.trust.verify_signature(other, data, attempt).key is None
    assert signed_message(SignedFile.PACK, data) != signed_message(SignedFile.PLAN, data)


def test_a_plan_that_was_exchanged_after_it_was_found_is_not_read(folder: Path, maker: Pair) -> None:
    pack = Pack.load(folder, maker.trust)
    found = find_plan(pack, "grader", "fp32", ADA)
    write_plan(pack, "any", _sidecar(pack, "grader", b"malware"), b"malware")
    with pytest.raises(PlanError, match="is not the plan that its sidecar names"):
        read_plan(pack, found)


def test_a_sidecar_that_says_something_else_than_what_was_signed_is_not_believed(
    folder: Path, maker: Pair
) -> None:
    pack = Pack.load(folder, maker.trust)
    found = find_plan(pack, "grader", "fp32", ADA)
    changed = replace(found, sidecar=_sidecar(pack, "grader", b"malware"))
    found.path.write_bytes(b"malware")
    with pytest.raises(PlanError, match="is not the one that was signed"):
        read_plan(pack, changed)
    with pytest.raises(PlanError, match="its sidecar is not signed"):
        read_plan(pack, StoredPlan(found.path, changed.sidecar))


def test_a_sidecar_written_anew_does_not_keep_the_signature_of_the_one_before(
    folder: Path, maker: Pair
) -> None:
    pack = Pack.load(folder, maker.trust)
    signature = folder / PLANS / "grader.json.sig"
    found = find_plan(pack, "grader", "fp32", ADA)
    record_measurement(found, {"passed": True})
    assert not signature.exists()
    again = write_plan(pack, "any", found.sidecar, DATA, maker.key)
    assert signature.exists()
    assert find_plan(pack, "grader", "fp32", ADA) == again
    write_plan(pack, "any", found.sidecar, DATA)
    assert not signature.exists()


def test_signing_vouches_for_plans_that_the_pack_vouches_for_and_for_no_others(
    folder: Path, maker: Pair, stranger: Pair
) -> None:
    (folder / PLANS / "grader.plan").write_bytes(b"malware")
    pack = Pack.load(folder)
    troubles = {path.stem: trouble for path, trouble in sign_plans(pack, stranger.key)}
    assert troubles["levels"] == ""
    assert "is not the plan that its sidecar names" in troubles["grader"]
    both = Pack.load(folder, TrustedKeys((maker.public_key, stranger.public_key)))
    signers = {
        plan.sidecar.model: found.fingerprint
        for plan in iter_readable_plans(both)
        if plan.signature and (found := parse_signature(SignedFile.PLAN, plan.signature))
    }
    assert signers == {"levels": stranger.public_key.fingerprint, "grader": maker.public_key.fingerprint}


def test_a_zip_is_not_signed_and_what_to_do_is_said(folder: Path, maker: Pair) -> None:
    with pytest.raises(
        PackError, match=r"is a zip, and a signature goes into a pack's folder.*-e .*pack\.zip"
    ):
        sign_pack(Pack.load(_zipped(folder)), maker.key)


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text + b" ",
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text.replace(b'"schema": 1', b'"schema": 2'),
        lambda text: text.replace(b"Ed25519", b"ed25519"),
        lambda text: text.replace(b"SHA256:", b"SHA256:\\u001b"),
        lambda text: b"[" * 4000,
        lambda text: b"\xff",
        lambda text: b"{}",
        lambda text: b"",
    ],
)
def test_a_signature_has_one_form_only(maker: Pair, change: Callable[[bytes], bytes]) -> None:
    text = create_signature(maker.key, SignedFile.PACK, b"data")
    assert parse_signature(SignedFile.PACK, text) is not None
    assert parse_signature(SignedFile.PACK, change(text)) is None
    verdict = maker.trust.verify_signature(SignedFile.PACK, b"data", change(text))
    assert (verdict.key, verdict.reason) == (None, "has a signature that cannot be read")


def test_two_files_of_one_key_are_one_key(maker: Pair) -> None:
    assert PublicKey(maker.public_key.raw, "elsewhere.pem") == maker.public_key
