"""Packs: what is accepted, and what each refusal says."""

from __future__ import annotations

import hashlib
import json
import os
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny_pack import write_tiny_pack

from stenosis_trt.engine.errors import PackError
from stenosis_trt.engine.packs import files as pack_files
from stenosis_trt.engine.packs.models import InputSpec, OutputSpec
from stenosis_trt.engine.packs.pack import Pack
from stenosis_trt.engine.plans.store import spec_sha256


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_tiny_pack(tmp_path / "pack").path


def _change(folder: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    path = folder / "pack.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_a_folder_and_its_zip_are_the_same_pack(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "pack.zip"
    with zipfile.ZipFile(archive, "w") as stream:
        for path in folder.iterdir():
            stream.write(path, path.name)
    packed, plain = Pack.load(archive), Pack.load(folder)
    assert packed.sha256 == plain.sha256
    assert packed.models == plain.models
    assert packed.read_model("cord") == plain.read_model("cord")


def test_a_zip_that_holds_the_packs_folder_is_the_same_pack(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "pack.zip"
    with zipfile.ZipFile(archive, "w") as stream:
        stream.mkdir("pack")
        stream.writestr("__MACOSX/pack/._pack.json", b"")
        for path in folder.iterdir():
            stream.write(path, f"pack/{path.name}")
    assert Pack.load(archive).models == Pack.load(folder).models


def test_a_zip_of_two_packs_is_none(folder: Path, tmp_path: Path) -> None:
    archive = tmp_path / "packs.zip"
    with zipfile.ZipFile(archive, "w") as stream:
        for path in folder.iterdir():
            stream.write(path, f"one/{path.name}")
            stream.write(path, f"two/{path.name}")
    with pytest.raises(PackError, match="cannot be read"):
        Pack.load(archive)


def test_a_changed_file_is_refused_by_its_hash(folder: Path) -> None:
    path = folder / "grader.onnx"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(PackError, match=r"grader\.onnx .* is not the file its manifest names"):
        Pack.load(folder)


def test_a_file_changed_after_loading_is_refused_when_read(folder: Path) -> None:
    pack = Pack.load(folder)
    (folder / "cord.onnx").write_bytes(b"other")
    with pytest.raises(PackError, match="not the file"):
        pack.read_model("cord")


@pytest.mark.parametrize("name", ["../outside.onnx", "/etc/passwd", "a/../../b", "a\\b", ""])
def test_a_name_that_leaves_the_pack_is_refused(folder: Path, name: str) -> None:
    _change(folder, lambda content: content["models"]["cord"].update(file=name))
    with pytest.raises(PackError, match="outside itself"):
        Pack.load(folder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c.update(schema=99), "layout 99"),
        (lambda c: c["models"].pop("levels"), "lacks the models levels"),
        (lambda c: c.pop("licence"), r"does not say what it has to \(licence: Field required"),
        (lambda c: c["models"]["cord"]["input"].update(spacing_mm=0), "spacing_mm"),
        (lambda c: c["models"]["cord"]["input"].update(plane="coronal"), "plane"),
        (lambda c: c["models"]["cord"]["input"].update(std=[0.0]), "std"),
        (lambda c: c["models"]["cord"]["output"].update(kind="boxes"), "kind"),
        (lambda c: c["models"]["cord"].update(file="absent.onnx"), "cannot be read"),
        (lambda c: c["models"]["cord"]["input"].update(spacing_mm=float("nan")), "finite"),
        (lambda c: c["models"]["levels"]["output"].update(stride=7), "stride must divide"),
        (lambda c: c["models"]["grader"]["output"].update(stride=2), "stride of classes"),
        (lambda c: c["models"]["grader"]["output"].update(kind="heatmaps"), "kind must be classes"),
        (lambda c: c["models"]["levels"]["input"].update(plane="axial"), "plane must be sagittal"),
        (
            lambda c: c["models"]["cord"]["input"].update(channel_source="neighbours"),
            "channel_source must be slice",
        ),
        (lambda c: c["models"]["levels"]["output"]["names"].reverse(), "names must be C2/3, C3/4"),
        (lambda c: c["models"]["levels"]["output"]["names"].pop(), "names must be C2/3, C3/4"),
        (lambda c: c["models"]["cord"]["output"]["names"].reverse(), "names must be anterior, posterior"),
        (lambda c: c["models"]["grader"]["output"].update(names=["0", "1"]), "names must be 0, 1, 2, 3, or"),
        (
            lambda c: c["models"]["grader"]["output"].update(names=["other", "0", "1", "2", "3"]),
            "names must be 0, 1, 2, 3, or 0, 1, 2, 3, other, in this order",
        ),
        (
            lambda c: c["models"]["cord"]["output"]["names"].append("other"),
            "names must be anterior, posterior",
        ),
        (lambda c: c["models"]["grader"]["output"].update(maximum_other=0.5), "needs a class named other"),
    ],
)
def test_a_manifest_that_is_not_right_says_what_is_wrong(
    folder: Path, change: Callable[[dict[str, Any]], None], words: str
) -> None:
    _change(folder, change)
    with pytest.raises(PackError, match=words):
        Pack.load(folder)


