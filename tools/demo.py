"""`make demo`: check SIREN's claims on photographs, fit one, and write a report to look at."""

import sys
from pathlib import Path

from precis.cli import main

OUT = Path("demo")


def demo() -> int:
    """Exit code 0 whatever the verdicts are; anything but a verdict (2, 130) is passed on."""
    code = main(["check", "siren"])
    if code not in (0, 1):
        return code
    code = main(["report", "--out", str(OUT)])
    if code == 0:
        print(f"\nThe report: {(OUT / 'index.html').resolve()}")
    return code


if __name__ == "__main__":
    sys.exit(demo())
