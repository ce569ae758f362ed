"""The claims of RevNet, in the order of the summary."""
# ruff: noqa: I001

from .claims_memory import Memory, Stages
from .claims_training import Parity, RebuiltGradients
from .claims_cost import Overhead
from .claims_reverse import FullyReversible

__all__ = ["Memory", "Parity", "RebuiltGradients", "Overhead", "Stages", "FullyReversible"]
