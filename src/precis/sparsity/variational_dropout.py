"""Sparse variational dropout: a noise variance for every weight, learned; where it is large the weight is removed.

    q(w_ij) = N(θ_ij, σ²_ij),  σ² = αθ²,  log α = clip(log σ² − log(θ² + 10⁻⁸), −8, 8)
    y = μ + √(v + 10⁻⁸) ε,   μ = x ∗ θ + b,   v = x² ∗ (αθ²),   ε ~ N(0,1) an output     (local reparametrisation)
    loss = mean cross-entropy + λ/N Σ D_KL(log α)

θ and log σ² are the parameters ("additive"): inside the clip v does not depend on θ, so the noise is gone from the
gradient of θ.  A weight with log α ≥ 3 is left out of μ: in evaluation, which is deterministic, and with `train_clip`
in training too; there v keeps it, so that it may return.
Molchanov, Ashukha, Vetrov, ICML 2017, §4 (arXiv 1701.05369); Kingma, Salimans, Welling 2015 for "multiplicative".

>>> _ = torch.manual_seed(0)
>>> layer = VariationalLinear(3, 2, log_sigma2=-4.0)
>>> with torch.no_grad():
...     _ = layer.weight.copy_(torch.tensor([[1.0, 0.02, -0.5], [0.01, 2.0, 0.3]]))
>>> layer.log_alpha.detach()                                  # log σ² − log θ²
tensor([[-4.0000,  3.8240, -2.6137],
        [ 5.2102, -5.3863, -1.5921]])
>>> layer.mask()                                              # log α < 3
tensor([[ True, False,  True],
        [False,  True,  True]])
>>> x = torch.tensor([[1.0, 1.0, 2.0]])
>>> layer.noise_variance(x).detach() * torch.e**4              # Σ x² in units of σ²: 1 + 1 + 4
tensor([[6.0000, 5.9999]])
>>> layer.eval()(x).detach()                                  # 1 − 0.5·2 and 2 + 0.3·2, and no noise
tensor([[0.0000, 2.6000]])
"""

import copy
import fnmatch
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from precis.nn.layers import drawn_from
from precis.sparsity.masks import LayerSparsity, Masks, layer_sparsity
from precis.sparsity.variational_dropout_fused import TINY, Form, Step, fused_serves
from precis.sparsity.variational_dropout_kl import Kind, kl_divergence

Number = int | float
CLIP = 8.0


