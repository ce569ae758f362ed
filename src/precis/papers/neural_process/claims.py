"""The claims of neural processes, in the order of the summary."""
# ruff: noqa: I001

from .claims_curves import GPRegression
from .claims_pixels import ImageCompletion, ActiveContext, FlexibleConditioning
from .claims_few_shot import FewShot
from .claims_cost import LinearCost
from .claims_curves import Initialisation

__all__ = [
    "ActiveContext", "FewShot", "FlexibleConditioning", "GPRegression", "ImageCompletion", "Initialisation",
    "LinearCost",
]  # fmt: skip
