"""Sparse networks: which weights a network can do without, and what removing them is worth.

Names are given lazily; a function that is called as its module (`compress`) is imported from there.
"""

import importlib
from typing import Any

_HOMES = {
    "masks": (
        "LayerSparsity", "MaskedTraining", "Masks", "apply_masks_", "density_of", "geometric", "layer_sparsity",
        "linear", "magnitude_masks", "n_of_m_masks", "permuted_masks", "prunable",
    ),
    "compress": ("Sizes", "decompress", "deflated", "sizes"),
    "csr": ("CsrLinear", "to_csr"),
    "rewinding": (
        "METHODS", "Checkpoint", "History", "Plan", "Pruned", "Retraining", "Row", "Trainer", "best_compression",
        "iterative", "last_rate", "prune_and_retrain", "retrain_plan", "sample_rates", "step_schedule", "sweep",
    ),
    "variational_dropout": (
        "Bound", "VariationalConv1d", "VariationalConv2d", "VariationalLinear", "bound", "clip_log_alpha_",
        "given_noise", "kl_ramp", "model_kl", "set_generator", "threshold_masks", "to_dense", "variational_layers",
        "variationalize",
    ),
    "variational_dropout_kl": ("kl_divergence",),
}  # fmt: skip
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        return getattr(importlib.import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
