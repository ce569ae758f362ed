"""The claims of SIREN, in the order of the summary."""

from .claims_prior import Prior, PriorSamples

__all__ = ["Prior", "PriorSamples"]
