"""What TensorRT's Python bindings offer, read from the bindings themselves; no GPU and no library is needed.

    python tests/support/tensorrt_api.py        fetches the wheels of `BINDINGS` into a cache folder

The wheels hold an extension module that needs ten C functions of libnvinfer, libnvinfer_plugin and
libnvonnxparser. A stub of them, built by the C compiler, is enough to import it: classes, enumerations and
signatures are the real ones, and objects cannot be made. Both wheels have a module `tensorrt_bindings`, of
which a process can hold one, so each is read in a process of its own.
"""

from __future__ import annotations

import atexit
import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

STAND_IN = Path(__file__).resolve().parent / "stand_in_tensorrt"

BINDINGS = {"10.3.0": "tensorrt-cu12-bindings==10.3.0", "11.4.0.106": "tensorrt-cu13-bindings==11.4.0.106"}
"""Version of TensorRT → the wheel of its bindings: those of JetPack 6, and of JetPack 7."""

_FUNCTIONS = {
    "nvinfer": (
        *("createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL"),
        *("getBuilderPluginRegistry", "getPluginRegistry", "getInferLibVersion"),
    ),
    "nvinfer_plugin": ("initLibNvInferPlugins",),
    "nvonnxparser": (
        *("createNvOnnxParser_INTERNAL", "createNvOnnxParserRefitter_INTERNAL", "getNvOnnxParserVersion"),
    ),
}
"""What the bindings need of each library."""

_DUMP = """
import importlib, inspect, json, sys

module = importlib.import_module(sys.argv[1])
classes = {}

def read(kind, name):
    members = {}
    for attribute in dir(kind):
        if attribute.startswith("_") and attribute != "__init__":
            continue
        value = getattr(kind, attribute)
        if inspect.isclass(value):
            read(value, f"{name}.{attribute}")
            members[attribute] = {"kind": "class"}
        elif isinstance(value, property):
            members[attribute] = {"kind": "property"}
        elif isinstance(value, kind):
            members[attribute] = {"kind": "enumerator"}
        elif callable(value):
            members[attribute] = {"kind": "method", "doc": value.__doc__ or ""}
        else:
            members[attribute] = {"kind": "value"}
    classes[name] = members

for name in dir(module):
    value = getattr(module, name)
    if inspect.isclass(value) and not name.startswith("_"):
        read(value, name)
names = ["__version__", *(name for name in dir(module) if not name.startswith("_"))]
print(json.dumps({"version": module.__version__, "names": names, "classes": classes}))
"""


class NotThere(Exception):
    """The bindings cannot be read here; the message says why."""


@dataclass(frozen=True)
class Signature:
    """One overload of a method, without `self`.

    Attributes:
        parameters: names, in order.
        required: how many of them have no default.
        returns: the last part of the type's name.
    """

    parameters: tuple[str, ...]
    required: int
    returns: str

    def takes(self, positional: int, keywords: tuple[str, ...]) -> bool:
        """Whether a call with so many positional arguments and these keywords is one of this overload."""
        given = {*self.parameters[:positional], *keywords}
        return (
            positional <= len(self.parameters)
            and set(keywords) <= set(self.parameters[positional:])
            and set(self.parameters[: self.required]) <= given
        )


@dataclass(frozen=True)
class Member:
    """A name of a class: a method with its overloads, or a property, enumerator, class or value."""

    kind: str
    signatures: tuple[Signature, ...] = ()


@dataclass(frozen=True)
class Api:
    """What one version offers.

    Attributes:
        version: by the module itself.
        names: public names of the module.
        classes: members by class; a class within another is called "ILogger.Severity".
    """

    version: str
    names: frozenset[str]
    classes: Mapping[str, Mapping[str, Member]]

    def member(self, owner: str, name: str) -> Member | None:
        """A name of a class, or of the module where `owner` is ""; None where there is none."""
        if owner:
            return self.classes.get(owner, {}).get(name)
        return Member("class" if name in self.classes else "value") if name in self.names else None


