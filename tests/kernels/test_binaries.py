"""Which compiled kernels a device gets, and that no others are ever taken."""

from __future__ import annotations

import ctypes.util
import hashlib
import json
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from stenosis_trt.kernels import binaries, build_binaries, nvrtc, sources
from stenosis_trt.kernels.binaries import BinaryError, KernelImage
from stenosis_trt.kernels.nvrtc import CompiledImage, NvrtcError
from stenosis_trt.kernels.sources import FLAGS, Sources

SOURCE = Sources('#include "half.cuh"\n', {"half.cuh": "// nothing\n"})
"""Not the installed sources; compiled only by `_FakeNvrtc`."""

SHIPPED = [
    ("12.6.85", ["sm_75", "sm_80", "sm_86", "sm_87", "sm_89", "sm_90", "compute_75"]),
    ("13.0.88", ["sm_100", "sm_110", "sm_120"]),
]


def _ship(folder: Path, source: Sources = SOURCE, flags: tuple[str, ...] = FLAGS) -> Path:
    """A folder with an image of some bytes for every architecture, and their manifest."""
    images = []
    for toolkit, architectures in SHIPPED:
        for architecture in architectures:
            kind = "cubin" if architecture.startswith("sm_") else "ptx"
            data = f"image of {architecture}".encode()
            (folder / f"{architecture}.{kind}").write_bytes(data)
            images.append(
                {
                    "file": f"{architecture}.{kind}",
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "toolkit": toolkit,
                    "architecture": architecture,
                    "kind": kind,
                    "flags": list(flags),
                }
            )
    manifest = {"source_sha256": source.sha256, "images": images}
    (folder / binaries.MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
    return folder


def _choose(folder: Path, capability: tuple[int, int] = (8, 7), driver_version: int = 12060) -> KernelImage:
    return binaries.choose_shipped(capability, driver_version, folder=folder, source=SOURCE)


@pytest.mark.parametrize(
    ("device", "capability", "driver_version", "architecture"),
    [
        ("T4", (7, 5), 12060, "sm_75"),
        ("A100", (8, 0), 12080, "sm_80"),
        ("RTX 3090", (8, 6), 13000, "sm_86"),
        ("Orin with JetPack 6", (8, 7), 12060, "sm_87"),
        ("Orin with JetPack 7", (8, 7), 13000, "sm_87"),
        ("a neighbour of Orin", (8, 8), 13000, "sm_86"),
        ("RTX 4090", (8, 9), 12060, "sm_89"),
        ("H100", (9, 0), 12060, "sm_90"),
        ("H200", (9, 0), 13020, "sm_90"),
        ("B200", (10, 0), 13000, "sm_100"),
        ("B300", (10, 3), 13000, "sm_100"),
        ("Thor", (11, 0), 13000, "sm_110"),
        ("RTX 5090", (12, 0), 13000, "sm_120"),
        ("GB10", (12, 1), 13000, "sm_120"),
        ("B200 with a driver for 12.8", (10, 0), 12080, "compute_75"),
        ("RTX 5090 with a driver for 12.8", (12, 0), 12080, "compute_75"),
        ("Thor as CUDA 12 numbers it", (10, 1), 12080, "compute_75"),
        ("Thor as CUDA 12 numbers it, with a later driver", (10, 1), 13000, "compute_75"),
        ("a later chip of Thor's family", (11, 1), 13000, "compute_75"),
        ("one of the future", (13, 0), 14000, "compute_75"),
    ],
)
def test_a_device_gets_the_nearest_shipped_image_that_it_and_its_driver_take(
    tmp_path: Path, device: str, capability: tuple[int, int], driver_version: int, architecture: str
) -> None:
    image = _choose(_ship(tmp_path), capability, driver_version)

    assert image.architecture == architecture, device
    assert image.data == f"image of {architecture}".encode()
    assert image.kind == ("cubin" if architecture.startswith("sm_") else "ptx")
    assert image.origin.startswith(f"shipped {image.kind} for {architecture} of CUDA ")
    assert SOURCE.sha256[:12] in image.origin


@pytest.mark.parametrize("capability", [(5, 3), (6, 1), (7, 0), (7, 2)])
def test_a_device_older_than_turing_is_refused_however_it_is_asked(
    tmp_path: Path, capability: tuple[int, int]
) -> None:
    _ship(tmp_path)
    calls: list[Callable[[], KernelImage]] = [
        lambda: _choose(tmp_path, capability),
        lambda: binaries.compile_image(capability),
        lambda: binaries.load_kernel_image(capability, 12060),
    ]
    for refused in calls:
        with pytest.raises(BinaryError, match=r"too old: use one of 7\.5 or later, or `--device cpu`"):
            refused()


@pytest.mark.parametrize("driver_version", [11080, 12020, 12050])
def test_a_driver_older_than_the_toolkits_gets_nothing_shipped(tmp_path: Path, driver_version: int) -> None:
    with pytest.raises(BinaryError, match=r"no shipped binary runs on compute capability 8\.7"):
        _choose(_ship(tmp_path), (8, 7), driver_version)


def test_binaries_of_other_sources_are_refused(tmp_path: Path) -> None:
    _ship(tmp_path, Sources("// yesterday's\n"))
    with pytest.raises(BinaryError, match="from other sources or with other flags: rebuild with `python -m"):
        _choose(tmp_path)


def test_binaries_made_with_other_flags_are_refused(tmp_path: Path) -> None:
    _ship(tmp_path, flags=(*FLAGS, "--use_fast_math"))
    with pytest.raises(BinaryError, match="with other flags: rebuild with"):
        _choose(tmp_path)


def test_a_binary_that_is_not_the_manifests_is_refused(tmp_path: Path) -> None:
    _ship(tmp_path)
    (tmp_path / "sm_87.cubin").write_bytes(b"image of sm_88")
    with pytest.raises(BinaryError, match=r"sm_87\.cubin is not the one its manifest names: rebuild"):
        _choose(tmp_path)
    assert _choose(tmp_path, (8, 6)).data == b"image of sm_86"


def test_a_missing_binary_is_an_error_and_not_a_reason_for_another(tmp_path: Path) -> None:
    _ship(tmp_path)
    (tmp_path / "sm_87.cubin").unlink()
    with pytest.raises(BinaryError, match=r"sm_87\.cubin cannot be read .*: rebuild"):
        _choose(tmp_path)


@pytest.mark.parametrize(
    "manifest", [None, "", "[]", "{}", '{"source_sha256": "x", "images": [{"flags": []}]}']
)
def test_a_missing_or_damaged_manifest_is_refused(tmp_path: Path, manifest: str | None) -> None:
    _ship(tmp_path)
    if manifest is None:
        (tmp_path / binaries.MANIFEST).unlink()
    else:
        (tmp_path / binaries.MANIFEST).write_text(manifest, encoding="utf-8")
    with pytest.raises(BinaryError, match=r"manifest of the shipped binaries cannot be read .*: rebuild"):
        _choose(tmp_path)


def test_the_hash_of_the_sources_tells_names_from_contents_and_headers_from_each_other() -> None:
    variants = [
        Sources("ab", {}),
        Sources("ab", {"a.cuh": ""}),
        Sources("a", {"a.cuh": "b"}),
        Sources("a", {"a.cuhb": ""}),
        Sources("a", {"a.cuh": "b", "b.cuh": ""}),
        Sources("a", {"a.cuh": "", "b.cuh": "b"}),
    ]
    assert len({variant.sha256 for variant in variants}) == len(variants)
    assert Sources("", {"a": "1", "b": "2"}).sha256 == Sources("", {"b": "2", "a": "1"}).sha256


def test_the_sources_of_a_folder_are_the_main_file_and_the_headers_alone(tmp_path: Path) -> None:
    for name in (sources.MAIN, "one.cuh", "notes.txt"):
        (tmp_path / name).write_bytes(f"{name}\r\n".encode())
    loaded = sources.load_sources(tmp_path)
    assert (loaded.main, dict(loaded.headers)) == ("kernels.cu\r\n", {"one.cuh": "one.cuh\r\n"})
    with pytest.raises(FileNotFoundError, match=r"kernels\.cu is missing: reinstall"):
        sources.load_sources(tmp_path / "elsewhere")


class _FakeNvrtc:
    """An NVRTC that "compiles" to JSON of what it was given; `calls` counts its compilations."""

    def __init__(self, name: str = "NVRTC 12.6", version: tuple[int, int] = (12, 6), error: str = "") -> None:
        self.name, self.version, self.calls, self._error = name, version, 0, error

    def compile(self, source: Sources, architecture: str, flags: Sequence[str]) -> CompiledImage:
        self.calls += 1
        if self._error:
            raise NvrtcError(self._error)
        given = [architecture, list(flags), {sources.MAIN: source.main, **source.headers}]
        return CompiledImage(json.dumps(given).encode(), "")


def _use(monkeypatch: pytest.MonkeyPatch, folder: Path, *compilers: _FakeNvrtc) -> None:
    """Make these the only compilers of this machine, with an empty cache."""
    by_path = {str(number): compiler for number, compiler in enumerate(compilers)}
    monkeypatch.setattr(binaries, "find_nvrtc", lambda: list(by_path))
    monkeypatch.setattr(binaries, "Nvrtc", by_path.__getitem__)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))


