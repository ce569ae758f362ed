"""The claim on cost: time against the number of observations and targets."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from precis.fields.neural_process import CNP
from precis.fields.neural_process_gp import RBF, gp_predict
from precis.lab.claim import Claim, Metrics, Profile, Recorder
from precis.lab.hypotheses import AtLeast, AtMost
from precis.lab.timing import interleaved


@dataclass(frozen=True)
class Sizes:
    """Numbers of observations; as many targets for the CNP, `gp_targets` for the GP."""

    cnp: tuple[int, ...] = (2048, 4096, 8192, 16384)
    gp: tuple[int, ...] = (2048, 2560, 3200)
    gp_targets: int = 64
    repeats: int = 3
    width: int = 64


class LinearCost(Claim):
    """The least-squares slope of log time on log (n + m) of one prediction on one thread, the sizes timed in turns.

    A linear cost has slope 1; bound 1.2, for caches that larger sets no longer fit.  The exact GP beyond 2,000
    observations: above 2 (its factorisation is cubic, its kernel matrix quadratic).  The GP predicts 64 places only,
    which favours it; as many as observations would add another cubic term.
    """

    name = "linear_cost"
    statement = (
        "The time of a prediction grows linearly with the number of observations and targets, while an exact Gaussian "
        "process's grows faster than with their square."
    )
    arms = ("cnp", "gp")
    profiles = {
        "smoke": Profile(Sizes((64, 128), (64, 96), width=16), seeds=2, scale="128 observations"),
        "quick": Profile(Sizes(), seeds=3, scale="up to 16,384 observations and targets, the GP 3,200; width 64"),
        "full": Profile(
            Sizes((4096, 16384, 65536), (2048, 4096, 8192), repeats=5, width=128), seeds=5,
            scale="up to 65,536 observations and targets, the GP 8,192; width 128",
        ),
    }  # fmt: skip
    hypotheses = (AtMost("slope", "cnp", 1.2), AtLeast("slope", "gp", 2))
    untried = "Sparse and iterative GPs, whose cost lies in between, were not timed."

    @torch.no_grad()
    def trial(self, arm: str, seed: int, settings: Any, data: Any, record: Recorder) -> Metrics:
        g, device = record.streams["data"], record.device
        net = CNP(1, 1, settings.width, (settings.width,) * 3, (settings.width,) * 2, generator=record.streams["init"])
        net = net.to(device).eval()
        calls: dict[str, Any] = {}
        totals = []
        for n in settings.cnp if arm == "cnp" else settings.gp:
            m = n if arm == "cnp" else settings.gp_targets
            x = torch.rand(1, n, 1, generator=g).to(device)
            y, at = torch.sin(20 * x), torch.rand(1, m, 1, generator=g).to(device)
            if arm == "cnp":
                calls[str(n)] = lambda x=x, y=y, at=at: net(x, y, at)
            else:
                calls[str(n)] = lambda x=x, y=y, at=at: gp_predict(RBF(0.1), x, y, at, 0.1)
            totals.append(n + m)
        timing = interleaved(calls, settings.repeats, 1)
        seconds = [timing.medians[name] for name in calls]
        record.curve("seconds by observations and targets", totals, seconds)
        return {"slope": float(np.polyfit(np.log(totals), np.log(seconds), 1)[0])}
