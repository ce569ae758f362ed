"""How the weight of the elastic term falls while a deformable field is fitted.

    λ(p) = λ for p ≤ 0.2,   then half a cosine to 10⁻⁸ at p = 0.6, and 10⁻⁸ from there on

p is the progress of the run: the paper holds λ for 50,000 of 250,000 steps and lets it fall over 100,000 for captures
made with one camera; on its rig of several cameras λ is constant.
Park et al., ICCV 2021, §3.3 (arXiv 2011.12948), and the settings of the released code.
"""

from precis.train.schedule import Schedule, cosine

Number = float | int
HELD, FALLEN, END = 0.2, 0.6, 1e-8


def held_then_cosine(weight: Number) -> Schedule:
    """The factor by which `weight` is multiplied, so that it ends at 10⁻⁸ (or as it is, if it is below that)."""
    fall = cosine(min(END / weight, 1.0) if weight else 0.0)
    return lambda progress: fall(min(max((progress - HELD) / (FALLEN - HELD), 0.0), 1.0))
