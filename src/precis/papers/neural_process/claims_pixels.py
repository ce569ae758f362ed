"""Claims on pictures: completion beside kNN and GPs, the next pixel to ask for, and contexts of any shape."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from precis.fields.neural_process import CNP
from precis.fields.neural_process_context import acquire, sample_context, take
from precis.lab.claim import Claim, Metrics, Precondition, Profile, Recorder
from precis.lab.hypotheses import Less, NotWorse
from precis.nn.coordinates import coordinate_grid

from .pixels import Neighbours, Pictures, Pixels, Process, complete, load_pictures, log_mse, train_nets

AMOUNTS = ("few", "some", "many")
# arm -> the network that it needs
NETWORK = {f"{kind}_{n}": net for kind, net in (("cnp", "mixed"), ("ordered", "mixed"), ("permuted", "permuted"))
           for n in AMOUNTS} | {"variance": "mixed", "random": "mixed", "shuffled_variance": "mixed"}  # fmt: skip
NETWORK |= {f"mixed_{o}": "mixed" for o in ("random", "half", "ordered")}
NETWORK |= {f"only_{o}": f"only_{o}" for o in ("random", "half", "ordered")}
PICTURED = 1  # seeds whose pictures are kept


class _OnPixels(Claim):
    """Networks that complete pictures, and baselines; three claims read the trials.  Networks: see `pixels`.

    cnp_…, ordered_…, permuted_…   the network `mixed` (or `permuted`) shown few, some or many pixels, random or the
                                   first rows from the top
    knn_…, gp_…                    nearest neighbours and a GP around the mean value, on the same random pixels
    gp_picture_…                   a GP around the mean picture (context: a stronger baseline than the paper's)
    mean                           the mean picture
    variance, random               `mixed`, shown pixels that it or chance has chosen one after the other
    mixed_…, only_…                half of the pixels: random, one half, or the upper rows
    """

    runs = "pixels"
    takes = ("images",)
    profiles = {
        "smoke": Profile(
            Pixels("digits", 8, (4, 12, 40), 3, 4, 16, 16, held=20, asked=(8, 3), gp_pictures=10), seeds=2,
            scale="digits 8×8, width 16, 3 steps",
        ),
        "quick": Profile(
            Pixels("digits", 8, (4, 12, 40), 2500), seeds=3, scale="digits 8×8, width 64, 2,500 steps of 16 pictures"
        ),
        "full": Profile(
            Pixels("mnist", 28, (10, 100, 400), 2500, 16, 128, 64, held=1000, asked=(100, 40), gp_pixels=150), seeds=3,
            cuda=Pixels("mnist", 28, (10, 100, 400), 200_000, 64, 256, 128, 1e-3, 5000, (500, 60), gp_pixels=200),
            scale="MNIST 28×28, width 64, 2,500 steps of 16 pictures (GPU: width 128, 200,000 steps of 64)",
        ),
        "paper": Profile(
            Pixels("CelebA", 32, (10, 100, 1000), 200_000, 64, 1024, 128, 1e-4, 5000, (500, 60), gp_pixels=200),
            seeds=3, scale="CelebA 32×32 by --data, width 128, 200,000 steps of 64",
        ),
    }  # fmt: skip

    def load(self, settings: Any, source: Path | None) -> Pictures:
        return load_pictures(settings, source)

    def batch(
        self, arms: tuple[str, ...], seeds: tuple[int, ...], settings: Any, data: Pictures,
        records: Mapping[tuple[str, int], Recorder],
    ) -> Iterator[tuple[str, int, Metrics]]:  # fmt: skip
        parts = {}
        for seed in seeds:
            streams = records[arms[0], seed].streams
            parts[seed] = data.split(seed, settings.held, streams["data"])
        first = records[arms[0], seeds[0]]
        names = tuple(dict.fromkeys(NETWORK[arm] for arm in arms if arm in NETWORK))
        nets: dict[tuple[str, int], CNP] = {}
        if names:
            streams_of = {seed: records[arms[0], seed].streams for seed in seeds}
            nets = train_nets(names, {seed: part[0] for seed, part in parts.items()}, settings, streams_of, first)
        for seed in seeds:
            train, test = (part.to(first.device) for part in parts[seed])
            order = torch.rand(len(test), test.shape[1], generator=records[arms[0], seed].streams["eval"]).argsort(-1)
            held = Held(train, test, order.to(test.device), seed)
            for arm in arms:
                net = nets[NETWORK[arm], seed] if arm in NETWORK else None
                yield arm, seed, measure(arm, net, held, settings, records[arm, seed])


class ImageCompletion(_OnPixels):
    """log MSE over all pixels, as in the paper's table, at few, some and many pixels shown (4, 12 and 40 of 64 at
    quick; 10, 100 and 400 of 784 at full; 10, 100 and 1000 of 1024 in the paper); beside it, not counting, over pixels
    not shown, since the other one favours what interpolates.

    Crossing: below kNN and GP at few pixels, above both at many; all four count.  k is chosen by validation for each
    number of pixels, the kernel and its noise by the marginal likelihood of training pictures.  Rows that do not count:
    a GP around the mean picture, which has learnt as much of the training pictures as a mean can tell.
    The broken arm has the values of the context at each other's places.  What remains is the mean picture and its
    brightness, and this alone beats kNN and GP at few pixels, so these comparisons cannot show that the context is
    used.  It therefore stands for the network at *some* pixels, where two hypotheses count: below the mean picture by
    5 % (ln 1.05: three standard errors of the mean over pictures, and a tenth of what the paper's table gains from
    10 to 100 pixels), and below itself with ordered pixels.
    """

    name = "image_completion"
    statement = (
        "From few pixels a conditional neural process completes pictures better than nearest neighbours and a Gaussian "
        "process, from many it does worse; pixels in order are a harder context than random ones."
    )
    arms = (
        "cnp_few", "cnp_some", "cnp_many", "knn_few", "knn_some", "knn_many", "gp_few", "gp_some", "gp_many",
        "ordered_few", "ordered_some", "ordered_many", "gp_picture_few", "gp_picture_many", "mean", "permuted_few",
    )  # fmt: skip
    sabotaged = {"permuted_some": "cnp_some"}
    hypotheses = (
        Less("log_mse", "cnp_few", "knn_few"),
        Less("log_mse", "cnp_few", "gp_few"),
        Less("log_mse", "knn_many", "cnp_many"),
        Less("log_mse", "gp_many", "cnp_many"),
        Less("log_mse", "cnp_some", "mean", by=math.log(1.05)),
        Less("log_mse", "cnp_some", "ordered_some"),
        Less("log_mse", "cnp_few", "gp_picture_few", counts=False),
        Less("log_mse", "permuted_few", "knn_few", counts=False),
        Less("log_mse", "cnp_some", "gp_some", counts=False),
        Less("log_unseen", "cnp_few", "gp_few", counts=False),
        Less("log_unseen", "gp_many", "cnp_many", counts=False),
    )
    untried = (
        "Faces and colour, the paper's CelebA at 32×32, were not tried, nor networks of width 128 trained for its "
        "number of steps; convolutional neural processes, which fit pictures far better, are another paper."
    )


class ActiveContext(_OnPixels):
    """log MSE over all pixels of 300 pictures after 12 pixels (of 64; at full 40 of 784), which the network chose one
    after the other where its predictive variance was largest, or at random.

    The broken arm chooses by the same variances permuted among the pixels: they say how uncertain, but not where.
    """

    name = "active_context"
    statement = "Pixels chosen where the predictive variance is largest lower the error below as many random ones."
    arms = ("variance", "random")
    sabotaged = {"shuffled_variance": "variance"}
    hypotheses = (Less("log_mse", "variance", "random"), Less("log_unseen", "variance", "random", counts=False))
    untried = "Rules that look further than one pixel ahead, and other measures of uncertainty, were not tried."


class FlexibleConditioning(_OnPixels):
    """log MSE over all pixels with half of them shown: random ones, one half of the picture, the upper rows.

    Margin ln 2, a factor of two of the error of a network trained on that pattern alone, for as many steps.  A claim of
    parity has no broken arm; what guards it is that each of those networks must be better than the mean picture.
    """

    name = "flexible_conditioning"
    statement = (
        "One trained model takes contexts of any size and shape, with an error within a factor of two of models "
        "trained for one shape alone."
    )
    arms = ("mixed_random", "mixed_half", "mixed_ordered", "only_random", "only_half", "only_ordered")
    hypotheses = tuple(
        NotWorse("log_mse", f"mixed_{o}", f"only_{o}", math.log(2), maximise=False)
        for o in ("random", "half", "ordered")
    )
    preconditions = tuple(
        Precondition("gain_over_mean", f"only_{o}", at_least=0, why="a network for one pattern alone learnt nothing")
        for o in ("random", "half", "ordered")
    )
    untried = "Scattered blocks, single rows and other shapes of context were not tried."


@dataclass
class Held:
    """One seed's training pictures, those that are scored [m,n,c], a random order of pixels [m,n], GPs fitted."""

    train: Tensor
    pictures: Tensor
    order: Tensor
    seed: int
    processes: dict[str, Process] = field(default_factory=dict)

    def process(self, kind: str, settings: Pixels, generator: torch.Generator) -> Process:
        """The GP of this kind, fitted once."""
        if kind not in self.processes:
            self.processes[kind] = Process.fit(self.train, settings, kind == "gp_picture", generator)
        return self.processes[kind]


