"""The claims of SIREN, in the order of the summary."""
# ruff: noqa: I001

from .claims_images import FitsSignalAndDerivatives, DerivativeOnly, GradientBlend
from .claims_images import Compressed

__all__ = ["FitsSignalAndDerivatives", "DerivativeOnly", "GradientBlend", "Compressed"]
