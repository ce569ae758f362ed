"""Reversible layers: activations are not stored for the backward pass but computed again, from the outputs.

    y₁ = x₁ + F(x₂),  y₂ = x₂ + G(y₁);     x₂ = y₂ − G(y₁),  x₁ = y₁ − F(x₂)

Gomez, Ren, Urtasun, Grosse, NeurIPS 2017, §3 and Algorithm 1 (arXiv 1707.04585); additive couplings are those of NICE
(Dinh, Krueger, Bengio, 2014).  A run of blocks keeps its last output alone, whatever their number; the price is one
more evaluation of each F and G.
"""

import inspect
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol

import torch
from jaxtyping import Float
from torch import Tensor, nn

from precis.nn.replay import autocast_state, frozen_statistics
from precis.nn.reversible_run import Layout, Part, Run, advance, call, layout_of, retreat, reverse

__all__ = ["AdditiveCoupling", "Reversible", "ReversibleSequence", "reconstruction_error"]

Kwargs = Mapping[str, Any]


class Reversible(Protocol):
    """A block that a `ReversibleSequence` takes, an `nn.Module`: streams in, streams of the same number out, and back.

    A stream is any tensor: RevNet's halves (x₁, x₂), a flow's (x [B,C,H,W], logdet [B]).  A block that decides
    something once, such as the buckets of a hash, returns (streams, memo), a memo being a nest of tensors; its inverse
    and its second evaluation are given `memo=`.  A block that draws random numbers draws the same in its inverse.
    """

    def forward(self, *streams: Tensor, **kwargs: Any) -> Any: ...
    def inverse(self, *streams: Tensor, **kwargs: Any) -> tuple[Tensor, ...]: ...


class AdditiveCoupling(nn.Module):
    """Two streams of equal shape, each changed by a function of the other; see the module's equations.

    f, g: any modules whose output has the shape of their input.  Each is given those of the block's keyword arguments
    that its `forward` names.  One that decides something once returns (output, memo) and takes `memo=`.
    The streams keep their type, whatever type f and g compute in.
    """

    def __init__(self, f: nn.Module, g: nn.Module) -> None:
        super().__init__()
        self.f, self.g = f, g

    def forward(
        self, x1: Float[Tensor, "*shape"], x2: Float[Tensor, "*shape"], **kwargs: Any
    ) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
        to_f, to_g = self.routed(kwargs)
        y1 = x1 + call(self.f, (x2,), to_f, like=x1)[0]
        return y1, x2 + call(self.g, (y1,), to_g, like=x2)[0]

    def inverse(
        self, y1: Float[Tensor, "*shape"], y2: Float[Tensor, "*shape"], **kwargs: Any
    ) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
        """The inputs; running statistics stay as they are."""
        to_f, to_g = self.routed(kwargs)
        with frozen_statistics(self):
            x2 = y2 - call(self.g, (y1,), to_g, like=y2)[0]
            return y1 - call(self.f, (x2,), to_f, like=y1)[0], x2

    def routed(self, kwargs: Kwargs) -> tuple[dict[str, Any], dict[str, Any]]:
        """The keyword arguments of f and those of g.  TypeError if one is neither's."""
        if not kwargs:
            return {}, {}
        taken = [{k: v for k, v in kwargs.items() if _takes(part, k)} for part in (self.f, self.g)]
        for name in kwargs:
            if all(name not in part for part in taken):
                raise TypeError(f"neither f nor g has an argument called {name!r}")
        return taken[0], taken[1]


