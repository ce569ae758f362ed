"""`precis run ID [INPUT]`: the paper's own options beside --out, --resume and --json."""

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, make_dataclass
from dataclasses import field as option
from pathlib import Path
from typing import Annotated, Any

import tyro
from typing_extensions import Doc

from precis.cli.listing import print_json
from precis.cli.usage import read
from precis.errors import InputError
from precis.papers.catalogue import Paper, find
from precis.papers.job import Job
from precis.papers.opening import job_of

HELP = """\
usage: precis run ID [INPUT] [--out DIR] [--resume] [--json] [options]

A paper's job on your input, or on its built-in sample.  `precis list` shows the ids,
`precis run ID --help` the options of a paper's job.
"""


@dataclass(kw_only=True)
class Common:
    """Where the run goes."""

    out: Annotated[Path | None, Doc("folder to write; else ./ID-INPUT, numbered if taken")] = None
    resume: Annotated[bool, Doc("go on with the unfinished run of the same settings")] = False
    json: Annotated[bool, Doc("print result.json, alone, on stdout")] = False


def run(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help"):
        sys.stdout.write(HELP)
        return 0 if args else 2
    if args[0].startswith("-"):
        raise InputError(f"name the paper first: precis run ID …, not {args[0]}")
    paper = find()[args[0]]
    common, job = parse(paper, args[1:])
    with stop_button() as stopping:
        return _do(paper, job, common, stopping)


def parse(paper: Paper, args: list[str]) -> tuple[Common, Job]:
    """The command's own options, and the job made from the rest."""
    job_class = job_of(paper)
    both = make_dataclass(
        "Run",
        [("common", Annotated[Common, tyro.conf.arg(name="")], option()),
         ("job", Annotated[job_class, tyro.conf.arg(name="")], option())],
        kw_only=True,
    )
    first = (job_class.__doc__ or "").strip().split("\n")[0]
    parsed: Any = read(
        both, f"precis run {paper.id}", args=args, description=f"{paper.title}\n\n{first}",
        config=(tyro.conf.OmitArgPrefixes,),
    )
    return parsed.common, parsed.job


def _do(paper: Paper, job: Job, common: Common, stopping: Any) -> int:
    from precis.papers.running import number, run_job
    from precis.papers.terminal import console, progress

    with progress(console(stderr=True)) as listen:
        done = run_job(paper, job, out=common.out, resume=common.resume, listen=listen, stopping=stopping)
    if common.json:
        print_json(done.result)
        return 0
    width = max(28, *(len(name) + 2 for name in ("", *done.metrics)))
    for name, value in done.metrics.items():
        print(f"{name.replace('_', ' '):<{width}}{number(value)}")
    first = done.result["files"][0] if done.result["files"] else "result.json"
    print(f"\n{done.folder / first}    ({done.result['seconds']:.1f} s)")
    return 0


@contextmanager
def stop_button() -> Iterator[Any]:
    """Ctrl-C asks the work to stop at its next step, so that it can leave a checkpoint; once more stops at once.

    So does SIGTERM, by which `timeout` and the schedulers of clusters announce that the time is over.
    """
    asked = threading.Event()

    def press(*_: object) -> None:
        if asked.is_set():
            raise KeyboardInterrupt
        asked.set()
        sys.stderr.write("\nstopping after this step; Ctrl-C again stops at once\n")

    before = {number: signal.signal(number, press) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
