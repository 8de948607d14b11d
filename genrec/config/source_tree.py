"""Source files as syntax trees: where a module lives and what the names in it mean, without importing anything."""

from __future__ import annotations

import ast
import importlib.util
from copy import copy
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# Names of these modules are known by their dotted name; their source is never opened.
_STANDARD = {
    "typing",
    "typing_extensions",
    "collections",
    "dataclasses",
    "pathlib",
    "annotated_types",
    "pydantic",
    "abc",
    "enum",
    "os",
}
_OPAQUE = {"torch", "numpy", "wandb"}  # thousands of lines that name classes we could not check anyway


class TargetNotFoundError(LookupError):
    """A ``_target_`` names nothing; ``nearest`` is a similar name that exists, or None."""

    def __init__(self, message: str, nearest: str | None = None) -> None:
        super().__init__(message)
        self.nearest = nearest


@dataclass(frozen=True, eq=False)
class Module:
    """A parsed source file and what its top-level names are bound to: a definition, a value or an import."""

    name: str
    path: Path
    bindings: dict[str, ast.AST | tuple[str, str | None]]
    stars: list[str]

    @property
    def package(self) -> str:
        return self.name if self.path.name == "__init__.py" else self.name.rpartition(".")[0]

    def offered(self) -> list[str]:
        """The names one may write after this module's: its definitions and its submodules."""
        names = dict.fromkeys(name for name in self.bindings if not name.startswith("_"))
        if self.path.name == "__init__.py":
            for path in sorted(self.path.parent.iterdir()):
                if path.name[0] not in "_." and (path.is_dir() or path.suffix in (".py", ".so", ".pyd")):
                    names[path.name.partition(".")[0]] = None
        return list(names)


@cache
def top_level(name: str) -> tuple[Path, ...] | None:
    """Where a top-level package or module lives: its folders, its file, or None where it does not exist."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations is not None:
        return tuple(Path(place) for place in spec.submodule_search_locations)
    return (Path(spec.origin),) if spec.origin and spec.origin.endswith(".py") else ()


@cache
def module_file(name: str) -> Path | None:
    """The source file of a module, or its folder for a namespace package; None where there is no source."""
    top, *rest = name.split(".")
    for place in top_level(top) or ():
        path = place.joinpath(*rest) if rest else place
        if path.is_file():
            return path
        if (path / "__init__.py").is_file():
            return path / "__init__.py"
        if path.with_suffix(".py").is_file() and rest:
            return path.with_suffix(".py")
        if path.is_dir():
            return path
    return None


@cache
def load_module(name: str) -> Module | None:
    path = module_file(name)
    if path is None:
        return None
    if path.is_dir():
        return Module(name, path / "__init__.py", {}, [])
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    except SyntaxError as error:
        raise TargetNotFoundError(f"{path} line {error.lineno} is not valid Python: {error.msg}") from error
    module = Module(name, path, {}, [])
    _bind(module, tree.body)
    return module


def _bind(module: Module, body: list[ast.stmt]) -> None:
    for node in body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            module.bindings[node.name] = node
        elif isinstance(node, ast.Assign):
            for aim in node.targets:
                if isinstance(aim, ast.Name):
                    module.bindings[aim.id] = node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            module.bindings[node.target.id] = node.value
        elif isinstance(node, ast.Import):
            for alias in node.names:
                module.bindings[alias.asname or alias.name.partition(".")[0]] = (
                    (alias.name, None) if alias.asname else (alias.name.partition(".")[0], None)
                )
        elif isinstance(node, ast.ImportFrom):
            source = _absolute(module, node)
            for alias in node.names:
                if alias.name == "*":
                    module.stars.append(source)
                else:
                    module.bindings[alias.asname or alias.name] = (source, alias.name)
        elif isinstance(node, ast.If | ast.Try | ast.With):
            for part in ("orelse", "body"):  # of two branches the first one wins
                _bind(module, getattr(node, part, []))


def _absolute(module: Module, node: ast.ImportFrom) -> str:
    if not node.level:
        return node.module or ""
    base = module.package.split(".")
    base = base[: len(base) - (node.level - 1)]
    return ".".join([*base, node.module] if node.module else base)


def resolve(module: Module, name: str, depth: int = 0) -> tuple[Module, ast.AST] | Module | str | None:
    """What a name means in a module: a definition with its module, a module, or the dotted name of something unseen."""
    if depth > 20:
        return None
    bound = module.bindings.get(name)
    if bound is None:
        for source in module.stars:
            starred = load_module(source)
            found = resolve(starred, name, depth + 1) if starred else None
            if found is not None:
                return found
        return load_module(f"{module.name}.{name}") if module.path.name == "__init__.py" else None
    if not isinstance(bound, tuple):
        return module, bound
    source, attribute = bound
    if attribute is None:
        return source if source in _OPAQUE else load_module(source) or source
    if source in _OPAQUE or source.partition(".")[0] in _STANDARD:
        return f"{source}.{attribute}"
    origin = load_module(source)
    found = resolve(origin, attribute, depth + 1) if origin else None
    return found or load_module(f"{source}.{attribute}") or f"{source}.{attribute}"


def locate(target: str) -> tuple[Module, ast.AST] | None:
    """The definition behind a dotted target; None where the source does not say."""
    parts = target.split(".")
    if top_level(parts[0]) is None:
        raise TargetNotFoundError(f"there is no package or module '{parts[0]}' in this folder or the environment")
    depth = len(parts)
    while depth and module_file(".".join(parts[:depth])) is None:
        depth -= 1
    module = load_module(".".join(parts[:depth])) if depth else None
    if module is None:
        return None
    found: tuple[Module, ast.AST] | Module | str | None = module
    for part in parts[depth:]:
        if isinstance(found, Module):
            found = resolve(found, part)
        elif isinstance(found, tuple) and isinstance(found[1], ast.ClassDef):
            found = _member(found[0], found[1], part)
        else:
            return None
        if isinstance(found, tuple) and isinstance(found[1], ast.Name | ast.Attribute):  # an alias: New = Old
            found = resolve_expression(found[0], found[1])
    return found if isinstance(found, tuple) else None


def _member(module: Module, node: ast.ClassDef, name: str) -> tuple[Module, ast.AST] | None:
    for statement in node.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == name:
            return (
                (module, _without_first(statement)) if not decorated(statement, "staticmethod") else (module, statement)
            )
    return None


def _without_first(node: ast.FunctionDef) -> ast.FunctionDef:
    """A method as its bound form is called."""
    bound = copy(node)
    bound.args = copy(node.args)
    bound.args.args = node.args.args[1:]
    return bound


def resolve_expression(module: Module, node: ast.AST) -> tuple[Module, ast.AST] | Module | str | None:
    """What ``Name`` or ``a.b.Name`` means in a module; builtins come back as their bare name."""
    if isinstance(node, ast.Subscript):
        return resolve_expression(module, node.value)
    if isinstance(node, ast.Name):
        return resolve(module, node.id) or node.id
    if isinstance(node, ast.Attribute):
        owner = resolve_expression(module, node.value)
        if isinstance(owner, Module):
            known = owner.name.partition(".")[0] in _STANDARD
            return f"{owner.name}.{node.attr}" if known else resolve(owner, node.attr) or f"{owner.name}.{node.attr}"
        return f"{owner}.{node.attr}" if isinstance(owner, str) else None
    return None


def decorated(node: ast.FunctionDef, name: str) -> bool:
    return any(ast.unparse(decorator).rpartition(".")[2] == name for decorator in node.decorator_list)
