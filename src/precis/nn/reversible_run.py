"""One run through reversible blocks: forward with next to nothing kept, and backward with everything rebuilt.

Behind `precis.nn.reversible`.  For a half of an additive coupling, z = a + F(b) with b passed on, the way back is

    v = F(b) evaluated with its graph,   a = z − v,   b̄ ← b̄ + (∂v/∂b)ᵀ z̄,   w̄ = (∂v/∂w)ᵀ z̄

so that one evaluation serves both the inverse and the gradient.  Any other block is inverted, and evaluated again.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_flatten, tree_unflatten

from precis.nn.replay import Autocast, autocast_as, frozen, random_from, random_state, tracking


class Part(NamedTuple):
    """What is undone at a time: streams[to] += fn(streams[of]), or a whole block (`to` is −1)."""

    fn: nn.Module
    block: int
    kwargs: dict[str, Any]
    to: int = -1
    of: int = -1


class Layout(NamedTuple):
    """Of each part: its parameters' places among all, its buffers, its layers with running statistics.

    `stamp` says of what modules, parameters and buffers it was made.
    """

    stamp: tuple[int, ...]
    names: list[dict[str, int]]
    buffers: list[dict[str, Tensor]]
    layers: list[list[Any]]


class Note(NamedTuple):
    """What a part's second evaluation needs: the states it drew from (none if it drew nothing), and its memo."""

    states: list[Tensor]
    memo: Any


@dataclass(frozen=True)
class Run:
    """The parts of `owner` and how they are run."""

    owner: nn.Module
    parts: list[Part]
    layout: Layout
    every: int
    preserve_rng: bool
    device: torch.device
    autocast: Autocast

    def ends_block(self, i: int) -> bool:
        return i + 1 == len(self.parts) or self.parts[i + 1].block != self.parts[i].block

    def kept_after(self, block: int) -> bool:
        """Whether the streams after this block are kept; the last ones always are, as outputs."""
        return bool(self.every) and (block + 1) % self.every == 0 and block < self.parts[-1].block


def layout_of(owner: nn.Module, parts: Sequence[nn.Module], known: Layout | None) -> Layout:
    """`known`, if nothing has changed since it was made."""
    now = stamp(owner)
    if known is not None and known.stamp == now:
        return known
    place = {id(q): i for i, q in enumerate(owner.parameters())}
    names = [{name: place[id(q)] for name, q in part.named_parameters()} for part in parts]
    return Layout(now, names, [dict(part.named_buffers()) for part in parts], [tracking(part) for part in parts])


def stamp(owner: nn.Module) -> tuple[int, ...]:
    return tuple(id(x) for x in (*owner.modules(), *owner.parameters(), *owner.buffers()))


def call(
    module: Any, args: Sequence[Tensor], kwargs: Mapping[str, Any], *, like: Tensor | None = None,
    memo: Any = None, state: dict[str, Tensor] | None = None,
) -> tuple[Any, Any]:  # fmt: skip
    """(value, memo) of a function, with the shape and type of `like`, or of a block (None): a tuple of streams."""
    if memo is not None:
        kwargs = {**kwargs, "memo": memo}
    value = module(*args, **kwargs) if state is None else functional_call(module, state, tuple(args), dict(kwargs))
    memo = None
    if isinstance(value, tuple) and (like is not None or isinstance(value[0], tuple)):
        value, memo = value
    if like is None:
        return tuple(value), memo
    if value.shape != like.shape:
        raise ValueError(f"f and g must keep the shape: {tuple(like.shape)} became {tuple(value.shape)}")
    return value.to(like.dtype), memo


def advance(
    run: Run, streams: list[Tensor], notes: list[Note] | None, kept: list[list[Tensor]] | None = None
) -> list[Tensor]:  # fmt: skip
    """The last streams; the given ones are overwritten.  Called without gradients.

    notes, if given, gets one a part, and `kept` the streams after the blocks that `run` says.
    """
    preserve = run.preserve_rng and notes is not None
    before = random_state(run.device) if preserve else []
    for i, part in enumerate(run.parts):
        if part.to < 0:
            values, memo = call(part.fn, streams, part.kwargs)
            streams = list(values)
        else:
            x, at = streams[part.of], streams[part.to]
            version = None if x.is_inference() else x._version
            value, memo = call(part.fn, (x,), part.kwargs, like=at)
            if version is not None and x._version != version:
                raise ValueError(f"a {type(part.fn).__name__} in block {part.block} changes its input in place (a ReLU "
                                 "with inplace=True?), which would change the stream")  # fmt: skip
            at.add_(value)
        if notes is not None:
            drew = False
            if preserve:
                after = random_state(run.device)
                drew = not all(torch.equal(a, b) for a, b in zip(before, after))
            notes.append(Note(before if drew else [], memo))
            before = after if drew else before
        if kept is not None and run.ends_block(i) and run.kept_after(part.block):
            kept.append([s.clone() for s in streams])
    return streams


