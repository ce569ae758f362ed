"""The command line as tyro reads it, with what is wrong in it told in one line."""

import dataclasses
import io
import re
import sys
import types
from contextlib import redirect_stderr
from typing import Annotated, Any, Union, get_args

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from precis.errors import InputError

REGISTRY = ConstructorRegistry()


@REGISTRY.primitive_rule
def _optional(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """`X | None` is written as X in help pages (tyro: {None}|X); the word None is still taken."""
    kinds = get_args(info.type)
    if info.type_origin not in (Union, types.UnionType) or type(None) not in kinds:
        return None
    rest: Any = Union[tuple(kind for kind in kinds if kind is not type(None))]  # noqa: UP007
    spec = ConstructorRegistry.get_primitive_spec(PrimitiveTypeInfo.make(rest, set(info.markers)))
    if not isinstance(spec, PrimitiveConstructorSpec):
        return None
    return dataclasses.replace(
        spec,
        instance_from_str=lambda words: None if words == ["None"] else spec.instance_from_str(words),
        is_instance=lambda value: value is None or spec.is_instance(value),
        str_from_instance=lambda value: ["None"] if value is None else spec.str_from_instance(value),
        choices=(*spec.choices, "None") if spec.choices else None,
    )


_open: list[Any] = []  # dataclasses whose fields are being looked up by tyro's own rule


@REGISTRY.struct_rule
def _dataclass(info: StructTypeInfo) -> StructConstructorSpec | None:
    """tyro's fields of a dataclass; help pages leave out defaults that say nothing, and the input is called INPUT."""
    if not dataclasses.is_dataclass(info.type) or info.type in _open:
        return None
    _open.append(info.type)
    try:
        spec = ConstructorRegistry.get_struct_spec(info)
    finally:
        _open.pop()
    if not isinstance(spec, StructConstructorSpec):
        return None
    return dataclasses.replace(spec, fields=tuple(_said(field) for field in spec.fields))


def _said(field: StructFieldSpec) -> StructFieldSpec:
    hint = lambda default: "" if default in ("None", "False", "") else f"(default: {default})"
    words = tyro.conf.arg(help_behavior_hint=hint, metavar="[INPUT]" if field.name == "input" else None)
    kind: Any = Annotated[field.type, words]
    return dataclasses.replace(field, type=kind)


def read(command: Any, prog: str, **given: Any) -> Any:
    """`tyro.cli`; its box of usage errors becomes an InputError."""
    said = io.StringIO()
    try:
        with redirect_stderr(said), REGISTRY:
            parsed = tyro.cli(command, prog=prog, **given)
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise InputError(f"{one_line(said.getvalue())}; see {prog} --help") from None
    sys.stderr.write(said.getvalue())  # warnings
    return parsed


def one_line(box: str) -> str:
    """What the first part of tyro's box says, in our words where we know its kind."""
    parts = [" ".join(re.sub(r"[│╭╮╰╯]", " ", part).split()) for part in re.split(r"─{4,}|-{4,}", box)]
    parts = [part for part in parts[1:] if part] or ["the command line cannot be read"]  # the first is the box's title
    said = parts[0].rstrip(".")
    if found := re.match(r"Unrecognized options?: (.*)", said):
        meant = [re.search(r"--[\w-]+", part) for part in parts[1:] if part.startswith("Perhaps you meant")]
        options = [word for word in found[1].split(", ") if word.startswith("-")]
        what = f"no option {options[0]}" if options else f"too many arguments: {found[1]}"
        return what + "".join(f"; did you mean {name[0]}?" for name in meant if name)
    if found := re.match(r"Missing from .*?: [A-Z]+ (.*) \(required\)", said):
        return f"missing: {found[1]}"
    if found := re.match(r"invalid choice '(.*)' for argument '(.*?)'.*Expected one of \((.*)\)", said):
        given = set(re.findall(r"'([^']+)'", found[3])) - {"None"}
        known = sorted(given, key=lambda word: (int(word), "") if word.isdigit() else (0, word))
        return f"{found[2]} must be one of {', '.join(known)}, got {found[1]!r}"
    if found := re.match(r"Error parsing (\S+): no type matching (.*?) could be instantiated from \['(.*?)'", said):
        return f"{found[1]} must be {_kind(found[2])}, got {found[3]!r}"
    if found := re.match(r"Error parsing (\S+): invalid literal for int\(\) with base 10: '(.*)'", said):
        return f"{found[1]} must be {_kind('INT')}, got {found[2]!r}"
    if found := re.match(r"Error parsing (\S+): could not convert string to float: '(.*)'", said):
        return f"{found[1]} must be {_kind('FLOAT')}, got {found[2]!r}"
    return said


def _kind(written: str) -> str:
    words = {"INT": "a whole number", "FLOAT": "a number", "PATH": "a path", "STR": "a text"}
    return " or ".join(words.get(name, name.strip("{}").replace(",", ", ")) for name in written.split("|"))
