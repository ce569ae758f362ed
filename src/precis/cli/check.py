"""`precis check`: claims as experiments, with live progress and a table of verdicts at the end."""

import signal
from dataclasses import dataclass
from typing import Annotated, Literal

from typing_extensions import Doc
from tyro.conf import Positional

from precis.cli.listing import print_json, warn
from precis.errors import Stopped
from precis.papers.catalogue import find


@dataclass(kw_only=True)
class Check:
    """Check claims by running them here: exit code 0 if all are supported, 1 if not."""

    ids: Annotated[Positional[tuple[str, ...]], Doc("papers, or single claims as paper/claim")] = ()
    profile: Annotated[
        Literal["smoke", "quick", "full", "paper"],
        Doc("scale: quick is minutes, full up to an hour, paper the paper's own, smoke a test without verdict"),
    ] = "quick"
    data: Annotated[str | None, Doc("your own data in place of the built-in")] = None
    seeds: Annotated[int | None, Doc("how many seeds (0 … N−1), at least 3; else the profile's")] = None
    device: Annotated[Literal["auto", "cpu", "cuda", "mps"], Doc("where to compute")] = "auto"
    until_verdict: Annotated[bool, Doc("add seeds until the verdict is clear; its interval allows for the looking")] = (
        False
    )
    max_seeds: Annotated[int, Doc("the most seeds of --until-verdict")] = 20
    engine: Annotated[Literal["local", "ray"], Doc("this machine's processes, or a Ray cluster")] = "local"
    address: Annotated[str | None, Doc("address of the Ray cluster")] = None
    workers: Annotated[int | None, Doc("trials at once; else cores ÷ threads of a trial")] = None
    json: Annotated[bool, Doc("JSON, alone, on stdout")] = False
    strict: Annotated[bool, Doc("a claim that was not run counts as not supported")] = False

    def __call__(self) -> int:
        from precis.papers.checking import check_claims, exit_code
        from precis.papers.terminal import console, show
        from precis.papers.verdict_table import progress, table

        signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job inherits "ignored"
        library = find()
        warn(library.problems)
        try:
            with progress(console(stderr=True)) as listen:
                entries = check_claims(
                    library, self.ids, profile=self.profile, data=self.data, seeds=self.seeds, device=self.device,
                    until_verdict=self.until_verdict, max_seeds=self.max_seeds, engine=self.engine,
                    address=self.address, workers=self.workers, listen=listen,
                )
        except KeyboardInterrupt:
            raise Stopped("interrupted; finished trials are kept, and the same command goes on") from None
        if self.json:
            print_json({"claims": entries})
        else:
            show(table(entries))
        return exit_code(entries, strict=self.strict)