def test_the_compiler_gets_the_sources_the_architecture_and_the_flags(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _use(monkeypatch, tmp_path, _FakeNvrtc())
    image = binaries.compile_image((8, 7), 12060, source=SOURCE)

    assert json.loads(image.data) == ["sm_87", list(FLAGS), {sources.MAIN: SOURCE.main, **SOURCE.headers}]
    assert (image.kind, image.architecture) == ("cubin", "sm_87")
    assert image.origin == f"compiled here for sm_87 by NVRTC 12.6, sources {SOURCE.sha256[:12]}"


def test_what_was_compiled_before_is_taken_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = _FakeNvrtc()
    _use(monkeypatch, tmp_path, compiler)
    first = binaries.compile_image((8, 7), source=SOURCE)
    second = binaries.compile_image((8, 7), source=SOURCE)

    assert compiler.calls == 1
    assert second.data == first.data
    assert second.origin == f"{first.origin}, taken from the cache"
    assert [path.parent for path in (tmp_path / "cache").rglob("*.image")] == [
        tmp_path / "cache" / "stenosis-trt" / "kernels"
    ]


@pytest.mark.parametrize("change", ["source", "header", "architecture", "flags", "toolkit"])
def test_the_cache_is_not_asked_for_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    compiler = _FakeNvrtc()
    _use(monkeypatch, tmp_path, compiler)
    binaries.compile_image((8, 7), source=SOURCE)
    source, capability = SOURCE, (8, 7)
    if change == "source":
        source = Sources(SOURCE.main + "//", SOURCE.headers)
    elif change == "header":
        source = Sources(SOURCE.main, {"half.cuh": "// changed\n"})
    elif change == "architecture":
        capability = (8, 6)
    elif change == "flags":
        monkeypatch.setattr(binaries, "FLAGS", (*FLAGS, "--restrict"))
    else:
        newer = _FakeNvrtc("NVRTC 12.9", (12, 9))
        _use(monkeypatch, tmp_path, newer)
        binaries.compile_image(capability, source=source)
        assert newer.calls == 1
        return
    binaries.compile_image(capability, source=source)
    assert compiler.calls == 2


@pytest.mark.parametrize("damage", [b"", b"short", b"x" * 500, None])
def test_a_damaged_cache_entry_is_compiled_anew_and_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes | None
) -> None:
    compiler = _FakeNvrtc()
    _use(monkeypatch, tmp_path, compiler)
    first = binaries.compile_image((8, 7), source=SOURCE)
    (entry,) = (tmp_path / "cache").rglob("*.image")
    content = entry.read_bytes()
    entry.write_bytes(content[:-1] if damage is None else damage)

    assert binaries.compile_image((8, 7), source=SOURCE).data == first.data
    assert compiler.calls == 2
    assert entry.read_bytes() == content
    assert [path.name for path in entry.parent.iterdir()] == [entry.name]


