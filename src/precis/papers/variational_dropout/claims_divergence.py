"""The claim about the KL divergence: nothing is trained."""

from dataclasses import dataclass
from typing import Any

import torch

from precis.lab.claim import Claim, Metrics, Profile, Recorder
from precis.lab.hypotheses import Exact
from precis.sparsity.variational_dropout_kl import kl_divergence


@dataclass(frozen=True)
class Grid:
    """log α from −8 to 8 in so many points; beside them the region of small α."""

    points: int = 16_001
    small: float = -6.0


class KlLimit(Claim):
    """Both approximations against the exact divergence, 2∫F over Dawson's function, on log α from −8 to 8.

    Bounds: 0.01 nats of error anywhere, 2·10⁻⁴ nats left at log α = 8, where the exact value is 1.7·10⁻⁴, and more than
    4,000 nats off for the polynomial of Kingma et al. at log α = 3.  Its free constant is the one that makes it exact
    as α → 0; below log α = −6 it is then the better fit, which is shown and does not count.
    """

    name = "kl_limit"
    statement = (
        "The new approximation of the KL term follows the true one for every noise variance and goes to zero with it, "
        "while the older polynomial explodes above α = 1."
    )
    arms = ("sigmoid", "kingma")
    profiles = {
        "smoke": Profile(Grid(1601), seeds=1, scale="1,601 values of log α"),
        "quick": Profile(Grid(), seeds=1, scale="16,001 values of log α from −8 to 8"),
        "full": Profile(Grid(), seeds=1, scale="16,001 values of log α from −8 to 8"),
    }
    hypotheses = (
        Exact("largest_error", "sigmoid", 0.01, "<="),
        Exact("value_at_8", "sigmoid", 2e-4, "<"),
        Exact("distance_at_3", "kingma", 4000, ">"),
        Exact("largest_error_small", "kingma", "sigmoid", "<", counts=False),
    )
    untried = "Nothing beyond log α = ±8, where the layers clip it."

    def trial(self, arm: str, seed: int, settings: Any, data: Any, record: Recorder) -> Metrics:
        u = torch.linspace(-8, 8, settings.points, dtype=torch.float64)
        found, exact = kl_divergence(u, arm), kl_divergence(u, "exact")  # type: ignore[arg-type]
        off = (found - exact).abs()
        shown = u <= 2
        record.curve("divergence (nats) over log α", u[shown][::40], found[shown][::40].clamp(-2, 6))
        at = lambda value: int((u - value).abs().argmin())
        return {
            "largest_error": float(off.max()), "largest_error_small": float(off[u <= settings.small].max()),
            "value_at_8": float(found[at(8)]), "distance_at_3": float(off[at(3)]),
        }  # fmt: skip
