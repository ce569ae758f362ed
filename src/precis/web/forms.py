"""A job's dataclass as a form, and a filled form as the options of `precis run`.

Each field of the dataclass is one input: its type says which, `Doc` is the text beside it, `Range` the bounds.  A
comment such as `# Pictures.` above a paragraph of fields is the heading of their group; what stands before the second
heading is open, the rest is folded away.
"""

import inspect
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from typing_extensions import Doc

from precis.errors import InputError
from precis.papers.catalogue import Paper
from precis.papers.job import Job, OfFile, OfRun, Range, in_full
from precis.papers.opening import make_job

CHOICE = "input-from"  # the form's own field: where INPUT comes from; no option can be called so
FIRST = 6  # fields that are open where the dataclass has no headings
LAST = ("seed", "device")  # every job's own: in a group of their own, at the end
_NUMBERS = {int: "a whole number", float: "a number"}


@dataclass(frozen=True)
class Field:
    """One option: `kind` is flag, choice, number, text, file, run or several (numbers or words, split at spaces).

    words: that may stand in place of a file.  run: which runs of the site may be named, alone (kind run) or beside
    other words (kind text).
    """

    name: str
    option: str
    label: str
    doc: str
    kind: str
    type: Any
    default: Any
    optional: bool
    low: int | float | None = None
    high: int | float | None = None
    choices: tuple[Any, ...] = ()
    words: tuple[str, ...] = ()
    run: OfRun | None = None

    @property
    def shown(self) -> str:
        """The default, as one would type it."""
        if self.default is None:
            return ""
        return " ".join(map(str, self.default)) if isinstance(self.default, tuple) else str(self.default)

    @property
    def bounds(self) -> str:
        """Between what the value lies, in words; "" where anything goes."""
        if self.low is not None and self.high is not None:
            return f"{in_full(self.low)} … {in_full(self.high)}"
        if self.low is not None:
            return f"at least {in_full(self.low)}"
        return "" if self.high is None else f"at most {in_full(self.high)}"

    @property
    def step(self) -> str:
        return "1" if self.type is int else "any"


@dataclass(frozen=True)
class Group:
    title: str
    fields: tuple[Field, ...]
    open: bool


def fields_of(job_class: type[Job]) -> list[Field]:
    """All options but INPUT, in the order of the dataclass, those that every job has at the end."""
    hints = get_type_hints(job_class, include_extras=True)
    found = [_field(f, hints[f.name]) for f in fields(job_class) if f.name != "input"]
    return sorted(found, key=lambda field: field.name in LAST)


def groups_of(job_class: type[Job]) -> list[Group]:
    """The form's groups: open ones first."""
    headings = _headings(job_class)
    groups: list[tuple[str, list[Field]]] = [("", [])]
    for field in fields_of(job_class):
        title = "Seed and device" if field.name == LAST[0] else headings.get(field.name)
        if title is not None:
            groups.append((title, []))
        groups[-1][1].append(field)
    groups = [(title, its) for title, its in groups if its]
    if not headings:
        first, last = groups[0][1], groups[1:]
        split = first if len(first) <= FIRST + 2 else first[:FIRST]
        more = [("More options", first[len(split) :] + [f for _, its in last for f in its])]
        return [Group(title, tuple(its), i == 0) for i, (title, its) in enumerate([("", split), *more])]
    opened = 2 if not groups[0][0] and len(groups[0][1]) <= 2 else 1
    return [Group(title, tuple(its), i < opened) for i, (title, its) in enumerate(groups)]


def _headings(job_class: type[Job]) -> dict[str, str]:
    """{field: heading} from comments of a few words that stand alone above a paragraph of fields."""
    try:
        lines = [line.strip() for line in inspect.getsource(job_class).splitlines()]
    except (OSError, TypeError):
        return {}
    found = {}
    for before, comment, line in zip(lines, lines[1:], lines[2:]):
        heading = re.fullmatch(r"# ([A-Z][\w ,/-]{1,38})\.", comment)
        name = re.match(r"(\w+)\s*:", line)
        if heading and name and not before:
            found[name[1]] = heading[1]
    return found


def _field(field: Any, hint: Any) -> Field:
    doc, bound = "", Range()
    words: tuple[str, ...] | None = None
    run: OfRun | None = None
    option = field.name.strip("_").replace("_", "-")
    if get_origin(hint) is Annotated:
        hint, *notes = get_args(hint)
        for note in notes:
            if isinstance(note, Doc):
                doc = note.documentation
            elif isinstance(note, Range):
                bound = note
            elif isinstance(note, OfFile):
                words = note.words
            elif isinstance(note, OfRun):
                run = note
            elif isinstance(name := getattr(note, "name", None), str):  # tyro.conf.arg(name=…)
                option = name
    default = field.default_factory() if field.default_factory is not MISSING else field.default
    bare, optional = _without_none(hint)
    kind, choices = ("file", ()) if words is not None else _kind(bare, optional)
    if run is not None and bare is Path:
        kind = "run"
    label = option.replace("-", " ")
    return Field(
        field.name, "--" + option, label, doc, kind, bare, default, optional, bound.low, bound.high, choices,
        words or (), run,
    )  # fmt: skip