def test_a_cache_that_cannot_be_written_costs_the_cache_and_not_the_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _use(monkeypatch, tmp_path, _FakeNvrtc())
    (tmp_path / "cache").write_text("a file where the folder should be", encoding="utf-8")
    image = binaries.compile_image((8, 7), source=SOURCE)
    assert image.data
    assert ", not cached (" in image.origin


def test_the_cache_lies_where_the_user_wants_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert binaries.cache_folder() == tmp_path / "stenosis-trt"
    for ignored in ("", "relative"):
        monkeypatch.setenv("XDG_CACHE_HOME", ignored)
        assert binaries.cache_folder() == Path.home() / ".cache" / "stenosis-trt"


def test_a_compiler_newer_than_the_driver_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = _FakeNvrtc("NVRTC 13.0", (13, 0))
    _use(monkeypatch, tmp_path, compiler)
    with pytest.raises(BinaryError) as refused:
        binaries.compile_image((8, 7), 12060, source=SOURCE)
    assert str(refused.value) == (
        "NVRTC 13.0 is newer than the driver; install a version that the driver supports: "
        "`pip install 'nvidia-cuda-nvrtc-cu12==12.6.*'`"
    )
    assert compiler.calls == 0
    assert binaries.compile_image((8, 7), 13000, source=SOURCE).data


def test_the_error_of_a_compiler_that_fails_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _use(monkeypatch, tmp_path, _FakeNvrtc(error="kernels.cu does not compile:\nno such type"))
    with pytest.raises(BinaryError, match=r"^kernels.cu does not compile:\nno such type; install"):
        binaries.compile_image((8, 7), 12060, source=SOURCE)
    assert not list((tmp_path / "cache").rglob("*.image"))


