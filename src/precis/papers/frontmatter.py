"""The YAML front matter of a `summary.md`, read field by field so that every error names file, line and field.

Scalars are taken as they are written (`arxiv: 2006.10000` stays that, it is no number), so nothing but the year is
converted.  An external paper is read with the same rules as a built-in one.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from precis.errors import EXTRAS, InputError

_Loader: type = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_ARXIV = re.compile(r"\d{4}\.\d{4,5}(v\d+)?|[a-z-]+(\.[A-Z]{2})?/\d{7}(v\d+)?")
_CODE = re.compile(r"https?://\S+|[\w.-]+/[\w.-]+")
NEEDED = ("title", "authors", "year", "venue", "family", "claims")
OPTIONAL = ("arxiv", "code", "extras", "aliases")


class FrontMatter(NamedTuple):
    """What the catalogue knows of a paper; `body` is the character at which the Markdown begins."""

    title: str
    authors: tuple[str, ...]
    year: int
    venue: str
    family: str
    claims: dict[str, str]
    arxiv: str | None
    code: str | None
    extras: tuple[str, ...]
    aliases: tuple[str, ...]
    body: int


def read_front_matter(file: Path) -> FrontMatter:
    """Read and check the front matter of `file`; InputError with file, line and field for anything amiss."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"not UTF-8 text (byte {error.start})", file=file) from None
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", file=file) from None
    return parse_front_matter(text, file)


def parse_front_matter(text: str, file: Path) -> FrontMatter:
    """As `read_front_matter`, of text that was read from `file`."""
    if not re.match(r"---[ \t]*\r?\n", text):
        raise InputError("must open with YAML front matter between two lines of ---", file=file, line=1)
    end = re.search(r"^---[ \t]*\r?(\n|\Z)", text[3:], re.MULTILINE)
    if end is None:
        raise InputError("the front matter has no closing line of ---", file=file, line=1)
    fields = _fields(text[3 : 3 + end.start()], file)
    for name in NEEDED:
        if name not in fields:
            raise InputError(f"the front matter lacks the field {name!r}", file=file, line=1)
    take = lambda name, convert, default=None: (
        convert(fields[name], name, file) if name in fields else default
    )
    return FrontMatter(
        title=take("title", _text), authors=take("authors", _words), year=take("year", _year),
        venue=take("venue", _text), family=take("family", _name), claims=take("claims", _claims),
        arxiv=take("arxiv", _arxiv), code=take("code", _address), extras=take("extras", _extras, ()),
        aliases=take("aliases", _names, ()), body=3 + end.end(),
    )


def _fields(block: str, file: Path) -> dict[str, yaml.Node]:
    try:
        loader = _Loader(block)
        try:
            root = loader.get_single_node()
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        raise InputError(f"front matter: {problem}", file=file, line=mark.line + 1 if mark else 1) from None
    if not isinstance(root, yaml.MappingNode):
        raise InputError("the front matter must be fields, `name: value` a line", file=file, line=1)
    return _pairs(root, "the front matter", file, allowed=NEEDED + OPTIONAL)


def _pairs(
    node: yaml.MappingNode, what: str, file: Path, allowed: tuple[str, ...] | None = None
) -> dict[str, yaml.Node]:
    found: dict[str, yaml.Node] = {}
    for key, value in node.value:
        name = key.value if isinstance(key, yaml.ScalarNode) else None
        if name is None:
            raise _error(key, what, "has a field whose name is not a word", file)
        if allowed is not None and name not in allowed:
            raise _error(key, what, f"has an unknown field {name!r}; known are {', '.join(allowed)}", file)
        if name in found:
            raise _error(key, what, f"has the field {name!r} twice", file)
        found[name] = value
    return found


def _error(node: yaml.Node, name: str, message: str, file: Path) -> InputError:
    return InputError(f"{name} {message}", file=file, line=node.start_mark.line + 1)


def _text(node: yaml.Node, name: str, file: Path) -> str:
    if not isinstance(node, yaml.ScalarNode) or node.tag == "tag:yaml.org,2002:null" or not node.value.strip():
        raise _error(node, name, "must be a text (in quotation marks if it holds a colon)", file)
    return " ".join(node.value.split())


def _words(node: yaml.Node, name: str, file: Path) -> tuple[str, ...]:
    if not isinstance(node, yaml.SequenceNode) or (name == "authors" and not node.value):
        raise _error(node, name, "must be a list, such as [one, two]", file)
    return tuple(_text(item, name, file) for item in node.value)


def _year(node: yaml.Node, name: str, file: Path) -> int:
    text = _text(node, name, file)
    if not re.fullmatch(r"(19|20)\d\d", text):
        raise _error(node, name, f"must be four digits, not {text!r}", file)
    return int(text)


def _name(node: yaml.Node, name: str, file: Path) -> str:
    text = _text(node, name, file)
    if not _NAME.fullmatch(text):
        raise _error(node, name, f"must be in snake_case (letters, digits, _), not {text!r}", file)
    return text


def _names(node: yaml.Node, name: str, file: Path) -> tuple[str, ...]:
    _words(node, name, file)
    return tuple(_name(item, name, file) for item in node.value)


def _arxiv(node: yaml.Node, name: str, file: Path) -> str:
    return _matching(node, name, file, _ARXIV.fullmatch, "an arXiv number such as 2006.09661")


def _address(node: yaml.Node, name: str, file: Path) -> str:
    return _matching(node, name, file, _CODE.fullmatch, "an https:// address, or owner/name on GitHub")


def _matching(node: yaml.Node, name: str, file: Path, matches: Callable[[str], Any], what: str) -> str:
    text = _text(node, name, file)
    if not matches(text):
        raise _error(node, name, f"must be {what}, not {text!r}", file)
    return text


def _extras(node: yaml.Node, name: str, file: Path) -> tuple[str, ...]:
    extras = _words(node, name, file)
    for extra in extras:
        if extra not in EXTRAS:
            raise _error(node, name, f"names {extra!r}, which is none of {', '.join(EXTRAS)}", file)
    return extras


def _claims(node: yaml.Node, name: str, file: Path) -> dict[str, str]:
    if not isinstance(node, yaml.MappingNode) or not node.value:
        raise _error(node, name, "must be lines of `name: one sentence`", file)
    claims = _pairs(node, name, file)
    for key, item in claims.items():
        if not _NAME.fullmatch(key):
            raise _error(item, name, f"holds {key!r}; a claim's name is in snake_case", file)
    return {key: _text(item, f"claims: {key}", file) for key, item in claims.items()}