class Variational(nn.Module):
    """What the layers share.  Each is also torch's layer of its kind, whose arguments come first; `weight` is θ.

    log_sigma2: where log σ² starts.  threshold: of log α, from which on a weight is removed.  train_clip: in training
    too.  parametrization: "additive" learns log σ², "multiplicative" log α (`spread` in either case).  max_log_alpha: a
    bound on log α (the original algorithm needs 0), kept by `clip_log_alpha_` after every step.  `generator` draws the
    first weights, and the noise later.
    """

    weight: nn.Parameter
    bias: nn.Parameter | None

    def __init__(
        self, *shape: Any, log_sigma2: Number = -10.0, threshold: Number = 3.0, train_clip: bool = True,
        parametrization: Literal["additive", "multiplicative"] = "additive", max_log_alpha: Number | None = None,
        generator: torch.Generator | None = None, **more: Any,
    ) -> None:  # fmt: skip
        if parametrization not in ("additive", "multiplicative"):
            raise ValueError(f"parametrization must be additive or multiplicative, got {parametrization!r}")
        with drawn_from(generator):
            super().__init__(*shape, **more)
        self.threshold, self.train_clip, self.max_log_alpha = float(threshold), train_clip, max_log_alpha
        self.parametrization, self.generator = parametrization, generator
        self.noise: Tensor | None = None
        self._known: Any = None
        self.draw(generator)
        if self.bias is not None:
            nn.init.zeros_(self.bias)
        start = torch.full_like(self.weight, float(log_sigma2)).detach()
        self.spread = nn.Parameter(start if self.additive else start - log_square(self.weight.detach()))

    @property
    def additive(self) -> bool:
        return self.parametrization == "additive"

    @property
    def log_alpha(self) -> Tensor:
        """log α, clipped to ±8, like the weight."""
        value = self.spread - log_square(self.weight) if self.additive else self.spread
        return value.clamp(*self._clip())

    def mask(self, threshold: Number | None = None) -> Bool[Tensor, "*w"]:
        """Which weights stay: log α below the threshold."""
        return self.log_alpha.detach() < (self.threshold if threshold is None else threshold)

    def mean(self, threshold: Number | None = None) -> Float[Tensor, "*w"]:
        """The weights that evaluation uses: θ, and 0 where it is removed."""
        return torch.where(self.mask(threshold), self.weight, 0.0)

    def noise_variance(self, x: Float[Tensor, "*batch"]) -> Float[Tensor, "*out"]:
        """v: the variance of each output over the noise."""
        return self.product(x.square(), self.log_alpha.exp() * self.weight.square(), None)

    def forward(self, x: Float[Tensor, "*batch"]) -> Float[Tensor, "*out"]:
        """In training ε is `self.noise` (see `given_noise`), else drawn from `generator` (None: torch's global one)."""
        if not self.training:
            return self.product(x, self.mean(), self.bias)
        mean_weight, variance_weight = self._training_weights()
        mean = self.product(x, mean_weight, self.bias)
        variance = self.product(x.square(), variance_weight, None)
        noise = self.noise if self.noise is not None else _normal_like(mean, self.generator)
        return torch.addcmul(mean, (variance + TINY).sqrt(), noise)

    def divergence(self, kind: Kind = "sigmoid") -> Float[Tensor, ""]:
        """Σ D_KL over the weights; right after a forward pass in training, at no cost."""
        known, self._known = self._known, None
        if kind == "sigmoid" and known is not None and known[1:] == self._state():
            return known[0]  # type: ignore[no-any-return]
        return kl_divergence(self.log_alpha, kind).sum()

    def _training_weights(self) -> tuple[Tensor, Tensor]:
        """Weights of the mean and of the variance: θ, masked in training too if `train_clip`, and αθ²."""
        if fused_serves(self.weight):
            form = Form(self.additive, self.threshold if self.train_clip else float("inf"), *self._clip())
            mean, variance, known = Step.apply(self.weight, self.spread, form, 0)
            self._known = (known[0], *self._state()) if torch.is_grad_enabled() else None
            return mean, variance
        log_alpha = self.log_alpha
        mean = torch.where(log_alpha < self.threshold, self.weight, 0.0) if self.train_clip else self.weight
        return mean, log_alpha.exp() * self.weight.square()

    def _clip(self) -> tuple[float, float]:
        return -CLIP, CLIP if self.max_log_alpha is None else min(CLIP, self.max_log_alpha)

    def _state(self) -> tuple[Any, ...]:
        """What a known divergence belongs to."""
        return id(self.weight), id(self.spread), self.weight._version, self.spread._version

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_known": None}

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """x ∗ weight + bias."""
        raise NotImplementedError

    def draw(self, generator: torch.Generator | None) -> None:
        """The first θ."""
        nn.init.xavier_uniform_(self.weight, generator=generator)


class VariationalLinear(Variational, nn.Linear):  # type: ignore[misc]
    """x [*,in] to [*,out]: VariationalLinear(in, out, bias=True, *, options of `Variational`).  θ ~ N(0, 0.01²)."""

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return F.linear(x, weight, bias)

    def draw(self, generator: torch.Generator | None) -> None:
        nn.init.normal_(self.weight, 0.0, 0.01, generator=generator)


class VariationalConv1d(Variational, nn.Conv1d):  # type: ignore[misc]
    """x [B,in,L] to [B,out,L']: arguments as torch's, then options of `Variational`.  θ is Glorot uniform."""

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self._conv_forward(x, weight, bias)