def measure(arm: str, net: CNP | None, of: Held, settings: Pixels, record: Recorder) -> Metrics:
    """What one arm makes of the held-out pictures."""
    kind, _, amount = arm.rpartition("_")
    train, held, order = of.train, of.pictures, of.order
    n = dict(zip(AMOUNTS, settings.contexts)).get(amount, held.shape[1] // 2)
    if arm in ("variance", "random", "shuffled_variance"):
        assert net is not None
        held = held[: settings.asked[0]]
        rows = ask(arm, net, held, settings, record)
    elif kind == "ordered" or arm in ("mixed_ordered", "only_ordered"):
        rows = torch.arange(n, device=held.device).expand(len(held), -1)
    elif arm in ("mixed_half", "only_half"):
        rows, _ = sample_context(len(held), (settings.size,) * 2, n, n, "half", record.streams["noise"])
        rows = rows.to(held.device)
    else:
        rows = order[:, :n]
    shown = held
    if kind == "permuted":
        shuffle = torch.rand(rows.shape, generator=record.streams["noise"]).argsort(-1).to(rows.device)
        shown = held.scatter(1, rows[..., None].expand(*rows.shape, held.shape[-1]), take(take(held, rows), shuffle))
    if arm == "mean":
        found = train.mean(0).expand_as(held)
    elif kind == "knn":
        neighbours = Neighbours.fit(train, n, settings.size, record.streams["noise"])
        record.note(f"{neighbours.k} neighbours, by validation")
        found = neighbours.complete(rows, held)
    elif kind in ("gp", "gp_picture"):
        found = of.process(kind, settings, record.streams["noise"]).complete(rows, held)
    else:
        assert net is not None
        found = complete(net, rows, shown, settings.size)
    if of.seed < PICTURED:
        record.image("completed", _sheet(held[:8], rows[:8], found[:8], settings.size))
    error = (found - held).square().mean(-1)
    unseen = torch.ones_like(error).scatter(1, rows, 0.0) if arm != "mean" else torch.ones_like(error)
    return {
        "log_mse": log_mse(found, held), "log_unseen": math.log(float((error * unseen).sum() / unseen.sum())),
        "gain_over_mean": log_mse(train.mean(0).expand_as(held), held) - log_mse(found, held),
    }  # fmt: skip


def ask(rule: str, net: CNP, held: Tensor, settings: Pixels, record: Recorder) -> Tensor:
    """The pixels that each picture is asked for, in turn."""
    grid = coordinate_grid((settings.size,) * 2, device=held.device)

    def predict(rows: Tensor) -> Any:
        return net(grid[rows], take(held, rows), grid.expand(len(held), -1, -1))

    return acquire(
        predict, len(held), held.shape[1], settings.asked[1], "random" if rule == "random" else "variance",
        record.streams["noise"], permute=rule == "shuffled_variance", start=torch.empty(len(held), 0, dtype=torch.long,
                                                                                       device=held.device),
    )  # fmt: skip


def _sheet(held: Tensor, rows: Tensor, found: Tensor, size: int) -> Tensor:
    """[c, …]: pictures, what is shown of them on mid-grey, and what was made of it."""
    shown = torch.full_like(held, 0.5).scatter(1, rows[..., None].expand(*rows.shape, held.shape[-1]), take(held, rows))
    sheet = torch.stack([held, shown, found.clamp(0, 1)]).unflatten(2, (size, size)).permute(4, 0, 2, 1, 3)
    grow = max(1, 64 // size)
    return sheet.reshape(sheet.shape[0], 3 * size, -1).repeat_interleave(grow, 1).repeat_interleave(grow, 2)
