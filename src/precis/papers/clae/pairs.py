"""How hard pairs are, looked at while CLAE trains: histograms of cosines at some moments of a run."""

import io

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from precis.contrastive.clae import CLAE, adversarial_bn

KINDS = ("clean", "adversarial")
COLOURS = dict(zip(KINDS, ("#2b7bba", "#cc4f0a")))
BINS = 60
EDGES = np.linspace(-1, 1 + 1e-6, BINS + 1)
MOMENTS = 8  # at most so many are kept between the first and the last
SHOWN = 3  # of those, in the picture


@torch.no_grad()
def cosines(model: CLAE, views: tuple[Tensor, Tensor]) -> dict[str, tuple[Tensor, Tensor]]:
    """Of clean and of adversarial pairs: cosines of positives [N] and of negatives, as the losses see them, with batch
    statistics; nothing of the model moves."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    was = model.training
    model.train()
    moved = model.adversary(views[0], views[1])
    z = F.normalize(model(torch.cat(views))[1].float(), dim=1)
    with adversarial_bn(model):
        attacked = F.normalize(model(moved)[1].float(), dim=1)
    model.load_state_dict(state)
    model.train(was)
    a, b = z.split(len(attacked))
    itself = torch.eye(len(a), dtype=torch.bool)
    pairs = {"clean": (a @ b.T).cpu(), "adversarial": (a @ attacked.T).cpu()}
    return {kind: (s[itself], s[~itself]) for kind, s in pairs.items()}


class Watched(nn.Module):
    """CLAE with histograms of its pairs' cosines, before the first step and every so many steps: as training grows
    longer, every other of them is dropped.  They are part of its state, so that a run that is resumed has them all.

    `moments`: {steps made: counts [4, 60] of clean positives and negatives, then adversarial ones}.
    """

    def __init__(self, clae: CLAE, views: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.clae, self.views = clae, views
        self.step, self.every = 0, 1
        self.moments: dict[int, Tensor] = {}

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self.clae(x)
        return found

    def look(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Keep a histogram of this moment, and return its cosines."""
        found = cosines(self.clae, self.views)
        rows = [np.histogram(c.numpy(), EDGES)[0] for kind in KINDS for c in found[kind]]
        self.moments[self.step] = torch.from_numpy(np.stack(rows)).double()
        return found

    def before_step(self) -> None:
        """To be called before each step."""
        if self.step % self.every == 0:
            self.look()
        if len(self.moments) > MOMENTS:
            self.every *= 2
            self.moments = {at: kept for at, kept in self.moments.items() if at % self.every == 0}
        self.step += 1

    def get_extra_state(self) -> Tensor:
        head = torch.tensor([self.step, self.every]).double()
        rows = [torch.cat([torch.tensor([float(at)]).double(), kept.flatten()]) for at, kept in self.moments.items()]
        return torch.cat([head, *rows])

    def set_extra_state(self, state: Tensor) -> None:
        state = state.double().cpu()
        self.step, self.every = int(state[0]), int(state[1])
        self.moments = {int(row[0]): row[1:].view(4, BINS) for row in state[2:].view(-1, 1 + 4 * BINS)}


def shown_of(moments: dict[int, Tensor]) -> list[int]:
    """Which moments to show: the first and the last, and up to three at equal steps between them."""
    steps = sorted(moments)
    wanted = np.linspace(steps[0], steps[-1], SHOWN + 2)
    return sorted({min(steps, key=lambda at: (abs(at - w), at)) for w in wanted})


def picture(moments: dict[int, Tensor]) -> bytes:
    """A panel a moment, each histogram to a height of 1: positives filled, negatives as lines."""
    from matplotlib.figure import Figure

    steps = shown_of(moments)
    figure = Figure(figsize=(max(6.8, 3.2 * len(steps)), 3.4), layout="constrained")
    for i, at in enumerate(steps):
        axes = figure.add_subplot(1, len(steps), i + 1)
        for j, kind in enumerate(KINDS):
            for counts, fill, label in zip(moments[at][2 * j : 2 * j + 2].numpy(), (True, False),
                                           ("same picture", "others")):  # fmt: skip
                axes.stairs(counts / max(counts.max(), 1), EDGES, color=COLOURS[kind], fill=fill,
                            alpha=0.45 if fill else 1, linewidth=1.5, label=f"{label}, {kind}")  # fmt: skip
        title = "before training" if at == 0 else f"after {at:,} step{'' if at == 1 else 's'}"
        axes.set(title=title, xlabel="cosine with the anchor", yticks=[], ylim=(0, 1.05))
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
    figure.legend(*axes.get_legend_handles_labels(), fontsize=9, frameon=False, loc="outside lower center", ncols=4)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=160)
    return out.getvalue()
