"""`precis check` and `precis sweep`: claims as experiments, with live progress and a table of verdicts at the end."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from typing_extensions import Doc
from tyro.conf import Positional, arg

from precis.cli.listing import print_json, warn
from precis.errors import Stopped
from precis.papers.catalogue import find

Ids = Annotated[
    Positional[tuple[str, ...]], arg(metavar="PAPER[/CLAIM] …"), Doc("papers, or single claims as paper/claim")
]
Scale = Annotated[
    Literal["smoke", "quick", "full", "paper"],
    Doc("scale: quick is minutes, full up to an hour, paper the paper's own, smoke a test without verdict"),
]
Device = Annotated[Literal["auto", "cpu", "cuda", "mps"], Doc("where to compute")]
Engine = Annotated[Literal["local", "ray"], Doc("this machine's processes, or a Ray cluster")]
Address = Annotated[str | None, Doc("the Ray cluster: auto (the one of this machine), or HOST:PORT")]
Workers = Annotated[int | None, Doc("trials at once; else cores ÷ threads of a trial")]
Json = Annotated[bool, Doc("JSON, alone, on stdout")]
Strict = Annotated[bool, Doc("a claim that was not run counts as not supported")]


@dataclass(kw_only=True)
class Check:
    """Check claims by running them here: exit code 0 if all are supported, 1 if not."""

    ids: Ids = ()
    profile: Scale = "quick"
    data: Annotated[str | None, Doc("your own data in place of the built-in")] = None
    seeds: Annotated[int | None, Doc("how many seeds (0 … N−1), at least 3; else the profile's")] = None
    device: Device = "auto"
    until_verdict: Annotated[bool, Doc("add seeds until the verdict is clear; its interval allows for the looking")] = (
        False
    )
    max_seeds: Annotated[int, Doc("the most seeds of --until-verdict")] = 20
    engine: Engine = "local"
    address: Address = None
    workers: Workers = None
    json: Json = False
    strict: Strict = False

    def __call__(self) -> int:
        from precis.papers.checking import check_claims
        from precis.papers.verdict_table import table

        library = find()
        warn(library.problems)
        with _watched() as listen:
            entries = check_claims(
                library, self.ids, profile=self.profile, data=self.data, seeds=self.seeds, device=self.device,
                until_verdict=self.until_verdict, max_seeds=self.max_seeds, engine=self.engine,
                address=self.address, workers=self.workers, listen=listen,
            )
        return _told(entries, table, self.json, self.strict)


@dataclass(kw_only=True)
class Sweep:
    """Check claims on many data sets: exit code 0 if all are supported on all, 1 if not."""

    ids: Ids = ()
    over: Annotated[
        tuple[str, ...], Doc("data=PATH,PATH,… (patterns too: data='photos/*.png'), seeds=N for each of them")
    ] = ()
    profile: Scale = "quick"
    device: Device = "auto"
    engine: Engine = "local"
    address: Address = None
    workers: Workers = None
    json: Json = False
    strict: Strict = False

    def __call__(self) -> int:
        from precis.papers.checking import sweep_claims
        from precis.papers.sweep_table import sweep_table

        library = find()
        warn(library.problems)
        with _watched() as listen:
            entries = sweep_claims(
                library, self.ids, self.over, profile=self.profile, device=self.device, engine=self.engine,
                address=self.address, workers=self.workers, listen=listen,
            )
        return _told(entries, sweep_table, self.json, self.strict)


def _told(entries: list[dict[str, Any]], table: Callable[[list[dict[str, Any]]], Any], json: bool, strict: bool) -> int:
    """Show the verdicts; the exit code that they mean."""
    from precis.papers.checking import exit_code
    from precis.papers.terminal import show

    if json:
        print_json({"claims": entries})
    else:
        show(table(entries))
    return exit_code(entries, strict=strict)


@contextmanager
def _watched() -> Iterator[Any]:
    """Progress on stderr; Ctrl-C ends it with what was finished kept.  Ray's own talk on stdout is nobody's."""
    from precis.papers.terminal import console
    from precis.papers.verdict_table import progress

    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job inherits "ignored"
    try:
        with progress(console(stderr=True)) as listen, open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
            yield listen
    except KeyboardInterrupt:
        raise Stopped("interrupted; finished trials are kept, and the same command goes on") from None
