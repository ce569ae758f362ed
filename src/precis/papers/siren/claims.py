"""The claims of SIREN, in the order of the summary."""
# ruff: noqa: I001

from .claims_images import FitsSignalAndDerivatives, DerivativeOnly
from .claims_between import TrueDerivativesBetweenSamples, EstimatedDerivativesBetweenSamples
from .claims_images import GradientBlend
from .claims_prior import Prior, PriorSamples, PriorContinuous
from .claims_equations import BoundaryValue
from .claims_plane import BoundaryValuePlane
from .claims_images import Compressed
from .claims_equations import DerivativeFamily
from .claims_shapes import RecoversShape

__all__ = [
    "FitsSignalAndDerivatives", "DerivativeOnly", "TrueDerivativesBetweenSamples",
    "EstimatedDerivativesBetweenSamples", "GradientBlend", "Prior", "PriorSamples", "PriorContinuous",
    "BoundaryValue", "BoundaryValuePlane",
    "Compressed", "DerivativeFamily", "RecoversShape",
]  # fmt: skip
