"""Batches: the order in which examples are drawn, and where in it a training is."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from precis.errors import InputError


class IndexBatches:
    """Batches of indices, in a new random order every time it is gone through; see `index_batches`."""

    def __init__(self, n: int, size: int, generator: torch.Generator | None, drop_last: bool = False) -> None:
        if n < 1 or size < 1:
            raise InputError(f"batches need at least one example and a size of at least 1, got {n} of size {size}")
        if drop_last and n < size:
            raise InputError(f"{n} examples do not fill one batch of {size}")
        self.n, self.size, self.generator = n, size, generator
        self.end = n - n % size if drop_last else n
        self.order: Tensor | None = None
        self.position = 0
        self.resumed = False

    def __len__(self) -> int:
        return -(-self.end // self.size)

    def __iter__(self) -> Iterator[Int[Tensor, "b"]]:
        if not self.resumed:
            self.order, self.position = self._draw(), 0
        self.resumed = False
        order = self.order
        assert order is not None
        while self.position < self.end:
            start, self.position = self.position, self.position + self.size
            yield order[start : min(self.position, self.end)]

    def _draw(self) -> Tensor:
        if self.generator is None:
            return torch.arange(self.n)
        return torch.randperm(self.n, generator=self.generator, device=self.generator.device)

    def state_dict(self) -> dict[str, Any]:
        drawn = None if self.generator is None else self.generator.get_state()
        return {"order": self.order, "position": self.position, "generator": drawn}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        order = state["order"]
        if order is not None and len(order) != self.n:
            raise ValueError(f"it has {len(order)} examples, these are {self.n}")
        if self.generator is not None:
            self.generator.set_state(state["generator"])
            order = None if order is None else order.to(self.generator.device)
        self.order, self.position, self.resumed = order, state["position"], order is not None


def index_batches(n: int, size: int, generator: torch.Generator | None, drop_last: bool = False) -> IndexBatches:
    """Batches of `size` indices of n examples, reshuffled by `generator` for each epoch (None: in order).

    The last batch of an epoch is smaller where n is no multiple of `size`, unless `drop_last`.  `fit` takes any
    other iterable as well; with `state_dict` and `load_state_dict` it resumes at once, without them its batches are
    gone through again up to where the training was.
    """
    return IndexBatches(n, size, generator, drop_last)


class Feed:
    """Batches without end from an iterable, and where in it we are."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches, self.epoch, self.position = batches, 0, 0
        self.iterator: Iterator[Any] | None = None

    def next(self) -> Any:
        """The next batch; the iterable starts again at its end."""
        while True:
            if self.iterator is None:
                self.iterator = iter(self.batches)
            try:
                batch = next(self.iterator)
            except StopIteration:
                if self.position == 0:
                    again = " left: pass a list or an object that can be gone through again" if self.epoch else ""
                    raise InputError(f"there are no batches{again}") from None
                self.epoch, self.position, self.iterator = self.epoch + 1, 0, None
                continue
            self.position += 1
            return batch

    def epochs(self) -> float:
        """Epochs done; the part of the present one counts where the number of batches is known."""
        try:
            return self.epoch + self.position / len(self.batches)  # type: ignore[arg-type]
        except TypeError:
            return float(self.epoch)

    def state_dict(self) -> dict[str, Any]:
        own = self.batches.state_dict() if hasattr(self.batches, "state_dict") else None
        return {"epoch": self.epoch, "position": self.position, "own": own}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epoch, self.position = state["epoch"], state["position"]
        if state["own"] is not None and hasattr(self.batches, "load_state_dict"):
            self.batches.load_state_dict(state["own"])
            self.iterator = iter(self.batches)
            return
        self.iterator = iter(self.batches)
        passed = sum(1 for _ in islice(self.iterator, self.position))
        if passed < self.position:
            raise ValueError(f"it was at batch {self.position}, these are only {passed}")
