"""What the engine uses of TensorRT, read off its source.

Everything of TensorRT is of the type `Any` there. `ANY` says which class each parameter and answer of that
type is; `uses_of` follows them through assignments, calls and comprehensions, and refuses a parameter that it
is not told of. What a call answers is known from the bindings' own signatures.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tensorrt_api import Api

MODULE = ""
"""The owner of TensorRT's module-level names."""


@dataclass(frozen=True)
class Instance:
    """An object of a class of TensorRT's; or the class, or the module, itself."""

    of: str
    is_class: bool = False


@dataclass(frozen=True)
class Items:
    """A collection of objects of one class."""

    of: Instance


@dataclass(frozen=True)
class Several:
    """A tuple."""

    parts: tuple[Instance, ...]


Kind = Instance | Items | Several | None
_TRT = Instance(MODULE, is_class=True)

ANY: dict[str, Kind] = {
    "make_logger.trt": _TRT,
    "make_logger.return": None,  # a class of our own, held by `overrides`
    "log.level": Instance("ILogger.Severity"),
    "make_progress_monitor.trt": _TRT,
    "make_progress_monitor.return": None,
    "_module.return": _TRT,
    "_builder.return": Instance("Builder"),
    "_parse.builder": Instance("Builder"),
    "_parse.return": Several((Instance("INetworkDefinition"), Instance("OnnxParser"))),
    "_profiles.builder": Instance("Builder"),
    "_profiles.network": Instance("INetworkDefinition"),
    "_profiles.config": Instance("IBuilderConfig"),
    "_configure.builder": Instance("Builder"),
    "_configure.config": Instance("IBuilderConfig"),
    "_parser_error.error": Instance("ParserError"),
    "deserialise.return": Instance("ICudaEngine"),
    "execution_context.engine": Instance("ICudaEngine"),
    "execution_context.return": Instance("IExecutionContext"),
    "LoadedPlan._contexts": Items(Instance("IExecutionContext")),
    "_context.return": Instance("IExecutionContext"),
    "_set_shape.context": Instance("IExecutionContext"),
    "_tensor_names.engine": Instance("ICudaEngine"),
    "_input_shape.engine": Instance("ICudaEngine"),
    "_dtype.engine": Instance("ICudaEngine"),
    "_dtype.return": None,  # NumPy's
    "_output_shape.context": Instance("IExecutionContext"),
    "describe_network.network": Instance("INetworkDefinition"),
    "_type_name.dtype": Instance("DataType"),
}
"""Parameters, answers and attributes of the type `Any`, by function or class."""

_PROPERTIES = {("ILayer", "type"): "LayerType", ("ITensor", "dtype"): "DataType"}
"""Classes of properties, which the bindings do not tell."""


@dataclass(frozen=True)
class Use:
    """A name of TensorRT's that the source uses.

    `call` has the number of positional arguments and the keywords, where it is called.
    """

    owner: str
    name: str
    call: tuple[int, tuple[str, ...]] | None = None

    def __str__(self) -> str:
        return f"{self.owner}.{self.name}" if self.owner else self.name


@dataclass
class Uses:
    """What some modules use.

    Attributes:
        found: names, and how methods are called.
        asked_for: names whose absence the source asks about (`hasattr`), as "BuilderFlag.X".
        computed: classes whose names are computed (`getattr`).
        overrides: methods that a class of ours has in the place of TensorRT's: owner, name, parameters.
    """

    found: set[Use] = field(default_factory=set)
    asked_for: set[str] = field(default_factory=set)
    computed: set[str] = field(default_factory=set)
    overrides: set[tuple[str, str, int]] = field(default_factory=set)


def uses_of(paths: Iterable[Path], api: Api) -> Uses:
    """What modules use of TensorRT; `api` tells what its methods answer.

    Raises:
        LookupError: a parameter, answer or attribute is `Any`, and ANY does not say what it is.
    """
    uses = Uses()
    for path in paths:
        _Reader(api, uses).visit(ast.parse(path.read_text(encoding="utf-8")))
    return uses