@pytest.mark.parametrize(
    ("driver_version", "package"),
    [
        (11080, "'nvidia-cuda-nvrtc-cu11==11.8.*'"),
        (12020, "'nvidia-cuda-nvrtc-cu12==12.2.*'"),
        (13010, "'nvidia-cuda-nvrtc==13.1.*'"),
        (None, "nvidia-cuda-nvrtc"),
    ],
)
def test_without_a_compiler_the_error_says_which_to_install(
    monkeypatch: pytest.MonkeyPatch, driver_version: int | None, package: str
) -> None:
    monkeypatch.setattr(binaries, "find_nvrtc", list)
    with pytest.raises(BinaryError) as refused:
        binaries.compile_image((8, 7), driver_version, source=SOURCE)
    assert "NVRTC is not installed; install" in str(refused.value)
    assert f"`pip install {package}`" in str(refused.value)


def test_a_broken_nvrtc_is_reported_and_the_next_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "libnvrtc.so.12"
    broken.write_bytes(b"no library")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(binaries, "find_nvrtc", lambda: [str(broken)])
    with pytest.raises(BinaryError, match=r"libnvrtc\.so\.12 cannot be used as NVRTC"):
        binaries.compile_image((8, 7), source=SOURCE)
    working, load = _FakeNvrtc(), nvrtc.Nvrtc
    monkeypatch.setattr(binaries, "find_nvrtc", lambda: [str(broken), "working"])
    monkeypatch.setattr(binaries, "Nvrtc", lambda path: working if path == "working" else load(path))
    assert "NVRTC 12.6" in binaries.compile_image((8, 7), source=SOURCE).origin


def test_a_device_gets_the_installed_binary_and_compiles_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiler = _FakeNvrtc()
    _use(monkeypatch, tmp_path, compiler)
    image = binaries.load_kernel_image((8, 7), 12060)
    assert image.origin.startswith("shipped cubin for sm_87 of CUDA 12.6")
    sections = {name.decode() for name in re.findall(rb"\0\.text\.(\w+)", image.data)}
    assert sections == set(build_binaries.REGISTER_BUDGET)
    assert compiler.calls == 0


def test_where_nothing_shipped_fits_the_image_is_compiled_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _use(monkeypatch, tmp_path, _FakeNvrtc("NVRTC 12.2", (12, 2)))
    image = binaries.load_kernel_image((8, 7), 12020)
    assert image.origin == (
        f"compiled here for sm_87 by NVRTC 12.2, sources {sources.load_sources().sha256[:12]}, because "
        "no shipped binary runs on compute capability 8.7 with a driver for CUDA 12.2"
    )


def test_where_the_shipped_are_stale_the_installed_sources_are_compiled_and_the_image_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _use(monkeypatch, tmp_path, _FakeNvrtc())
    monkeypatch.setattr(binaries, "load_sources", lambda: SOURCE)
    image = binaries.load_kernel_image((8, 7), 12060)
    assert json.loads(image.data)[2][sources.MAIN] == SOURCE.main
    assert "because the shipped binaries were built from other sources" in image.origin


def test_where_nothing_can_be_had_the_error_has_both_reasons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _use(monkeypatch, tmp_path, _FakeNvrtc("NVRTC 13.0", (13, 0)))
    with pytest.raises(BinaryError) as refused:
        binaries.load_kernel_image((8, 7), 12020)
    for reason in ("no shipped binary runs on", "newer than the driver", "'nvidia-cuda-nvrtc-cu12==12.2.*'"):
        assert reason in str(refused.value)


def test_libraries_are_found_in_wheels_and_toolkits_each_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [
        "site/nvidia/cuda_nvrtc/lib/libnvrtc.so.12",
        "site/nvidia/cu13/lib/libnvrtc.so.13",
        "toolkit/targets/aarch64-linux/lib/libnvrtc.so.12",
    ]
    others = [
        "site/nvidia/cu13/lib/libnvrtc.alt.so.13",
        "site/nvidia/cu13/lib/libnvrtc-builtins.so.13.0",
        "toolkit/targets/aarch64-linux/lib/libnvrtc_static.a",
    ]
    for name in [*files, *others]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "toolkit" / "lib64").symlink_to("targets/aarch64-linux/lib")
    monkeypatch.setattr(sys, "path", ["", str(tmp_path / "site"), str(tmp_path / "absent")])
    monkeypatch.setattr(nvrtc, "toolkit_folders", lambda: [tmp_path / "toolkit"])
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    found = [Path(path).resolve() for path in nvrtc.find_nvrtc()]
    assert sorted(found) == sorted(tmp_path.resolve() / name for name in files)