@functools.cache
def bindings(version: str) -> Api:
    """The API of a version in BINDINGS.

    Raises:
        NotThere: the wheel cannot be fetched, or there is no C compiler.
    """
    libraries = _stubs(version.split(".")[0])
    return _read(
        "tensorrt_bindings", {"PYTHONPATH": str(fetched(version)), "LD_LIBRARY_PATH": str(libraries)}
    )


@functools.cache
def installed(module: str) -> Api:
    """The API of a module that is installed, such as "tensorrt_rtx_bindings".

    Raises:
        NotThere: it is not.
    """
    return _read(module, {})


def fetched(version: str) -> Path:
    """The folder of a wheel's content, fetched where it was not before.

    Raises:
        NotThere: pip cannot fetch it; with pip's last line.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    tag = f"cp{sys.version_info.major}{sys.version_info.minor}"
    folder = cache / "stenosis-trt" / "bindings" / f"{BINDINGS[version].replace('==', '-')}-{tag}"
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    try:
        options = ("--quiet", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check")
        command = [sys.executable, "-m", "pip", "install", *options, "--target", str(part), BINDINGS[version]]
        done = subprocess.run(command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
        if done.returncode:
            said = (done.stderr.strip() or "no reason given").splitlines()[-1]
            raise NotThere(f"{BINDINGS[version]} cannot be fetched: {said}")
        # Another process may have been faster; its folder holds the same.
        if not folder.is_dir():
            part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return folder


def _stubs(major: str) -> Path:
    """A folder with libraries of that major version which have the functions, and do nothing."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise NotThere("there is no C compiler for the stub of TensorRT's libraries")
    folder = Path(tempfile.mkdtemp(prefix="tensorrt-stub-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for library, functions in _FUNCTIONS.items():
        name = f"lib{library}.so.{major}"
        source = folder / f"{library}.c"
        source.write_text("".join(f"void *{function}(void) {{ return 0; }}\n" for function in functions))
        command = [compiler, "-shared", "-fPIC", f"-Wl,-soname,{name}", "-o", str(folder / name), str(source)]
        subprocess.run(command, check=True, capture_output=True)
    return folder


def _read(module: str, environment: Mapping[str, str]) -> Api:
    done = subprocess.run(
        [sys.executable, "-c", _DUMP, module],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NotThere(f"{module} cannot be imported: {done.stderr.strip().splitlines()[-1]}")
    found = json.loads(done.stdout)
    classes = {
        owner: {
            name: Member(item["kind"], tuple(_signatures(name, item.get("doc", ""))))
            for name, item in members.items()
        }
        for owner, members in found["classes"].items()
    }
    return Api(found["version"], frozenset(found["names"]), classes)


def _signatures(name: str, doc: str) -> Iterator[Signature]:
    """Overloads from the first lines that pybind11 writes into a docstring."""
    for match in re.finditer(rf"^(?:\d+\. )?{name}\((self: .*)\) -> (.*)$", doc, re.MULTILINE):
        _, *parameters = _split(match[1])
        names = tuple(item.partition(":")[0].strip() for item in parameters)
        required = sum(" = " not in item for item in parameters)
        yield Signature(names, required, match[2].strip().rpartition(".")[2].rstrip("]"))


def _split(text: str) -> list[str]:
    """Parts between commas that are in no brackets."""
    parts, depth, start = [], 0, 0
    for place, character in enumerate(text):
        depth += (character in "([{<") - (character in ")]}>")
        if character == "," and depth == 0:
            parts.append(text[start:place])
            start = place + 1
    return [*parts, text[start:]]


if __name__ == "__main__":
    try:
        for known in BINDINGS:
            print(f"TensorRT's bindings {bindings(known).version} are in {fetched(known)}.")
    except NotThere as error:
        sys.exit(str(error))
