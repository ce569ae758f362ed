"""Pairs of sets for the claim of transfer: one to train an encoder on, one to fit and attack a linear layer on."""

from dataclasses import replace

from precis.papers.contrastive_sets import Pool, characters, load_pool

from .arms import Plan

PAIRS = ("first", "second")


def load_pairs(s: Plan) -> tuple[tuple[Pool, Pool], tuple[Pool, Pool]]:
    """(source, target) twice: handwritten to printed digits at 8 pixels, printed letters to printed digits at 16; or
    CIFAR-10 to CIFAR-100 and back."""
    if s.data == "cifar10":
        ten, hundred = load_pool(s, None), load_pool(replace(s, data="cifar100"), None)
        return (ten, hundred), (hundred, ten)
    small, large = (characters("digits", 10, s, size) for size in (8, 16))
    return (load_pool(s, None), small), (characters("upper", 26, s, 16), large)
