"""How the claims train: several seeds of a net in one pass, with the noise of each seed from its own stream."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from precis.lab.claim import Recorder
from precis.lab.trial import streams
from precis.nn.backbones import backbone
from precis.papers.pools import Pool, Split
from precis.sparsity.variational_dropout import bound, given_noise, kl_ramp, variational_layers, variationalize
from precis.sparsity.variational_dropout_kl import Kind
from precis.train.feed import index_batches
from precis.train.loop import Budget
from precis.train.many import Many, ManyAdam, fit_many

from .digits import Setting, splits


@dataclass(frozen=True)
class Arm:
    """How an arm trains.  noise: of the weights, by binary dropout, or none.  kl: times the ramp.

    log_sigma2: at the start.  start: the highest log α then, if one is set.  clip: the bound on log α after every step.
    """

    noise: Literal["weights", "dropout", ""] = "weights"
    parametrization: Literal["additive", "multiplicative"] = "additive"
    kind: Kind = "sigmoid"
    kl: float = 1.0
    log_sigma2: float = -10.0
    start: float | None = None
    clip: float | None = None


SPARSE = Arm()
ARMS = {
    "sparse": SPARSE,
    "dense": Arm(noise=""),
    "dropout": Arm(noise="dropout"),
    "original": Arm(parametrization="multiplicative", kind="kingma", log_sigma2=float("inf"), start=-3.0, clip=0.0),
    "sparse_without_kl": Arm(kl=0.0),
    "additive": SPARSE,
    "multiplicative": Arm(parametrization="multiplicative"),
}


class Net(nn.Module):
    """A backbone of an arm's kind, its first weights as `Setting.first` says; `loss` takes the noise of a step."""

    def __init__(
        self, arm: Arm, spec: str, pool: Pool, n_train: int, generator: torch.Generator,
        first: Literal["he", "paper"] = "he",
    ) -> None:  # fmt: skip
        super().__init__()
        self.arm, self.n_train = arm, n_train
        self.net: Any = backbone(spec, pool.images.shape[1:], pool.classes, generator=generator)
        for layer in self.net.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                if first == "he":
                    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
                elif isinstance(layer, nn.Linear):
                    nn.init.normal_(layer.weight, 0.0, 0.01, generator=generator)
                else:
                    nn.init.xavier_uniform_(layer.weight, generator=generator)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        if arm.noise == "weights":
            variationalize(self.net, log_sigma2=arm.log_sigma2, max_log_alpha=arm.start, clip=arm.clip,
                           parametrization=arm.parametrization)  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)  # type: ignore[no-any-return]

    def loss(self, x: Tensor, y: Tensor, kl_weight: Tensor, *noise: Tensor) -> dict[str, Tensor]:
        """Noise of weights: one tensor a layer; of dropout: uniform numbers for every hidden layer."""
        if self.arm.noise == "weights":
            with given_noise(self.net, noise):
                logits = self.net(x)
            found = bound(logits, y, self.net, n_train=self.n_train, kl_weight=kl_weight, kind=self.arm.kind)
            return found._asdict()
        if self.arm.noise == "dropout":
            h = self.net.input(x).flatten(1)
            for layer, uniform in zip(self.net.layers, noise):
                h = F.relu(layer(h)) * 2 * (uniform < 0.5)
            return {"loss": F.cross_entropy(self.net.head(h), y)}
        return {"loss": F.cross_entropy(self.net(x), y)}


def train(
    arm: Arm, settings: Setting, pool: Pool, seeds: Sequence[int], record: Recorder, *, permuted: bool = False,
    spec: str | None = None,
) -> tuple[Many, Split]:  # fmt: skip
    """The nets of all seeds by Adam.  Pictures, their order and first weights of a seed are the same for every arm."""
    data = splits(pool, settings, seeds, record.device, permuted)
    drawn = {seed: streams(seed) for seed in seeds}
    n = data.x.shape[1]
    build = lambda generator: Net(arm, spec or settings.net, pool, n, generator, settings.first).to(record.device)
    hold = settings.hold if spec is None else settings.second_hold
    shapes = _noise_shapes(build(torch.Generator()), data.x[0, :1])
    size = min(settings.batch, n)
    feeds = [_endless(index_batches(n, size, drawn[seed]["eval"], drop_last=True)) for seed in seeds]
    rows = torch.arange(len(seeds), device=data.x.device)[:, None]

    def batch(k: int, _: Any) -> tuple[Tensor, ...]:
        chosen = torch.stack([next(feed) for feed in feeds]).to(data.x.device)
        kl_weight = arm.kl * kl_ramp(k / settings.steps, *settings.ramp)
        draw = torch.rand if arm.noise == "dropout" else torch.randn
        one = lambda shape: torch.stack([draw(size, *shape, generator=drawn[seed]["noise"]) for seed in seeds])
        noise = [one(shape) for shape in shapes]
        return (data.x[rows, chosen], data.y[rows, chosen], torch.full((len(seeds),), kl_weight, device=data.x.device),
                *(t.to(data.x.device) for t in noise))  # fmt: skip

    names = [name for name, _ in build(torch.Generator()).named_parameters()]
    many = fit_many(
        lambda seed: build(drawn[seed]["init"]), seeds, batch, lambda model, given: model.loss(*given),
        budget=Budget(steps=settings.steps), lr=settings.lr, schedule=partial(hold_then_fall, hold),
        optimizer=ManyAdam if arm.clip is None else partial(_clipped, names, arm.clip), log=record.log,
    )  # fmt: skip
    return many, data


def hold_then_fall(hold: float, progress: float) -> float:
    """1 up to `hold`, then linearly to 0."""
    return min(1.0, (1 - progress) / (1 - hold))


def _clipped(names: Sequence[str], highest: float, params: list[Tensor], lr: Any) -> ManyAdam:
    """Adam that puts log α back below `highest` after every step."""
    solver = ManyAdam(params, lr=lr)
    spreads = [p for name, p in zip(names, params, strict=True) if name.endswith("spread")]

    def put_back(*_: Any) -> None:
        with torch.no_grad():
            for p in spreads:
                p.clamp_(max=highest)

    solver.register_step_post_hook(put_back)
    return solver


def _endless(feed: Any) -> Iterator[Tensor]:
    while True:
        yield from feed


def _noise_shapes(net: Net, x: Tensor) -> list[tuple[int, ...]]:
    """What a step's noise looks like, without the batch."""
    if net.arm.noise == "dropout":
        return [(layer.out_features,) for layer in net.net.layers]
    shapes: list[tuple[int, ...]] = []
    keep: Callable[..., None] = lambda layer, given, output: shapes.append(tuple(output.shape[1:]))
    hooks = [layer.register_forward_hook(keep) for _, layer in variational_layers(net.net)]
    with torch.no_grad():
        net.eval()(x)
    for hook in hooks:
        hook.remove()
    return shapes
