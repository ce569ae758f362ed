"""Recorded verdicts: `assets/recorded.json` of a paper, written from what `check` returned, and RESULTS.md from those.

    {"claims": {name: {profile: the claim's entry, with hardware and minutes}}}

A profile that is not run today keeps what was recorded on another day.  Numbers are kept to six digits, one short
list or object a line, and a repetition that gave the same numbers changes nothing, so that a change of the file is a
change of a result.  Machines' names, paths and trial keys stay out.
"""

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from precis.errors import InputError
from precis.lab import words
from precis.lab.loading import PaperSource, claims_of
from precis.lab.markdown import escape_markdown

FILE = "recorded.json"
PROFILES = ("quick", "full", "paper")
LEFT_OUT = ("keys", "tuning_keys", "host", "data", "ran")
MOVING = ("finished", "seconds", "minutes")  # differ from run to run without saying anything of the result
WIDTH = 110


@runtime_checkable
class PaperLike(Protocol):
    """What is needed of a paper of the catalogue."""

    @property
    def id(self) -> str: ...
    @property
    def title(self) -> str: ...
    @property
    def source(self) -> PaperSource: ...


def read_recorded(folder: Path) -> dict[str, Any]:
    """`assets/recorded.json` of the paper in `folder`; {"claims": {}} if there is none."""
    file = folder / "assets" / FILE
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {"claims": {}}
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read ({error}); `git checkout` it, or move it away", file=file) from error
    if not isinstance(found, dict) or not isinstance(found.get("claims"), dict):
        raise InputError("must hold an object with `claims`; `git checkout` it, or move it away", file=file)
    return found


def record(folder: Path, entries: Iterable[Mapping[str, Any]]) -> Path:
    """Put the entries of one paper's claims into its `assets/recorded.json`, each at its profile; return the file.

    Entries of claims that were not run, and of smoke runs, are passed over.
    """
    found = read_recorded(folder)
    for entry in entries:
        if entry.get("profile") not in PROFILES or not entry.get("ran", True) or not entry.get("metrics"):
            continue
        profiles = found["claims"].setdefault(words.claim_of(entry), {})
        new, old = _kept(entry), profiles.get(entry["profile"])
        if old is None or _lasting(new) != _lasting(old):
            profiles[entry["profile"]] = new
    found["claims"] = {
        name: {p: found["claims"][name][p] for p in PROFILES if p in found["claims"][name]}
        for name in sorted(found["claims"])
    }
    file = folder / "assets" / FILE
    file.parent.mkdir(exist_ok=True)
    write_whole(file, formatted(found) + "\n")
    return file


def write_whole(file: Path, text: str) -> None:
    """Write beside, sync, rename: the file is the old one or the new one, never a part."""
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def formatted(value: Any, indent: int = 0) -> str:
    """JSON in which what fits on a line stands on one."""
    flat = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if not isinstance(value, dict | list) or not value or len(flat) + indent <= WIDTH:
        return flat
    inner = " " * (indent + 1)
    if isinstance(value, dict):
        items = [f"{json.dumps(str(k), ensure_ascii=False)}: {formatted(v, indent + 1)}" for k, v in value.items()]
        return "{\n" + ",\n".join(inner + item for item in items) + "\n" + " " * indent + "}"
    return "[\n" + ",\n".join(inner + formatted(v, indent + 1) for v in value) + "\n" + " " * indent + "]"


def _kept(entry: Mapping[str, Any]) -> dict[str, Any]:
    kept = {name: _rounded(value) for name, value in entry.items() if name not in LEFT_OUT}
    if entry.get("data"):
        kept["data"] = Path(str(entry["data"])).name
        kept["command"] = str(kept.get("command", "")).replace(str(entry["data"]), kept["data"])
    seconds = entry.get("seconds") or 0.0
    kept["seconds"], kept["minutes"] = round(seconds, 1), round(seconds / 60, 2)
    kept["hardware"] = hardware(entry)
    return kept


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _rounded(v) for k, v in value.items()}
    return [_rounded(v) for v in value] if isinstance(value, list | tuple) else value


def _lasting(entry: Mapping[str, Any]) -> dict[str, Any]:
    """All of an entry but what moves without meaning: the texts, and times that are metrics, count."""
    return {k: v for k, v in entry.items() if k not in MOVING}


