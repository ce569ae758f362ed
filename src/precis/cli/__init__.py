"""The command line: one module a command, each a dataclass whose fields are the options and whose call does the work.

Exit codes: 0 done, 1 a claim not supported or a run not completed, 2 wrong input or usage, 130 interrupted.
"""

import difflib
import os
import sys
from collections.abc import Sequence
from typing import Any

from precis.errors import InputError, RunFailed, Stopped

USAGE = """\
usage: precis COMMAND …

  list [--family F] [--json]        the library: papers, claims, last verdicts
  show ID                           a paper's summary, its claims and results
  run ID [INPUT] [options]          a paper's job on your input, or on a built-in sample
  check ID[/CLAIM] … [options]      its claims, as experiments on this machine or a cluster
  sweep ID[/CLAIM] … --over data=…  the same over many data sets and seeds, with one table
  report [--out DIR]                all results as a static site, and Markdown
  serve [--port N] [--host H]       the site on this machine, with live runs
  new ID [--into DIR]               a folder for a paper of your own, which works as written
  data list | get NAME              standard data sets: which are here, and fetching one
  doctor                            is everything sound: installation, ledger, papers

`precis COMMAND --help` tells the options, `precis run ID --help` those of a paper's job.
"""
COMMANDS = ("list", "show", "run", "check", "sweep", "report", "serve", "new", "data", "doctor")


def main(args: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (tyro exits by itself for --help and mistyped options)."""
    args = list(sys.argv[1:] if args is None else args)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        code = _command(args)
        sys.stdout.flush()
        return code
    except InputError as error:
        return _say(error, 2)
    except RunFailed as error:
        return _say(error, 1)
    except Stopped as error:
        return _say(error, 130)
    except KeyboardInterrupt:
        return _say("interrupted", 130)
    except BrokenPipeError:  # `precis list | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _command(args: list[str]) -> int:
    if not args or args[0] in ("-h", "--help", "help"):
        sys.stdout.write(USAGE)
        return 0 if args else 2
    if args[0] in ("-V", "--version"):
        from precis.papers.running import versions

        print("precis " + versions()["precis"])
        return 0
    name, rest = args[0], args[1:]
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        raise InputError(f"no command {name!r}" + (f"; did you mean {close[0]!r}?" if close else "; see precis --help"))
    if name == "run":
        from precis.cli.run import run

        return run(rest)
    if name == "list":
        from precis.cli.listing import well_formed

        if (plain := well_formed(rest)) is not None:
            return plain()
    from importlib import import_module

    import tyro

    from precis.cli.usage import read

    module = {"list": "listing", "check": "check", "sweep": "check"}.get(name, "commands")
    command = getattr(import_module(f"precis.cli.{module}"), name.capitalize())
    chosen: Any = read(command, f"precis {name}", args=rest, config=(tyro.conf.FlagCreatePairsOff,))
    return int(chosen())


def _say(error: object, code: int) -> int:
    sys.stderr.write("precis: " + " ".join(str(error).split()) + "\n")
    return code
