"""The claims of SimCLR and MoCo v2, in the order of the summary."""

from .claims_features import BeatsRandom, Head
from .claims_views import Composition, SmallBatch

__all__ = ["BeatsRandom", "Head", "Composition", "SmallBatch"]