def _without_none(hint: Any) -> tuple[Any, bool]:
    if get_origin(hint) in (Union, types.UnionType):
        parts = [part for part in get_args(hint) if part is not type(None)]
        bare = parts[0] if len(parts) == 1 else Union[tuple(parts)]  # noqa: UP007  made at run time
        if get_origin(bare) is Annotated:
            bare = get_args(bare)[0]
        return bare, type(None) in get_args(hint)
    return hint, False


def _kind(bare: Any, optional: bool) -> tuple[str, tuple[Any, ...]]:
    if get_origin(bare) is Literal:
        return "choice", get_args(bare)
    if bare is bool:
        return ("choice", (True, False)) if optional else ("flag", ())
    if bare in _NUMBERS:
        return "number", ()
    if bare is Path:
        return "file", ()
    return ("several" if get_origin(bare) is tuple else "text"), ()


def read(
    paper: Paper, all_fields: list[Field], form: Mapping[str, str], files: Mapping[str, Path],
    folder_of: Callable[[OfRun, str], Path | None] = lambda wanted, name: None,
) -> dict[str, Any]:  # fmt: skip
    """The options that a filled form asks for, only those that differ from the default; checked as `run` checks them.

    An empty input means the default.  folder_of: of a finished run of that name which is of the wanted kind, or None.
    """
    options: dict[str, Any] = {}
    known = {field.name for field in all_fields} | {"input", CHOICE}
    if unknown := sorted(set(form) - known):
        raise InputError(f"{paper.id} has no option {unknown[0]!r}")
    for field in all_fields:
        if field.kind == "file":
            value = _file(field, form.get(field.name, ""), files)
        elif field.run is not None:
            value = _of_run(field, form.get(field.name, "").strip(), folder_of)
        elif field.kind == "flag":
            value = form.get(field.name, "off") == "on"
        else:
            text = form.get(field.name, "")
            plain = text if field.type is str else text.strip()
            value = _value(field, plain) if plain else field.default
        if value != field.default:
            options[field.name] = value
    make_job(paper, form.get("input") or None, **options)
    return options


def _file(field: Field, word: str, files: Mapping[str, Path]) -> Any:
    if field.name in files:
        return str(files[field.name]) if field.type is str else files[field.name]
    if word and field.words and word not in (*field.words, str(field.default)):
        raise InputError(f"{field.option}: choose a file, or {' or '.join(field.words)}")
    return word if word and field.words else field.default


def _of_run(field: Field, word: str, folder_of: Callable[[OfRun, str], Path | None]) -> Any:
    """The folder of the run of that name, or, where words are taken, the word: never a path that was typed."""
    if not word or word == field.default:
        return field.default
    folder = None if field.run is None else folder_of(field.run, word)
    if folder is not None:
        return folder if field.type is Path else str(folder)
    if field.kind == "run" or "/" in word or "\\" in word or "\0" in word or word[0] in ".~-":
        raise InputError(f"{field.option}: there is no finished run {word!r} here that would do: name one by its id")
    return word


def _value(field: Field, text: str) -> Any:
    if field.kind == "choice":
        for choice in field.choices:
            if text == str(choice):
                return choice
        raise InputError(f"{field.option} must be one of {', '.join(map(str, field.choices))}, not {text!r}")
    if field.kind == "several":
        parts = get_args(field.type)
        words = text.replace(",", " ").split()
        many = len(parts) == 2 and parts[1] is Ellipsis
        if not many and len(words) != len(parts):
            raise InputError(f"{field.option} takes {len(parts)} values, got {len(words)}")
        return tuple(_one(field.option, word, parts[0] if many else part) for word, part in zip(
            words, parts if not many else (parts[0],) * len(words)))
    return _one(field.option, text, field.type)


def _one(option: str, text: str, kind: Any) -> Any:
    if get_origin(kind) in (Union, types.UnionType):
        for part in get_args(kind):
            try:
                return _one(option, text, part)
            except InputError:
                continue
    if "\0" in text:
        raise InputError(f"{option} holds a character that no text has")
    if kind is bool:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise InputError(f"{option} must be True or False, got {text!r}")
    if kind in _NUMBERS:
        try:
            return kind(text)
        except ValueError:
            raise InputError(f"{option} must be {_NUMBERS[kind]}, got {text!r}") from None
    if get_origin(kind) is Literal:
        for choice in get_args(kind):
            if text == str(choice):
                return choice
        raise InputError(f"{option} must be one of {', '.join(map(str, get_args(kind)))}, not {text!r}")
    return Path(text) if kind is Path else text


def arguments(all_fields: list[Field], options: Mapping[str, Any], given: str | None) -> list[str]:
    """The words of the command line that say the same; nothing that a user typed can become an option."""
    words = []
    for field in all_fields:
        if field.name not in options:
            continue
        value = options[field.name]
        if field.kind == "flag":
            words.append(field.option if value else f"--no-{field.option[2:]}")
        elif field.kind == "several":
            if any(str(v).startswith("-") and not isinstance(v, int | float) for v in value):
                raise InputError(f"{field.option}: a word cannot begin with -")
            words += [f"{field.option}={value[0]}"] if len(value) == 1 else [field.option, *map(str, value)]
        else:
            words.append(f"{field.option}={value}")
    return words if given is None else [*words, "--", given]
