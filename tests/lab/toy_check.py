"""`python toy_check.py HOME PROFILE WORKERS CLAIM…`: a check in a process of its own; the reports go to stdout."""

import json
import signal
import sys
from pathlib import Path

from precis.lab.check import check
from precis.lab.loading import PaperSource, claims_of

signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background passes "ignored" on
home, profile, workers, *names = sys.argv[1:]
toy = PaperSource("toy_paper", Path(__file__).parent / "toy_paper")
found = claims_of(toy)
reports = check([(toy, found[name]) for name in names], home=Path(home), device="cpu", profile=profile,
                workers=int(workers))
print(json.dumps(reports, allow_nan=False))