def test_a_pack_is_for_clinical_use_only_if_it_declares_so(folder: Path) -> None:
    assert Pack.load(folder).clinical_use is False
    assert Pack.load(_change(folder, lambda content: content.update(clinical_use=True))).clinical_use is True
    for value in ("true", 1, None):
        _change(folder, lambda content, value=value: content.update(clinical_use=value))
        with pytest.raises(PackError, match="clinical_use"):
            Pack.load(folder)


def _manifest_output(pack: Pack, model: str) -> dict[str, Any]:
    content = json.loads((pack.path / "pack.json").read_text(encoding="utf-8"))
    return dict(content["models"][model]["output"])


@pytest.mark.parametrize(("given", "limit"), [(None, 0.5), (0.9, 0.9)])
def test_a_grader_may_have_a_class_for_what_is_unlike_its_training(
    tmp_path: Path, given: float | None, limit: float
) -> None:
    pack = write_tiny_pack(tmp_path / "pack", other=True, maximum_other=given)
    assert pack.models["grader"].output_shape == (5,)
    assert pack.models["grader"].output.maximum_other == limit
    assert _manifest_output(pack, "grader")["maximum_other"] == limit
    _change(pack.path, lambda content: content["models"]["grader"]["output"].pop("maximum_other"))
    assert Pack.load(pack.path).models["grader"].output.maximum_other == 0.5


def test_a_levels_model_may_have_the_maps_of_all_landmarks_or_of_none(tmp_path: Path) -> None:
    pack = write_tiny_pack(tmp_path / "pack", landmarks=True)
    assert Pack.load(pack.path).models["levels"].output_shape == (10, 64, 64)
    _change(pack.path, lambda content: content["models"]["levels"]["output"]["names"].pop())
    with pytest.raises(PackError, match=r"names must be C2/3.* or C2/3, .*, T1/2, T2/3, C2, dens, in this"):
        Pack.load(pack.path)


@pytest.mark.parametrize("limit", [0.0, -0.1, 1.1, float("nan")])
def test_a_limit_out_of_range_is_refused(limit: float) -> None:
    with pytest.raises(PackError, match="maximum_other must be above 0 and at most 1"):
        OutputSpec("classes", ("0", "1", "2", "3", "other"), 1, 0.5, limit)


def test_a_pack_without_that_class_says_nothing_of_it_and_its_plans_stay_valid(folder: Path) -> None:
    pack = Pack.load(folder)
    for name, model in pack.models.items():
        entry = json.loads((folder / "pack.json").read_text(encoding="utf-8"))["models"][name]
        assert set(entry["output"]) == {"kind", "names", "stride", "minimum_confidence"}
        told = json.dumps({"input": entry["input"], "output": entry["output"]}, sort_keys=True)
        assert spec_sha256(model) == hashlib.sha256(told.encode()).hexdigest()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\x80\x04K\x01."])
def test_a_manifest_that_is_no_manifest_is_refused(folder: Path, content: bytes) -> None:
    (folder / "pack.json").write_bytes(content)
    with pytest.raises(PackError) as caught:
        Pack.load(folder)
    assert caught.value.advice


def test_a_path_that_is_no_pack_says_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(PackError, match="--pack"):
        Pack.load(tmp_path)


def test_neighbouring_slices_need_an_odd_number_of_channels() -> None:
    with pytest.raises(PackError, match="odd"):
        InputSpec(8, 8, 1.0, 2, "neighbours", "sagittal", (1, 99), (0.5,) * 2, (1.0,) * 2, (0.0, 0.0))


def _add_variants(folder: Path, passed: bool = True) -> Path:
    """Give every model itself as its FP16."""

    def change(content: dict[str, Any]) -> None:
        for name, model in content["models"].items():
            file = f"{name}.fp16.onnx"
            (folder / file).write_bytes((folder / model["file"]).read_bytes())
            gate = {"passed": passed}
            model["variants"] = {
                "fp16": {"file": file, "sha256": model["sha256"], "metrics": {}, "gate": gate}
            }

    return _change(folder, change)


