"""The claims of Group Normalization, in the order of the summary."""
# ruff: noqa: I001

from .claims_batches import SmallBatch, LargeBatch, Flat
from .claims_groups import GroupsHelp, GroupingArbitrary
from .claims_why import Statistics, LearningRate

__all__ = ["SmallBatch", "LargeBatch", "Flat", "GroupsHelp", "GroupingArbitrary", "Statistics", "LearningRate"]
