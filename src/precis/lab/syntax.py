"""A Python file as hashes of its code and as the imports in it.

Hashed is the syntax tree without docstrings, comments, layout and types of quotes, in a form of our own, because
`ast.dump` changes from one Python to the next and a fingerprint must not.
"""

import ast
import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from precis.errors import InputError

# What of a claim class describes or judges, or is in a trial's key as it stands.
_NOT_COMPUTING = frozenset(
    ("name", "statement", "arms", "sabotaged", "profiles", "hypotheses", "preconditions", "tuning", "runs", "takes",
     "untried", "by_arm")
)  # fmt: skip
_SKIPPED = frozenset(("ctx", "type_comment", "kind", "type_ignores"))


@dataclass(frozen=True)
class Import:
    """`import module` (`as` another name), or `from module import name`; `level` counts the dots."""

    module: str
    name: str | None = None
    level: int = 0
    renamed: bool = False


@dataclass(frozen=True)
class Code:
    """A piece of a file: hash (empty if there is no code in it), imports, and the names it reads off something."""

    digest: str
    imports: tuple[Import, ...]
    attributes: frozenset[str]  # and strings that may be names, for getattr


@dataclass(frozen=True)
class File:
    code: Code  # all but the claim classes
    claims: dict[str, Code]
    bound: frozenset[str]  # names given at the top
    strings: frozenset[str]
    lazy: bool  # gives names by a `__getattr__` of its own


def read(path: Path, claims: frozenset[str] = frozenset()) -> File:
    """The file's code, with the top-level classes named in `claims` kept apart; once a version of the file."""
    stat = path.stat()
    return _read(path, claims, stat.st_mtime_ns, stat.st_size)


@cache
def _read(path: Path, claims: frozenset[str], mtime: int, size: int) -> File:
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        raise InputError(f"not Python: {error.args[0]}", file=path, line=line) from error
    outside = _Hasher(claims)
    outside.body(tree.body)
    bound = _bound(tree.body)
    return File(
        outside.code(), {name: _claim(node) for name, node in outside.found.items()}, frozenset(bound),
        frozenset(outside.strings), "__getattr__" in bound,
    )  # fmt: skip


def _claim(node: ast.ClassDef) -> Code:
    """A claim class's decorators, methods and helper attributes; not its name, so that claims may share their runs."""
    hasher = _Hasher(frozenset())
    for part in (*node.decorator_list, *node.keywords):
        hasher.node(part)
    hasher.body([statement for statement in node.body if not _targets(statement) & _NOT_COMPUTING])
    return hasher.code()


def _targets(statement: ast.stmt) -> set[str]:
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, ast.AnnAssign):
        targets = [statement.target]
    return {t.id for t in targets if isinstance(t, ast.Name)}


class _Hasher:
    """Walks trees, gathering tokens to hash and the imports on the way."""

    def __init__(self, claims: frozenset[str]) -> None:
        self.claims, self.found = claims, dict[str, ast.ClassDef]()
        self.tokens: list[str] = []
        self.imports: dict[Import, None] = {}
        self.attributes: set[str] = set()
        self.strings: set[str] = set()
        self.depth = 0

    def code(self) -> Code:
        digest = hashlib.sha256("\0".join(self.tokens).encode("utf-8", "surrogatepass")).hexdigest()
        words = self.attributes | {text for text in self.strings if text.isidentifier()}
        return Code(digest if self.tokens else "", tuple(self.imports), frozenset(words))

    def body(self, statements: list[ast.stmt]) -> None:
        for statement in statements:
            self.node(statement)

    def node(self, node: Any) -> None:
        kind = node.__class__
        if kind is ast.Expr and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            return  # a docstring, or a string that nothing reads
        if kind is ast.If and _for_types(node.test):
            self.body(node.orelse)
            return
        if kind is ast.ClassDef and not self.depth and node.name in self.claims:
            self.found[node.name] = node
            return
        tokens = self.tokens
        tokens.append(kind.__name__)
        if kind is ast.Constant:
            tokens.append(repr(node.value))
            if isinstance(node.value, str):
                self.strings.add(node.value)
            return
        if kind is ast.Attribute:
            self.attributes.add(node.attr)
        elif kind is ast.Import:
            self.imports.update((Import(alias.name, renamed=bool(alias.asname)), None) for alias in node.names)
        elif kind is ast.ImportFrom:
            self.imports.update((Import(node.module or "", alias.name, node.level), None) for alias in node.names)
        inner = kind is ast.FunctionDef or kind is ast.AsyncFunctionDef or kind is ast.ClassDef
        self.depth += inner
        for field in node._fields:
            value = getattr(node, field, None)
            if value is None or value == [] or field in _SKIPPED:
                continue
            tokens.append(field)
            if isinstance(value, list):
                tokens.append("[")
                for item in value:
                    if isinstance(item, ast.AST):
                        self.node(item)
                    else:
                        tokens.append(repr(item))
                tokens.append("]")
            elif isinstance(value, ast.AST):
                self.node(value)
            else:
                tokens.append(repr(value))
        tokens.append(")")
        self.depth -= inner


def _for_types(test: ast.expr) -> bool:
    """`if TYPE_CHECKING:`, whose imports never happen."""
    return (isinstance(test, ast.Name) and test.id == "TYPE_CHECKING") or (
        isinstance(test, ast.Attribute) and test.attr == "TYPE_CHECKING"
    )


def _bound(statements: list[ast.stmt]) -> set[str]:
    """Names that the module's top level gives (also under if, try and with)."""
    names: set[str] = set()
    for statement in statements:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(statement.name)
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            names.update((alias.asname or alias.name).partition(".")[0] for alias in statement.names)
        elif isinstance(statement, ast.If) and _for_types(statement.test):
            names |= _bound(statement.orelse)
        elif isinstance(statement, ast.If | ast.Try | ast.With | ast.For | ast.While):
            for part in ("body", "orelse", "finalbody"):
                names |= _bound(getattr(statement, part, []))
            for handler in getattr(statement, "handlers", []):
                names |= _bound(handler.body)
        else:
            names.update(n.id for n in ast.walk(statement) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
    return names