class VariationalConv2d(Variational, nn.Conv2d):  # type: ignore[misc]
    """x [B,in,H,W] to [B,out,H',W']: arguments as torch's, then options of `Variational`.  θ is Glorot uniform."""

    def product(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return self._conv_forward(x, weight, bias)


LAYERS: dict[type[nn.Module], type[Any]] = {
    nn.Linear: VariationalLinear, nn.Conv1d: VariationalConv1d, nn.Conv2d: VariationalConv2d,
}  # fmt: skip
READ_ELSEWHERE = (nn.MultiheadAttention, nn.TransformerEncoderLayer)  # these use their layers' weights, not their calls


class Bound(NamedTuple):
    """loss = nll + λ kl / N: mean cross-entropy in nats, and the sum of D_KL over weights."""

    loss: Float[Tensor, ""]
    nll: Float[Tensor, ""]
    kl: Float[Tensor, ""]


def bound(
    logits: Float[Tensor, "b k"], targets: Int[Tensor, "b"], model: nn.Module, *, n_train: int,
    kl_weight: Number | Tensor = 1.0, kind: Kind = "sigmoid",
) -> Bound:  # fmt: skip
    """The negative variational bound an example, of a model in training mode; `n_train` is N, the training set's size.

    ValueError if N is not positive.  N matters: with a mean cross-entropy and a KL that is not divided by N everything
    is removed.
    """
    if n_train < 1:
        raise ValueError(f"n_train is the size of the training set, got {n_train}")
    nll, kl = F.cross_entropy(logits, targets), model_kl(model, kind)
    return Bound(nll + kl_weight * kl / n_train, nll, kl)


def model_kl(model: nn.Module, kind: Kind = "sigmoid") -> Float[Tensor, ""]:
    """Σ D_KL over all weights of all variational layers; ValueError if there are none."""
    parts = [layer.divergence(kind) for _, layer in variational_layers(model)]
    if not parts:
        raise ValueError("the model has no variational layer")
    return torch.stack(parts).sum()


def kl_ramp(epoch: Number, start: Number = 5, end: Number = 20) -> float:
    """λ: 0 up to `start`, then in proportion up to 1 at `end` (of epochs, or of any other measure of progress)."""
    return min(max((epoch - start) / (end - start), 0.0), 1.0)


def variational_layers(model: nn.Module) -> list[tuple[str, Variational]]:
    """(name, layer) of every variational layer, each once."""
    return [(name, module) for name, module in model.named_modules() if isinstance(module, Variational)]


def variationalize(
    model: nn.Module, include: Sequence[str] = ("*",), exclude: Sequence[str] = (), *, log_sigma2: Number = -10.0,
    max_log_alpha: Number | None = -3.0, clip: Number | None = None, threshold: Number = 3.0, train_clip: bool = True,
    parametrization: Literal["additive", "multiplicative"] = "additive", generator: torch.Generator | None = None,
) -> nn.Module:  # fmt: skip
    """Replace every Linear, Conv1d and Conv2d of `model`, in place, its weights copied; returns it.

    include, exclude: patterns of layer names, such as "features.*".  log σ² starts at `log_sigma2`, lower where log α
    would exceed `max_log_alpha`, so that nothing of a trained model is removed at step 0 (None: no such limit;
    log_sigma2=inf starts every weight at max_log_alpha).  clip: the layers' `max_log_alpha`.

    Left as they are: layers inside torch's attention and encoder layers, which read the weights past the layer; weights
    shared with another module; subclasses that compute otherwise.  A layer registered twice is replaced once and stays
    shared.
    """
    shared = _shared_weights(model)
    made: dict[nn.Module, nn.Module] = {}
    for name, old in list(model.named_modules(remove_duplicate=False)):
        if type(old) not in LAYERS or id(old.weight) in shared or not _matches(name, include, exclude):
            continue
        if any(isinstance(model.get_submodule(above), READ_ELSEWHERE) for above in _ancestors(name)):
            continue
        if old not in made:
            made[old] = _like(old, log_sigma2, max_log_alpha, threshold=threshold, train_clip=train_clip,
                              parametrization=parametrization, max_log_alpha=clip, generator=generator)  # fmt: skip
        if not name:
            return made[old]
        parent, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(parent), leaf, made[old])
    return model


def threshold_masks(model: nn.Module, threshold: Number | None = None) -> Masks:
    """Which weights stay, by parameter name, at each layer's own threshold or at this one."""
    return {f"{name}.weight" if name else "weight": layer.mask(threshold) for name, layer in variational_layers(model)}


