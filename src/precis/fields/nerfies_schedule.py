"""How the weight of the elastic term falls while a deformable field is fitted.

    λ(p) = λ for p ≤ 0.2,   then half a cosine to 10⁻⁸ at p = 0.6, and 10⁻⁸ from there on

p is the progress of the run: the paper holds λ for 50,000 of 250,000 steps and lets it fall over 100,000 for captures
made with one camera; on its rig of several cameras λ is constant.
Park et al., ICCV 2021, §3.3 (arXiv 2011.12948), and the settings of the released code.
"""

from precis.train.schedule import Schedule, cosine

Number = float | int
HELD, FALLEN, END = 0.2, 0.6, 1e-8


def held_then_cosine(weight: Number, end: Number = END, held: Number = HELD, fallen: Number = FALLEN) -> Schedule:
    """The factor by which `weight` is multiplied, so that it ends at `end` (or as it is, if it is below that)."""
    if not 0 <= held < fallen <= 1:
        raise ValueError(f"0 ≤ held < fallen ≤ 1 is wanted, got {held} and {fallen}")
    fall = cosine(min(end / weight, 1.0) if weight else 0.0)
    return lambda progress: fall(min(max((progress - held) / (fallen - held), 0.0), 1.0))