class ReversibleSequence(nn.Module):
    """Blocks one after the other, as one `autograd.Function`: its backward rebuilds each block's input from its output.

    save: "output" keeps the last streams alone, "all" is ordinary autograd through the same modules: the reference, and
    the one to take inside `torch.func` transforms (`vmap`, `grad`), which no such Function can be put through.
    every: k also keeps the streams after each k blocks, which bounds rounding errors; 0: none.
    preserve_rng: blocks that draw from torch's global generators (dropout) draw the same numbers again; states are kept
    of those alone that drew.  With False such blocks get wrong gradients.

    The Function gives gradients for streams, parameters and keyword arguments alike; differentiating them once more is
    an error.  Running statistics of torch's norms are updated once.  Of dense streams, values are the same to the bit
    in both modes; gradients differ by the rounding errors of rebuilding.
    """

    def __init__(
        self, blocks: Iterable[nn.Module], *, save: Literal["output", "all"] = "output", every: int = 0,
        preserve_rng: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        if save not in ("output", "all") or every < 0:
            raise ValueError(f'save is "output" or "all" and every at least 0, got {save!r} and {every}')
        for i, block in enumerate(self.blocks):
            if not callable(getattr(block, "inverse", None)):
                raise TypeError(f"block {i}, a {type(block).__name__}, has no inverse")
        self.save, self.every, self.preserve_rng = save, every, preserve_rng
        self._layout: Layout | None = None

    def forward(
        self, *streams: Tensor, block_kwargs: Kwargs | Sequence[Kwargs] | None = None
    ) -> tuple[Tensor, ...]:  # fmt: skip
        """The last streams; `block_kwargs`: keyword arguments of every block, or a sequence with those of each."""
        if not len(self.blocks):
            return streams
        kwargs = self._each(block_kwargs)
        if self.save == "all":
            for block, own in zip(self.blocks, kwargs):
                streams = call(block, streams, own)[0]
            return streams
        run = self._run(kwargs, self.every, streams[0])
        if torch.is_grad_enabled():
            return reverse(run, streams, list(self.parameters()))
        return tuple(advance(run, [s.clone() for s in streams], None))

    @torch.no_grad()
    def reconstruct(
        self, *streams: Tensor, block_kwargs: Kwargs | Sequence[Kwargs] | None = None
    ) -> list[tuple[Tensor, ...]]:  # fmt: skip
        """From the last streams: the input of each block, from the first on, and the last streams themselves.

        Of blocks that draw random numbers or return a memo it rebuilds what they would decide now.
        """
        found = [streams]
        for block, own in zip(reversed(self.blocks), reversed(self._each(block_kwargs))):
            inverse: Any = block.inverse
            with frozen_statistics(block):
                streams = tuple(inverse(*streams, **own))
            found.append(streams)
        return found[::-1]

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_layout": None}  # of this object alone: a copy makes its own

    def _each(self, given: Kwargs | Sequence[Kwargs] | None) -> list[Kwargs]:
        if given is None or isinstance(given, Mapping):
            return [given or {}] * len(self.blocks)
        if len(given) != len(self.blocks):
            raise ValueError(f"{len(given)} sets of keyword arguments for {len(self.blocks)} blocks")
        return list(given)

    def _run(self, kwargs: list[Kwargs], every: int, like: Tensor) -> Run:
        """What is undone at a time: halves of additive couplings, and other blocks whole."""
        parts = []
        for i, (block, own) in enumerate(zip(self.blocks, kwargs)):
            if isinstance(block, AdditiveCoupling) and _is_plain(block):
                to_f, to_g = block.routed(own)
                parts += [Part(block.f, i, dict(to_f), to=0, of=1), Part(block.g, i, dict(to_g), to=1, of=0)]
            else:
                parts.append(Part(block, i, dict(own)))
        self._layout = layout_of(self, [part.fn for part in parts], self._layout)
        return Run(self, parts, self._layout, every, self.preserve_rng, like.device, autocast_state(like.device))


@torch.no_grad()
def reconstruction_error(
    seq: ReversibleSequence, *streams: Tensor, block_kwargs: Kwargs | Sequence[Kwargs] | None = None
) -> Float[Tensor, "blocks"]:
    """‖x̂ − x‖/‖x‖ of each block's input, x̂ being rebuilt from the last output: how far rounding errors have grown.

    Streams are taken together.  Random numbers and memos are those of the forward run; statistics stay as they are.
    """
    run = seq._run(seq._each(block_kwargs), 1, streams[0])
    with frozen_statistics(seq):
        given = [s.clone() for s in streams]
        truth = [[s.clone() for s in given]]
        last = advance(run, given, notes := [], truth)  # type: ignore[var-annotated]
        rebuilt = retreat(run, last, notes)
    errors = []
    for exact, again in zip(truth, rebuilt):
        off = sum(float((a - b).double().square().sum()) for a, b in zip(again, exact))
        errors.append((off / max(sum(float(x.double().square().sum()) for x in exact), 1e-300)) ** 0.5)
    return torch.tensor(errors)


def _is_plain(block: AdditiveCoupling) -> bool:
    """Whether its inverse is that of the equations; a subclass with another one is undone by it, as a whole."""
    return type(block).inverse is AdditiveCoupling.inverse and type(block).forward is AdditiveCoupling.forward


def _takes(module: nn.Module, name: str) -> bool:
    known = inspect.signature(module.forward).parameters
    return name in known or any(p.kind is p.VAR_KEYWORD for p in known.values())