def retreat(run: Run, streams: Sequence[Tensor], notes: list[Note]) -> list[list[Tensor]]:
    """The input of each block, rebuilt from the last streams; without gradients."""
    found: list[list[Tensor]] = []
    now = list(streams)
    for i in reversed(range(len(run.parts))):
        part, note = run.parts[i], notes[i]
        with _again(run, i, note):
            if part.to < 0:
                now = list(call(part.fn.inverse, now, part.kwargs, memo=note.memo)[0])
            else:
                value, _ = call(part.fn, (now[part.of],), part.kwargs, like=now[part.to], memo=note.memo)
                now[part.to] = now[part.to] - value
        if i == 0 or run.parts[i - 1].block != part.block:
            found.append(list(now))
    return found[::-1]


def reverse(run: Run, streams: Sequence[Tensor], params: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The last streams, whose backward rebuilds the others."""
    leaves, spec = tree_flatten([part.kwargs for part in run.parts])
    given = list({id(x): x for x in leaves if isinstance(x, Tensor)}.values())
    at = {id(x): i for i, x in enumerate(given)}
    slots = [at.get(id(x)) for x in leaves]
    rest = [None if slot is not None else x for slot, x in zip(slots, leaves)]
    bare = replace(run, parts=[part._replace(kwargs={}) for part in run.parts])  # the context must not hold tensors
    plan = _Plan(bare, (len(streams), len(params)), spec, slots, rest)
    return _Reverse.apply(plan, *streams, *params, *given)  # type: ignore[no-any-return]


class _Plan(NamedTuple):
    """How the Function's tensors are laid out: streams, parameters, tensors among the keyword arguments (`slots`: which
    of them each leaf is; `rest`: the leaves that are none).
    """

    run: Run
    counts: tuple[int, int]
    spec: Any
    slots: list[int | None]
    rest: list[Any]

    def split(self, tensors: Sequence[Any]) -> tuple[list[Any], list[Any], list[Any]]:
        a, b = self.counts
        return list(tensors[:a]), list(tensors[a : a + b]), list(tensors[a + b :])

    def with_kwargs(self, given: Sequence[Tensor]) -> Run:
        """The run with these tensors in its keyword arguments."""
        leaves = [x if slot is None else given[slot] for slot, x in zip(self.slots, self.rest)]
        kwargs = tree_unflatten(leaves, self.spec)
        return replace(self.run, parts=[part._replace(kwargs=own) for part, own in zip(self.run.parts, kwargs)])


class _Reverse(torch.autograd.Function):
    """Everything that is kept goes through `save_for_backward`, where hooks (offloading, counting) see it."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, *tensors: Tensor) -> tuple[Tensor, ...]:
        streams, params, given = plan.split(tensors)
        notes: list[Note] = []
        kept: list[list[Tensor]] = []
        with autocast_as(plan.run.autocast):
            outputs = advance(plan.with_kwargs(given), [s.clone() for s in streams], notes, kept)
        held, ctx.layout = tree_flatten((outputs, kept, [tuple(note) for note in notes]))
        ctx.others = [None if isinstance(x, Tensor) else (x,) for x in held]
        ctx.plan = plan
        ctx.save_for_backward(*params, *given, *(x for x in held if isinstance(x, Tensor)))
        return tuple(outputs)

    @staticmethod
    def backward(ctx: Any, *cotangents: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():  # create_graph=True
            raise RuntimeError('gradients of a ReversibleSequence cannot be differentiated once more; save="all" can')
        plan: _Plan = ctx.plan
        _, wanted, wanted_given = plan.split(needs := ctx.needs_input_grad[1:])
        cut = len(wanted) + len(wanted_given)
        saved = ctx.saved_tensors
        params, given, held = saved[: len(wanted)], saved[len(wanted) : cut], iter(saved[cut:])
        leaves = [next(held) if other is None else other[0] for other in ctx.others]
        outputs, kept, notes = tree_unflatten(leaves, ctx.layout)
        given = [x.detach().requires_grad_(need) for x, need in zip(given, wanted_given)]
        way = _WayBack(plan, params, given, outputs, cotangents)
        for i in reversed(range(len(plan.run.parts))):
            if plan.run.ends_block(i) and plan.run.kept_after(plan.run.parts[i].block):
                way.streams = [s.clone() for s in kept.pop()]
            way.undo(i, Note(*notes[i]))
        return None, *(g if need else None for g, need in zip([*way.cotangents, *way.sums], needs))


class _WayBack:
    """Streams and cotangents on the way from the last part to the first; gradients of parameters and of keyword
    arguments are summed in `sums`.
    """

    def __init__(
        self, plan: _Plan, params: Sequence[Tensor], given: list[Tensor], streams: Sequence[Tensor],
        cotangents: Sequence[Tensor],
    ) -> None:  # fmt: skip
        self.run, self.params = plan.with_kwargs(given), params
        now = list(self.run.owner.parameters())
        # Another forward pass than the module's own: under `functional_call`, or with a hook that packs parameters.
        self.swapped = stamp(self.run.owner) != self.run.layout.stamp or any(a is not b for a, b in zip(now, params))
        self.streams, self.cotangents = [s.clone() for s in streams], [c.clone() for c in cotangents]
        self.given = {len(params) + i: x for i, x in enumerate(given) if x.requires_grad}
        self.sums: list[Tensor | None] = [None] * (len(params) + len(given))

    def undo(self, i: int, note: Note) -> None:
        """Go back through part i."""
        places = self.run.layout.names[i]
        own = {place: self.params[place] for place in places.values()}
        state = None
        if self.swapped:
            own = {place: x.detach().requires_grad_(x.requires_grad) for place, x in own.items()}
            state = {name: x.clone() for name, x in self.run.layout.buffers[i].items()}
            state |= {name: own[place] for name, place in places.items()}
        wanted = {place: x for place, x in own.items() if x.requires_grad} | self.given
        undo = self._undo_half if self.run.parts[i].to >= 0 else self._undo_block
        undo(i, note, state, wanted)

    def _undo_half(self, i: int, note: Note, state: Any, wanted: dict[int, Tensor]) -> None:
        part = self.run.parts[i]
        at, x = self.streams[part.to], self.streams[part.of].detach().requires_grad_()
        with _again(self.run, i, note), torch.enable_grad():
            value, _ = call(part.fn, (x,), part.kwargs, like=at, memo=note.memo, state=state)
        at.sub_(value.detach())
        if value.requires_grad:
            pull = self.cotangents[part.to]
            gx, *rest = torch.autograd.grad(value, [x, *wanted.values()], pull, allow_unused=True)
            self._add(wanted, rest)
            if gx is not None:
                self.cotangents[part.of].add_(gx)

    def _undo_block(self, i: int, note: Note, state: Any, wanted: dict[int, Tensor]) -> None:
        part = self.run.parts[i]
        with _again(self.run, i, note):
            inverse = part.fn.inverse if state is None else _Inverse(part.fn)
            given: Any = None if state is None else {f"of.{name}": x for name, x in state.items()}
            self.streams = list(call(inverse, self.streams, part.kwargs, memo=note.memo, state=given)[0])
        inputs = [s.detach().requires_grad_() for s in self.streams]
        with _again(self.run, i, note), torch.enable_grad():
            values, _ = call(part.fn, inputs, part.kwargs, memo=note.memo, state=state)
        live = [(v, c) for v, c in zip(values, self.cotangents) if v.requires_grad]
        found: Sequence[Tensor | None] = [None] * len(inputs)
        if live:
            outputs, pulls = zip(*live)
            found = torch.autograd.grad(outputs, [*inputs, *wanted.values()], pulls, allow_unused=True)
            self._add(wanted, found[len(inputs) :])
        self.cotangents = [torch.zeros_like(x) if g is None else g.clone() for x, g in zip(inputs, found)]

    def _add(self, wanted: dict[int, Tensor], grads: Sequence[Tensor | None]) -> None:
        for place, g in zip(wanted, grads):
            before = self.sums[place]
            if g is not None:
                self.sums[place] = g if before is None else before + g


class _Inverse(nn.Module):
    """A block's inverse as a module, for `functional_call`."""

    def __init__(self, of: nn.Module) -> None:
        super().__init__()
        self.of = of

    def forward(self, *args: Tensor, **kwargs: Any) -> Any:
        inverse: Any = self.of.inverse
        return inverse(*args, **kwargs)


@contextmanager
def _again(run: Run, i: int, note: Note) -> Iterator[None]:
    """The circumstances of the first evaluation of part i."""
    with frozen(run.layout.layers[i]), random_from(note.states, run.device), autocast_as(run.autocast):
        yield
