"""A step of CLAE, against the step as it is usually written, and against SimCLR's (what the adversary costs).

As usually written: the adversary by `backward()` through both embeddings, which computes weight gradients that are
thrown away; the anchor embedded anew for the adversarial loss; each view in a pass of its own.  `ratio` is theirs over
ours; where "theirs" is SimCLR's step, it is below 1.

The last rows, one a seed, are the time in which CLAE reaches the accuracy that SimCLR has at its end, over SimCLR's
time to that end, in the setting of the quick claims: the same start, order, views and steps, and the linear probe on
all labels after every fifth step.  CLAE's time is that at which the line through its accuracies first comes to
SimCLR's; if it does not within its run, the row says so.  This is CPU time of this process (`process_time`), which a
busy machine changes less than time on the clock, though it may still change it by a quarter; the probes are not in it.
`at step` is the same moment counted in steps of CLAE, which the machine does not change.
"""

import copy
import tempfile
from dataclasses import replace
from pathlib import Path
from time import process_time
from typing import Any

import torch
from torch import Tensor

from benchmarks._measured import versus
from precis.contrastive.clae import CLAE, adversarial_bn, to_dual_bn
from precis.contrastive.ntxent import ProjectionHead, SimCLR, nt_xent
from precis.lab.recorder import TrialRecord
from precis.lab.trial import streams
from precis.nn.backbones import backbone
from precis.papers.clae.arms import Plan, make_model, train
from precis.papers.clae.claims import QUICK
from precis.papers.contrastive_sets import Pool, load_pool
from precis.train.classify import to_channels_last
from precis.train.probe import LinearProbe, embed

EVERY = 5  # steps between two looks at the accuracy


def rows(repeats: int = 9) -> list[dict[str, Any]]:
    """A row a comparison; medians of interleaved repetitions."""
    steps = [*_rows("conv:24x3", 1, 16, repeats), *_rows("conv:32x4", 3, 32, max(3, repeats // 2))]
    pool = load_pool(QUICK, None)
    _watched("clae", replace(QUICK, steps=1), pool, 0)  # what is loaded at first use
    return [*steps, *(_reaching(pool, seed) for seed in range(3))]


def _rows(spec: str, channels: int, size: int, repeats: int) -> list[dict[str, Any]]:
    encoder = backbone(spec, (channels, size, size))
    head = ProjectionHead(encoder.out_dim)  # type: ignore[arg-type]
    plain = to_channels_last(SimCLR(copy.deepcopy(encoder), copy.deepcopy(head)))
    mine = CLAE(to_dual_bn(encoder), head)
    to_channels_last(mine)
    theirs = copy.deepcopy(mine)
    a, b = (torch.rand(128, channels, size, size).contiguous(memory_format=torch.channels_last) for _ in range(2))
    ours = lambda: mine.loss(a, b)[0].backward()
    name = f"CLAE step, {spec}, 2 × 128 of {size}×{size}"
    return [
        versus(name, ours, lambda: plain_step(theirs, a, b), repeats),
        versus(f"{name}, against SimCLR's", ours, lambda: plain.loss(a, b).backward(), repeats),  # type: ignore[operator]
    ]


def plain_step(model: CLAE, a: Tensor, b: Tensor) -> None:
    model.train()
    x = a.clone().requires_grad_()
    with adversarial_bn(model):
        nt_xent(model(a)[1], model(x)[1], model.temperature).backward()
    assert x.grad is not None
    moved = (a + model.eps * x.grad.sign()).clamp(0, 1)
    model.zero_grad()
    clean = nt_xent(model(a)[1], model(b)[1], model.temperature)
    anchor = model(a)[1]
    with adversarial_bn(model):
        attacked = model(moved)[1]
    (clean + model.weight * nt_xent(anchor, attacked, model.temperature)).backward()


def _reaching(pool: Pool, seed: int) -> dict[str, Any]:
    goal, own = _watched("simclr", QUICK, pool, seed)[-1]
    seen = _watched("clae", QUICK, pool, seed)
    row = {"what": f"CPU time to SimCLR's last {goal:.1f} %, seed {seed}", "theirs ms": 1e3 * own,
           "threads": torch.get_num_threads()}  # fmt: skip
    taken = first_reached(seen, goal)
    if taken is None:
        best = max(accuracy for accuracy, _ in seen)
        return {**row, "CLAE over SimCLR": f"not reached: {best:.1f} % at best, in {seen[-1][1] / own:.2f} of its time"}
    at = first_reached([(accuracy, min(EVERY * i, QUICK.steps)) for i, (accuracy, _) in enumerate(seen)], goal)
    return {**row, "ours ms": 1e3 * taken, "ratio": own / taken, "CLAE over SimCLR": taken / own, "at step": at}


def first_reached(seen: list[tuple[float, float]], goal: float) -> float | None:
    """The time at which the line through (accuracy, time), in order, first comes to `goal`; None if it never does."""
    before: tuple[float, float] | None = None
    for accuracy, time in seen:
        if accuracy >= goal:
            low, since = before or (goal, time)
            return since + (time - since) * ((goal - low) / (accuracy - low) if accuracy > low else 1)
        before = accuracy, time
    return None


def _watched(arm: str, plan: Plan, pool: Pool, seed: int) -> list[tuple[float, float]]:
    """Accuracy (%) and CPU seconds of training behind it, at the start, after every `EVERY` steps and at the end."""
    drawn = streams(seed)
    model = make_model(arm, plan, pool, drawn)
    seen: list[tuple[float, float]] = []
    loss, calls, spent, since = model.loss, 0, 0.0, process_time()

    def look() -> None:
        nonlocal spent, since
        spent += process_time() - since if seen else 0
        probe = LinearProbe(1e-3).fit(embed(model.encoder, pool.images), pool.labels)
        found = probe.accuracy(embed(model.encoder, pool.test_images), pool.test_labels).accuracy
        seen.append((100 * found, spent))
        since = process_time()

    def watched(*views: Tensor) -> Any:
        nonlocal calls
        if calls % EVERY == 0:
            look()
        calls += 1
        return loss(*views)

    model.loss = watched  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        train(plan, pool, model, drawn, TrialRecord(Path(folder), seed))
    look()
    return seen
