"""The claims about invariances, in the order of the summary."""

from .claims_clips import Deformation, FrameTemporal, Still
from .claims_factors import Occlusion, OtherFactors
from .claims_scenes import ObjectCentric, Region

__all__ = ["Occlusion", "OtherFactors", "ObjectCentric", "FrameTemporal", "Deformation", "Region", "Still"]
