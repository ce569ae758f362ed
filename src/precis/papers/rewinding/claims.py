"""The claims of rewinding, in the order of the summary."""
# ruff: noqa: I001

from .claims_retrain import WeightVsFinetune, LrVsFinetune, Elastic
from .claims_cost import LrVsWeight, SearchCost

__all__ = ["WeightVsFinetune", "LrVsFinetune", "LrVsWeight", "SearchCost", "Elastic"]