def hardware(entry: Mapping[str, Any]) -> dict[str, Any]:
    """The machine without its name: processor and cores, and the GPU if one computed."""
    import platform

    hosts = [one.partition(": ") for one in str(entry.get("host") or "").split("; ")]
    elsewhere = [rest or name for name, _, rest in hosts if name not in ("", platform.node())]
    if elsewhere:
        return {"machine": "; ".join(dict.fromkeys(elsewhere))}
    found: dict[str, Any] = {"cpu": cpu_model(), "cores": os.cpu_count()}
    if str(entry.get("device", "")).startswith("cuda"):
        import torch

        found["gpu"] = torch.cuda.get_device_name()
    return found


def cpu_model() -> str:
    """The processor's name as the system tells it."""
    import platform
    import subprocess
    import sys

    listing = Path("/proc/cpuinfo")
    if listing.exists():
        for line in listing.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    if sys.platform == "darwin":
        ask = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
    return platform.processor() or platform.machine()


def source_of_today(source: PaperSource) -> dict[str, str | None]:
    """{claim: fingerprint of its source now}; None for a claim whose file cannot be imported here."""
    from precis.lab.fingerprint import source_fingerprint

    try:
        return {name: source_fingerprint(claim) for name, claim in claims_of(source).items()}
    except ImportError:  # an extra that is not installed: nothing can be said
        return {name: None for name in read_recorded(source.folder)["claims"]}


def results_markdown(
    papers: Sequence[PaperLike], today: Callable[[PaperSource], Mapping[str, str | None]] = source_of_today
) -> str:
    """RESULTS.md, from the recorded files alone; `today` gives the fingerprints that mark an *older source*."""
    counts = dict.fromkeys(words.VERDICTS, 0)
    parts: list[str] = []
    for paper in sorted(papers, key=lambda p: p.id):
        claims = read_recorded(paper.source.folder)["claims"]
        if not claims:
            continue
        now = today(paper.source)
        entries = [e for profiles in claims.values() for e in profiles.values()]
        for entry in entries:
            counts[words.verdict_of(entry)] += 1
        lines = [_line(entry, now) for entry in entries]
        parts.append(f"## {escape_markdown(paper.title)} (`{paper.id}`)\n\n{HEAD}\n" + "\n".join(lines) + "\n")
    total = ", ".join(f"{n} {verdict}" for verdict, n in counts.items() if n) or "nothing recorded yet"
    return f"# Results\n\n{INTRODUCTION}\n\n**{total}.**\n\n" + "\n".join(parts)


INTRODUCTION = """\
Written by `make results` from the `assets/recorded.json` of each paper; no line here is written by hand. A verdict
is a measurement at the scale that stands beside it: *supported* if the 95 % interval of every counting hypothesis lies
wholly on the claimed side, *contradicted* if that of one lies wholly on the other, else *inconclusive*. *Older source*:
the code that the claim computes with has changed since. Minutes are the sum over trials; each row is repeated by
`precis check ID --profile PROFILE`."""
HEAD = """\
| claim | verdict | measured | scale | n | hardware | minutes |
| --- | --- | --- | --- | --- | --- | --- |"""


def _line(entry: Mapping[str, Any], now: Mapping[str, str | None]) -> str:
    name = words.claim_of(entry)
    verdict = f"**{words.verdict_of(entry)}**"
    if name not in now:
        verdict += ", *claim no longer there*"
    elif now[name] is None:
        verdict += ", *source not compared*"
    elif now[name] != entry.get("source"):
        verdict += ", *older source*"
    measured = words.headline(entry)
    if words.verdict_of(entry) == "inconclusive":
        rows = [r for r in entry.get("hypotheses") or [] if r.get("effect") is not None and not r.get("sabotaged")]
        told = words.sentence(rows[0], entry.get("alpha") or 0.05) if rows else ""
        measured = ". ".join(filter(None, [told, str(entry.get("reason") or "")]))
    cells = [
        f"{escape_markdown(entry.get('statement', ''))} `{name}`", verdict, escape_markdown(measured),
        escape_markdown(f"{entry['profile']}: {entry['scale']}" if entry.get("scale") else entry["profile"]),
        str(entry.get("n") or ""), escape_markdown(machine_words(entry)), words.number(entry.get("minutes"), 2),
    ]
    return "| " + " | ".join(cells) + " |"


def machine_words(entry: Mapping[str, Any]) -> str:
    """ "Xeon 6248, 2 cores, H100"."""
    found = dict(entry.get("hardware") or {})
    if found.get("cores"):
        found["cores"] = words.counted(found["cores"], "core")
    return ", ".join(str(v) for v in found.values() if v)
