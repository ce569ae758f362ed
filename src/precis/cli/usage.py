"""The command line as tyro reads it, with what is wrong in it told in one line."""

import io
import re
import sys
from contextlib import redirect_stderr
from typing import Any

import tyro

from precis.errors import InputError


def read(command: Any, prog: str, **given: Any) -> Any:
    """`tyro.cli`; its box of usage errors becomes an InputError."""
    said = io.StringIO()
    try:
        with redirect_stderr(said):
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
        known = sorted(set(re.findall(r"'([^']+)'", found[3])) - {"None"})
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
    names = [name for name in written.split("|") if name != "{None}"]
    return " or ".join(words.get(name, name.strip("{}").replace(",", ", ")) for name in names)