class _Reader(ast.NodeVisitor):
    """Follows one module from top to bottom."""

    def __init__(self, api: Api, uses: Uses) -> None:
        self._api, self._uses = api, uses
        self._names: dict[str, Kind] = {}
        self._class = ""

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        before, self._class = self._class, node.name
        for base in node.bases:
            kind = self._kind(base)
            if isinstance(kind, Instance) and kind.is_class:
                for item in node.body:
                    if isinstance(item, ast.FunctionDef) and not item.name.startswith("__"):
                        self._uses.overrides.add((kind.of, item.name, len(item.args.args) - 1))
        self.generic_visit(node)
        self._class = before

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        before = dict(self._names)
        for argument in (*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs):
            if _is_any(argument.annotation):
                self._names[argument.arg] = _told(f"{node.name}.{argument.arg}")
            else:
                self._names.pop(argument.arg, None)
        if _is_any(node.returns):
            _told(f"{node.name}.return")
        for statement in node.body:
            self.visit(statement)
        # What was learnt of `self` holds in the class's other methods.
        learnt = {name: kind for name, kind in self._names.items() if name.startswith("self.")}
        self._names = before | learnt

    def visit_Assign(self, node: ast.Assign) -> None:
        self.visit(node.value)
        kinds = [self._kind(node.value)]
        if isinstance(node.value, ast.Tuple):
            kinds = [Several(tuple(self._kind(part) for part in node.value.elts))]  # type: ignore[misc]
        for target in node.targets:
            self._assign(target, kinds[0])

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)
        kind = self._kind(node.value) if node.value is not None else None
        if _is_any(node.annotation) and kind is None:
            kind = _told(f"{self._class}.{ast.unparse(node.target).removeprefix('self.')}")
        self._assign(node.target, kind)

    def visit_For(self, node: ast.For) -> None:
        self.visit(node.iter)
        self._assign(node.target, _item(self._kind(node.iter)))
        for statement in (*node.body, *node.orelse):
            self.visit(statement)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        self.visit(node.iter)
        self._assign(node.target, _item(self._kind(node.iter)))
        for condition in node.ifs:
            self.visit(condition)

    def _visit_comprehension(
        self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp
    ) -> None:
        for generator in node.generators:
            self.visit(generator)
        for part in (node.key, node.value) if isinstance(node, ast.DictComp) else (node.elt,):
            self.visit(part)

    visit_ListComp = visit_SetComp = visit_GeneratorExp = visit_DictComp = _visit_comprehension

    def visit_Call(self, node: ast.Call) -> None:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name in ("hasattr", "getattr"):
            kind = self._kind(node.args[0])
            if isinstance(kind, Instance):
                self._ask(kind.of, node.args[1], name)
        if isinstance(node.func, ast.Attribute):
            kind = self._kind(node.func.value)
            if isinstance(kind, Instance):
                call = (len(node.args), tuple(str(item.arg) for item in node.keywords))
                self._uses.found.add(Use(kind.of, node.func.attr, call))
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        kind = self._kind(node.value)
        if isinstance(kind, Instance) and not self._is_enumerator_name(kind, node.attr):
            self._uses.found.add(Use(kind.of, node.attr))
        self.generic_visit(node)

    def _ask(self, owner: str, name: ast.expr, how: str) -> None:
        if not isinstance(name, ast.Constant):
            self._uses.computed.add(owner)
        elif how == "hasattr":
            self._uses.asked_for.add(str(Use(owner, str(name.value))))

    def _is_enumerator_name(self, kind: Instance, name: str) -> bool:
        """`name` and `value`, which pybind11 gives every enumerator and which are no names of their own."""
        members = self._api.classes.get(kind.of, {})
        return name in ("name", "value") and any(item.kind == "enumerator" for item in members.values())

    def _assign(self, target: ast.expr, kind: Kind) -> None:
        if isinstance(target, (ast.Tuple, ast.List)):
            parts = kind.parts if isinstance(kind, Several) else (None,) * len(target.elts)
            for part, its in zip(target.elts, parts, strict=True):
                self._assign(part, its)
            return
        if isinstance(target, ast.Attribute):
            # Setting a property of TensorRT's is a use.
            self.visit_Attribute(target)
        self._names[ast.unparse(target)] = kind

    def _kind(self, node: ast.expr | None) -> Kind:
        if isinstance(node, (ast.Name, ast.Attribute)) and ast.unparse(node) in self._names:
            return self._names[ast.unparse(node)]
        if isinstance(node, ast.Attribute):
            kind = self._kind(node.value)
            return self._of_attribute(kind, node.attr) if isinstance(kind, Instance) else None
        if isinstance(node, ast.Call):
            return self._of_call(node.func)
        if isinstance(node, ast.Subscript):
            return _item(self._kind(node.value))
        if isinstance(node, (ast.ListComp, ast.SetComp, ast.GeneratorExp)):
            before = dict(self._names)
            for generator in node.generators:
                self._names[ast.unparse(generator.target)] = _item(self._kind(generator.iter))
            kind = self._kind(node.elt)
            self._names = before
            return Items(kind) if isinstance(kind, Instance) else None
        return None

    def _of_attribute(self, kind: Instance, name: str) -> Kind:
        path = f"{kind.of}.{name}" if kind.of else name
        if path in self._api.classes:
            return Instance(path, is_class=True)
        known = _PROPERTIES.get((kind.of, name))
        return Instance(known) if known else None

    def _of_call(self, function: ast.expr) -> Kind:
        kind = self._kind(function)
        if isinstance(kind, Instance) and kind.is_class:
            return Instance(kind.of)
        name = function.attr if isinstance(function, ast.Attribute) else ast.unparse(function)
        owner = self._kind(function.value) if isinstance(function, ast.Attribute) else None
        if isinstance(owner, Instance):
            member = self._api.member(owner.of, name)
            answers = {item.returns for item in member.signatures} if member else set()
            return next((Instance(answer) for answer in answers if answer in self._api.classes), None)
        return ANY.get(f"{name}.return")


def _is_any(annotation: ast.expr | None) -> bool:
    return annotation is not None and any(
        isinstance(node, ast.Name) and node.id == "Any" for node in ast.walk(annotation)
    )


def _told(name: str) -> Kind:
    if name not in ANY:
        raise LookupError(f"{name} is Any: name its TensorRT class in tests/support/tensorrt_uses.py")
    return ANY[name]


def _item(kind: Kind) -> Kind:
    return kind.of if isinstance(kind, Items) else None