def test_a_pack_in_another_precision_has_the_variants_for_models(folder: Path) -> None:
    assert Pack.load(folder).precisions == ("fp32",)
    pack = Pack.load(_add_variants(folder))
    assert pack.precisions == ("fp32", "fp16")
    assert pack.in_precision("fp32") is pack
    half = pack.in_precision("fp16")
    assert half.models["cord"].file == "cord.fp16.onnx"
    assert half.models["cord"].precision == "fp16"
    assert half.sha256 == pack.sha256


@pytest.mark.parametrize(
    ("precision", "words"), [("int8", "no int8 models that passed"), ("fp64", "no precision 'fp64'")]
)
def test_a_precision_that_is_not_there_says_what_is(folder: Path, precision: str, words: str) -> None:
    with pytest.raises(PackError, match=words) as caught:
        Pack.load(_add_variants(folder)).in_precision(precision)
    assert "fp16" in caught.value.advice


def test_a_variant_that_did_not_pass_the_gate_is_not_graded_with(folder: Path) -> None:
    pack = Pack.load(_add_variants(folder, passed=False))
    with pytest.raises(PackError, match="did not pass the gate"):
        pack.in_precision("fp16")


def test_a_changed_variant_is_refused_by_its_hash(folder: Path) -> None:
    _add_variants(folder)
    (folder / "grader.fp16.onnx").write_bytes(b"other")
    with pytest.raises(PackError, match=r"grader\.fp16\.onnx .* is not the file its manifest names"):
        Pack.load(folder)


@pytest.mark.parametrize("entry", [{}, {"file": "cord.onnx", "sha256": "0"}, None, 3])
def test_variants_that_are_not_what_they_have_to_be_are_refused(folder: Path, entry: object) -> None:
    _change(folder, lambda content: content["models"]["cord"].update(variants={"fp16": entry}))
    with pytest.raises(PackError, match="does not say what it has to"):
        Pack.load(folder)


_ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 2.5, 10**40, 1e308, float("inf"), float("nan")),
    *("", "\ud800", "\x00", "\x1b[2J", "x" * 100_000),
    *([], [[]], {}, {"": None}, [None] * 3, {"a": {"b": [float("inf")]}}),
)


def _places(content: Any) -> list[tuple[Any, Any]]:
    """Every container in a JSON value with each of its keys."""
    items = content.items() if isinstance(content, dict) else enumerate(content)
    found = []
    for key, value in items:
        found.append((content, key))
        if isinstance(value, (dict, list)):
            found += _places(value)
    return found


def _load(path: Path) -> str:
    """Load what may be a pack; what its error says, or "". Any other exception is a bug."""
    try:
        Pack.load(path)
    except PackError as error:
        return str(error)
    return ""


def test_whatever_stands_in_a_manifest_gives_a_pack_or_its_own_error(folder: Path) -> None:
    """Every entry in turn replaced by values of several types, and removed."""
    path = _add_variants(folder) / "pack.json"
    text = path.read_text(encoding="utf-8")
    for index in range(len(_places(json.loads(text)))):
        for odd in random.Random(index).sample(_ODD, 4):
            content = json.loads(text)
            place, key = _places(content)[index]
            place[key] = odd
            path.write_text(json.dumps(content), encoding="utf-8")
            assert _load(folder).isprintable()
        content = json.loads(text)
        place, key = _places(content)[index]
        del place[key]
        path.write_text(json.dumps(content), encoding="utf-8")
        assert _load(folder).isprintable()


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"height": 128', '"height": 1e999', r"models\.cord\.input\.height"),
        ('"spacing_mm": 0.5', '"spacing_mm": 1e999', r"models\.cord\.input\.spacing_mm: .*finite"),
        ('"height": 128', '"hight": 128', r"models\.cord\.input\.height: Field required"),
        ('"card": {}', '"card": {"a": 1e999}', "card: numbers have to be finite"),
        ('"card": {}', '"card": ' + "[" * 9000 + "]" * 9000, "is not JSON .*recursion limit"),
        ('"name": "tiny"', '"name": "ti\\u001b[2Jny"', "name: "),
        ('"name": "tiny"', '"name": "\\ud800"', "is not JSON"),
        ('"schema": 1', '"schema": true', "schema: "),
        ('"card": {}', '"card": {}, "refused": []', "refused: "),
    ],
)
def test_an_entry_of_a_manifest_that_is_not_right_is_named(
    folder: Path, old: str, new: str, words: str
) -> None:
    path = folder / "pack.json"
    text = path.read_text(encoding="utf-8")
    assert old in text
    # The last one: cord's entries follow the others'.
    path.write_text(new.join(text.rsplit(old, 1)), encoding="utf-8")
    with pytest.raises(PackError, match=words) as caught:
        Pack.load(folder)
    assert "pack.json of" in caught.value.reason


