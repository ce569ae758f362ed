"""Pairs of sets for the claim of transfer: one to train an encoder on, one to fit and attack a linear layer on."""

from dataclasses import replace

import numpy as np
import torch

from precis.data.glyphs import glyphs, split_fonts
from precis.papers.ntxent.arms import SET_SEED, Pool, load_pool

from .arms import Plan

PAIRS = ("first", "second")


def load_pairs(s: Plan) -> tuple[tuple[Pool, Pool], tuple[Pool, Pool]]:
    """(source, target) twice: handwritten to printed digits at 8 pixels, printed letters to printed digits at 16; or
    CIFAR-10 to CIFAR-100 and back."""
    if s.data == "cifar10":
        ten, hundred = load_pool(s, None), load_pool(replace(s, data="cifar100"), None)
        return (ten, hundred), (hundred, ten)
    return (load_pool(s, None), printed("digits", 8, s)), (printed("upper", 16, s), printed("digits", 16, s))


def printed(alphabet: str, size: int, s: Plan) -> Pool:
    """Some `s.train` printed characters and `s.test` in other typefaces, white on black, in a random order."""
    parts = []
    for n, fonts, seed in ((s.train, split_fonts()[0], SET_SEED), (s.test, split_fonts()[1], SET_SEED + 1)):
        each = max(1, n // (10 if alphabet == "digits" else 26))
        made = glyphs(alphabet, fonts, size, each, levels=0, seed=seed)
        order = np.random.default_rng(seed).permutation(len(made.images))
        parts += [torch.from_numpy(made.images[order]), torch.from_numpy(made.labels[order])]
    return Pool(*parts)
