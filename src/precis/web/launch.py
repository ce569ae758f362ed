"""The process of one run or check of the site: the command line's own code, beside a note of how it ended.

`python -m precis.web.launch JOB.json` does what the words under `argv` say (`run …` or `check …`); a check writes its
progress as a run does, into `runs/<id>/events.jsonl`, and its verdicts into `result.json`.
"""

import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from precis.errors import InputError, RunFailed, Stopped
from precis.web.runs import began

OFTEN = 0.2  # seconds between two lines of progress of a check


def main(job: Path) -> int:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a process of a background site inherits "ignored"
    record = json.loads(job.read_text(encoding="utf-8"))  # after the line above: a stop that came before it is in there
    _note(job.with_suffix(".pid"), {"pid": os.getpid(), "began": began(os.getpid())})
    code = 1
    try:
        code = 130 if record.get("stops") else _do(record)
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    except KeyboardInterrupt:
        code = 130
    except Exception:
        traceback.print_exc()  # before the note of the end: whoever reads that looks for the words at once
    finally:
        _note(job.with_suffix(".exit"), {"code": code})
    return code


def _note(path: Path, value: dict[str, Any]) -> None:
    beside = path.with_suffix(path.suffix + ".part")
    beside.write_text(json.dumps(value), encoding="utf-8")
    beside.replace(path)


def _do(record: dict[str, Any]) -> int:
    from precis.lab.ledger import home

    folder = home() / "runs" / record["id"]
    if record["kind"] == "check":
        return _check(record["options"], folder)
    from precis.cli import main as command

    resume = record.get("resumed") and (folder / "run.json").exists()
    name, paper, *rest = record["argv"]
    return command([name, paper, "--out", str(folder), *(["--resume"] if resume else []), *rest])


def _check(options: dict[str, Any], folder: Path) -> int:
    """As `precis check` does it, with its events where a page can follow them."""
    from precis.papers.catalogue import find
    from precis.papers.checking import check_claims, exit_code
    from precis.papers.work import RESULT, RunFolder, write_json

    folder.mkdir(parents=True, exist_ok=True)
    begun = {"paper": options["ids"][0].partition("/")[0], "input": ", ".join(options["ids"]), "check": options}
    work = RunFolder(folder, "cpu", begun, resume=(folder / "events.jsonl").exists())
    told = _Teller(work)
    try:
        entries = check_claims(find(), **options, listen=told.hear)
        kept = ("id", "statement", "verdict", "reason", "profile", "scale", "n", "ran", "seconds", "failures")
        rows = [{name: entry.get(name) for name in kept} for entry in entries]
        write_json(folder / RESULT, {**begun, "claims": rows, "seconds": round(work.seconds, 3), "files": []})
        return exit_code(entries)
    except (InputError, RunFailed, Stopped) as error:
        print("precis:", *str(error).split(), file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1 if isinstance(error, RunFailed) else 130
    except KeyboardInterrupt:
        print("precis: interrupted; finished trials are kept, and the same check goes on", file=sys.stderr)
        return 130
    finally:
        work.close()


class _Teller:
    """Events of a check as lines of events.jsonl."""

    def __init__(self, work: Any) -> None:
        self.work, self.last = work, 0.0

    def hear(self, event: Any) -> None:
        moved = {"step": event.done, "total": event.planned, "left": event.left, "scalars": {}}
        if event.kind in ("start", "done", "failed"):
            state = "tuning" if event.tuning else "kept" if event.cached else event.kind
            if event.kind == "failed":
                state = "failed"
            if not event.tuning:
                trial = {"claim": event.claim, "arm": event.arm, "seed": event.seed, "state": state}
                self.work._tell({"event": "trial", **trial, "error": event.error})
        elif event.kind == "verdict":
            entry = event.entry or {}
            said = {name: entry.get(name) for name in ("verdict", "reason", "profile", "n")}
            self.work._tell({"event": "verdict", "claim": event.claim, **said})
        if event.kind != "log" or time.monotonic() - self.last > OFTEN:
            self.last = time.monotonic()
            self.work._tell({"event": "log", **moved, "now": f"{event.claim} {event.arm} {event.seed}".strip()})


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
