"""What one trial draws from, and what makes it the same trial again: the streams of a seed, and torch made repeatable.

A change of this file changes the key of every trial of every claim, so it holds only what the numbers depend on.
What a trial writes to is in `precis.lab.recorder`.
"""

import hashlib
import random
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PURPOSES = ("init", "data", "noise", "eval")


def stream_seed(seed: int, purpose: str) -> int:
    """A 32-bit seed for one purpose (as many bits as torch's generator takes), unrelated between seeds and purposes."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{purpose}".encode()).digest()[:4], "little")


def streams(seed: int, device: str = "cpu") -> "dict[str, torch.Generator]":
    """Generators `init`, `data`, `noise` and `eval`: one stream a purpose, so an extra draw in one shifts no other.

    They depend on the seed alone: every arm of a seed gets the same ones.
    """
    import torch

    return {p: torch.Generator(device).manual_seed(stream_seed(seed, p)) for p in PURPOSES}


def seed_globals(seed: int) -> None:
    """Seed the global generators, for whatever in a library still draws from one."""
    import numpy
    import torch

    number = stream_seed(seed, "global")
    random.seed(number)
    numpy.random.seed(number)
    torch.manual_seed(number)


def make_repeatable(threads: int) -> None:
    """Fix torch's threads (the bits depend on them), and on a GPU the algorithms that always sum in one order.

    What an earlier trial of this process may have left otherwise is put back.
    """
    import torch

    torch.set_num_threads(threads)
    torch.set_default_dtype(torch.float32)
    torch.set_grad_enabled(True)
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
    if torch.cuda.is_available():
        torch.use_deterministic_algorithms(True, warn_only=True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