@pytest.mark.parametrize("name", ["pack.json", "cord.onnx"])
def test_a_fifo_in_place_of_a_packs_file_is_refused_and_not_waited_for(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(PackError, match=rf"{name} of the pack .* cannot be read \(it is no regular file\)"):
        Pack.load(folder)


def test_a_fifo_in_place_of_a_pack_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pack.zip")
    with pytest.raises(PackError, match="it is no regular file"):
        Pack.load(tmp_path / "pack.zip")


def test_links_lead_to_files_of_the_pack_alone(folder: Path, tmp_path: Path) -> None:
    inside = folder / "models"
    inside.mkdir()
    (folder / "cord.onnx").rename(inside / "cord.onnx")
    (folder / "cord.onnx").symlink_to("models/cord.onnx")
    (tmp_path / "link").symlink_to(folder)
    assert Pack.load(tmp_path / "link").models == Pack.load(folder).models
    (inside / "cord.onnx").rename(tmp_path / "cord.onnx")
    (inside / "cord.onnx").symlink_to(tmp_path / "cord.onnx")
    with pytest.raises(PackError, match=r"cord\.onnx of the pack .* is a link to a file outside") as caught:
        Pack.load(folder)
    assert "cp -rL" in caught.value.advice


def _zipped(folder: Path, archive: Path, compression: int, **replaced: bytes) -> Path:
    with zipfile.ZipFile(archive, "w", compression) as stream:
        for path in folder.iterdir():
            stream.writestr(path.name, replaced.get(path.stem, path.read_bytes()))
    return archive


def test_a_model_that_inflates_as_no_weights_do_is_refused_before_it_is_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bomb = _zipped(folder, tmp_path / "bomb.zip", zipfile.ZIP_DEFLATED, cord=bytes(17 << 20))
    with pytest.raises(PackError, match=r"cord\.onnx of the pack .* inflates from \d+ to 17825792 bytes"):
        Pack.load(bomb)
    assert Pack.load(_zipped(folder, tmp_path / "pack.zip", zipfile.ZIP_DEFLATED)).name == "tiny"
    monkeypatch.setattr("stenosis_trt.engine.packs.pack.MAXIMUM_MODEL_BYTES", 100)
    for path in (folder, tmp_path / "pack.zip"):
        with pytest.raises(PackError, match=r"\.onnx of the pack .* bytes, over 100\."):
            Pack.load(path)


def test_a_zip_of_very_many_files_is_refused_before_they_are_listed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = _zipped(folder, tmp_path / "pack.zip", zipfile.ZIP_STORED)
    with zipfile.ZipFile(archive, "a") as stream:
        for number in range(200):
            stream.writestr(f"{number:090}", b"")
    assert Pack.load(archive).name == "tiny"
    # The directory's 200 entries have 136 bytes each.
    monkeypatch.setattr(pack_files, "_READ_BYTES", 20_000)
    with pytest.raises(PackError, match="its directory has more than 20000 bytes"):
        Pack.load(archive)


def test_a_zip_by_another_method_says_how_to_make_one(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(PackError, match="compressed by a method that is not read") as caught:
        Pack.load(_zipped(folder, tmp_path / "pack.zip", zipfile.ZIP_BZIP2))
    assert "python -m zipfile -c" in caught.value.advice


def test_a_damaged_zip_gives_a_pack_or_its_own_error(folder: Path, tmp_path: Path) -> None:
    sound = _zipped(folder, tmp_path / "pack.zip", zipfile.ZIP_DEFLATED).read_bytes()
    damaged, draw = tmp_path / "damaged.zip", random.Random(0)
    for _ in range(150):
        data = bytearray(sound)
        for _ in range(draw.randint(1, 4)):
            # Mostly in the directory, whose numbers decide what is read.
            data[draw.randrange(len(data) - 400, len(data))] = draw.randrange(256)
        damaged.write_bytes(bytes(data[: draw.randint(len(data) - 30, len(data))]))
        assert _load(damaged).isprintable()