def to_dense(model: nn.Module, threshold: Number | None = None) -> nn.Module:
    """A copy with torch's layers, and zeros where weights are removed: its evaluation is the model's, bit for bit."""
    made: dict[nn.Module, nn.Module] = {}
    twin = copy.deepcopy(model)
    for name, layer in list(twin.named_modules(remove_duplicate=False)):
        if not isinstance(layer, Variational):
            continue
        if layer not in made:
            with torch.no_grad():
                layer.weight.copy_(layer.mean(threshold))
            made[layer] = _dense(layer)
        if not name:
            return made[layer]
        parent, _, leaf = name.rpartition(".")
        setattr(twin.get_submodule(parent), leaf, made[layer])
    return twin


def sparsity(model: nn.Module, threshold: Number | None = None) -> list[LayerSparsity]:
    """How many weights of each variational layer stay."""
    return layer_sparsity(threshold_masks(model, threshold))


@torch.no_grad()
def clip_log_alpha_(model: nn.Module) -> None:
    """Put log α back to each layer's `max_log_alpha`, in place; for after every step of the original algorithm."""
    for _, layer in variational_layers(model):
        if layer.max_log_alpha is not None:
            base = log_square(layer.weight) if layer.additive else torch.zeros_like(layer.weight)
            layer.spread.copy_(torch.minimum(layer.spread, base + layer.max_log_alpha))


def set_generator(model: nn.Module, generator: torch.Generator | None) -> nn.Module:
    """Let every variational layer draw its noise from `generator`; returns the model."""
    for _, layer in variational_layers(model):
        layer.generator = generator
    return model


@contextmanager
def given_noise(model: nn.Module, noise: Sequence[Tensor]) -> Iterator[None]:
    """Inside, the layers use these ε, one tensor a layer in the order of `variational_layers`, instead of drawing."""
    layers = [layer for _, layer in variational_layers(model)]
    if len(layers) != len(noise):
        raise ValueError(f"{len(layers)} variational layers need as many tensors of noise, got {len(noise)}")
    try:
        for layer, one in zip(layers, noise):
            layer.noise = one
        yield
    finally:
        for layer in layers:
            layer.noise = None


def log_square(weight: Tensor) -> Tensor:
    return (weight.square() + TINY).log()


def _normal_like(x: Tensor, generator: torch.Generator | None) -> Tensor:
    if generator is None or generator.device == x.device:
        return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=x.device)
    return torch.randn(x.shape, generator=generator, dtype=x.dtype, device=generator.device).to(x.device)


def _arguments(layer: Any) -> tuple[Any, ...]:
    """What torch's layer of this shape is made with."""
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features, bias
    return (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation,
            layer.groups, bias, layer.padding_mode)  # fmt: skip


def _like(old: Any, log_sigma2: Number, highest: Number | None, **options: Any) -> nn.Module:
    """A variational layer in the place of `old`, with its parameters, device, type and mode."""
    new = LAYERS[type(old)](*_arguments(old), **options).to(old.weight.device, old.weight.dtype)
    with torch.no_grad():
        new.weight, new.bias = old.weight, old.bias
        square = log_square(old.weight)
        log_alpha = log_sigma2 - square
        if highest is not None:
            log_alpha = log_alpha.clamp(max=highest)
        new.spread.copy_(log_alpha + square if new.additive else log_alpha)
    return new.train(old.training)  # type: ignore[no-any-return]


def _dense(layer: Any) -> nn.Module:
    """torch's layer with the parameters of `layer`."""
    kind = next(plain for plain, variational in LAYERS.items() if type(layer) is variational)
    plain: Any = nn.utils.skip_init(kind, *_arguments(layer))
    plain.weight, plain.bias = layer.weight, layer.bias
    return plain.train(layer.training)  # type: ignore[no-any-return]


def _matches(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    fits = lambda patterns: any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
    return fits(include) and not fits(exclude)


def _ancestors(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(len(parts))]


def _shared_weights(model: nn.Module) -> set[int]:
    """Parameters that two modules hold."""
    seen: set[int] = set()
    twice: set[int] = set()
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            (twice if id(parameter) in seen else seen).add(id(parameter))
    return twice
