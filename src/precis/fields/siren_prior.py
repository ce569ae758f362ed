"""A prior over functions: a set of samples to a code, a code to the weights of a SIREN.

    z = mean_i E(x_i, y_i),    θ = H(z),    Φ_θ(x),
    L = mean (Φ_θ(x) − y)² + 0.1 mean z² + 100 mean θ²

E is a sine perceptron, H one ReLU perceptron for each weight tensor of Φ.  Any number of samples of a picture, in
any order, gives a picture of any resolution.  Sitzmann et al., NeurIPS 2020, §4.4 and the released code (2006.09661).
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from precis.fields.neural_process import SetEncoder
from precis.fields.siren import CoordinateMLP, _single
from precis.fields.siren_fit import to_values, train
from precis.nn.stacked import StackedLinear
from precis.train.loop import Run, index_batches

Number = float | int


class HyperNetwork(nn.Module):
    """A code [B,latent] to the weights of B SIRENs: one ReLU perceptron for each weight and bias of `target`.

    The last layer starts with Kaiming weights / 100 and a bias of U(±1/fan-in of the SIREN layer) for a weight,
    U(±1/width) for a bias, so that all codes start from nearly the same, small SIREN.  `hidden_layers` counts
    hidden-to-hidden layers, 1 in the code.  The hidden layers of all perceptrons run as one stack.
    """

    def __init__(
        self, latent: int, target: CoordinateMLP, width: int = 256, hidden_layers: int = 1, *,
        generator: torch.Generator | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        if target.encoding is not None or target.activation != "sine":
            raise ValueError("a hypernetwork's target is a Siren")
        if generator is None:
            generator = torch.Generator().manual_seed(int(torch.randint(1 << 31, ())))
        layers: list[Any] = list(target.layers)
        self.latent, self.in_dim, self.out_dim = latent, target.in_dim, target.out_dim
        self.scales = tuple(layer.scale for layer in layers)
        self.outermost_linear = target.outermost_linear
        self.shapes = [shape for layer in layers for shape in (tuple(layer.weight.T.shape), tuple(layer.bias.shape))]
        heads = len(self.shapes)
        self.trunk = nn.ModuleList(
            StackedLinear(heads, a, width, init="kaiming", bias_init="torch", generators=[generator] * heads)
            for a in [latent, *[width] * hidden_layers]
        )
        self.heads = nn.ModuleList()
        for i, shape in enumerate(self.shapes):
            head = _single(width, math.prod(shape), 1.0, "kaiming", 1, generator)
            bound = 1 / (width if i % 2 else shape[0])
            with torch.no_grad():
                head.weight /= 100
                head.bias.uniform_(-bound, bound, generator=generator)
            self.heads.append(head)

    def forward(self, z: Float[Tensor, "b latent"]) -> list[Float[Tensor, "b ..."]]:
        """Weights [B,in,out] and biases [B,1,out] of the SIREN's layers, in turn."""
        h = z
        for layer in self.trunk:
            h = layer(h).relu()
        out = [head(one) for head, one in zip(self.heads, h)]
        return [
            theta.unflatten(-1, shape) if len(shape) == 2 else theta.unsqueeze(-2)
            for theta, shape in zip(out, self.shapes)
        ]

    def evaluate(self, theta: list[Tensor], x: Float[Tensor, "*b m d"]) -> Float[Tensor, "b m o"]:
        """The B SIRENs of weights theta at x [B,m,d], or [m,d] for all."""
        h = x if x.ndim == 3 else x.expand(len(theta[0]), *x.shape)
        last = len(self.scales) - 1
        for i, scale in enumerate(self.scales):
            h = torch.baddbmm(theta[2 * i + 1], h, theta[2 * i], beta=scale, alpha=scale)
            if i < last or not self.outermost_linear:
                h = h.sin()
        return h


class SirenPrior(nn.Module):
    """Context samples in, function out: `prior(ctx_x [B,n,dx], ctx_y [B,n,c], x, mask [B,n]) -> [B,m,c]`.

    The code's encoder is `SetEncoder(dx + c, 256, (256, 256, 256), "sine", last_activation=True)`.
    """

    code_mean: Tensor
    code_factor: Tensor
    encoder: Any
    hyper: Any

    def __init__(self, encoder: SetEncoder, hyper: HyperNetwork) -> None:
        super().__init__()
        self.encoder, self.hyper = encoder, hyper
        latent = hyper.latent
        self.register_buffer("code_mean", torch.zeros(latent))
        self.register_buffer("code_factor", torch.zeros(latent, latent))

    def forward(
        self, ctx_x: Float[Tensor, "b n dx"], ctx_y: Float[Tensor, "b n c"], x: Float[Tensor, "*b m dx"],
        mask: Bool[Tensor, "b n"] | None = None,
    ) -> Float[Tensor, "b m c"]:  # fmt: skip
        return self.decode(self.encoder(ctx_x, ctx_y, mask), x)

    def decode(self, z: Float[Tensor, "b latent"], x: Float[Tensor, "*b m dx"]) -> Float[Tensor, "b m c"]:
        """The functions of codes z at x [B,m,dx], or [m,dx] for all."""
        return self.hyper.evaluate(self.hyper(z), x)

    def loss(
        self, ctx_x: Float[Tensor, "b n dx"], ctx_y: Float[Tensor, "b n c"], x: Float[Tensor, "*b m dx"],
        y: Float[Tensor, "b m c"], mask: Bool[Tensor, "b n"] | None = None, *, code_weight: Number = 0.1,
        weight_weight: Number = 100.0,
    ) -> dict[str, Float[Tensor, ""]]:  # fmt: skip
        """The loss and its first term, "mse"."""
        z = self.encoder(ctx_x, ctx_y, mask)
        theta = self.hyper(z)
        mse = F.mse_loss(self.hyper.evaluate(theta, x), y)
        # The code sums squares over the whole batch and divides by the number of weights of the batch.
        square = sum(t.square().sum() for t in theta) / sum(t.numel() for t in theta)
        return {"loss": mse + code_weight * z.square().mean() + weight_weight * square, "mse": mse.detach()}

    @torch.no_grad()
    def fit_codes(self, codes: Float[Tensor, "n latent"]) -> None:
        """Fit the density that `sample` draws from, N(mean, Ledoit–Wolf covariance), to the codes of training pictures.

        The loss pulls codes to 0 but fits no density; the Gaussian is a choice of ours.
        """
        from sklearn.covariance import LedoitWolf

        if len(codes) < 2:
            raise ValueError(f"a density of codes needs at least 2 of them, got {len(codes)}")
        covariance = torch.from_numpy(LedoitWolf().fit(codes.detach().double().cpu().numpy()).covariance_)
        values, vectors = torch.linalg.eigh(covariance)
        self.code_mean.copy_(codes.mean(0))
        self.code_factor.copy_(vectors * values.clamp(min=0).sqrt())

    @torch.no_grad()
    def sample(self, n: int, generator: torch.Generator) -> Callable[[Tensor], Tensor]:
        """Draw n functions f(x [m,d]) -> [n,m,c] first, and their values at any points afterwards.

        Raises ValueError before `fit_codes`.
        """
        if not bool(self.code_factor.any()):
            raise ValueError("no density of codes yet: call fit_codes with the codes of pictures first")
        noise = torch.randn(n, len(self.code_mean), generator=generator, device=generator.device)
        theta = self.hyper(self.code_mean + noise.to(self.code_mean) @ self.code_factor.T)
        return torch.no_grad()(lambda x: self.hyper.evaluate(theta, x))


def random_context(
    batch: int, n: int, low: int, high: int, generator: torch.Generator
) -> tuple[Tensor, Bool[Tensor, "b high"]]:
    """Row numbers [B,high] of a random context for each picture (no row twice), and a mask of low … high of them.

    One number of context rows a batch, as in the code.
    """
    if not 1 <= low <= high <= n:
        raise ValueError(f"a context needs 1 <= low <= high <= {n} rows, got {low} and {high}")
    draw = torch.rand(batch, n, generator=generator, device=generator.device)
    count = int(torch.randint(low, high + 1, (), generator=generator, device=generator.device))
    mask = torch.arange(high, device=generator.device) < count
    return draw.topk(high).indices, mask.expand(batch, high)


def fit_prior(
    prior: SirenPrior, images: Float[Tensor, "n c h w"], *, generator: torch.Generator, batch: int = 100,
    context: tuple[int, int] = (10, 200), permute_context: bool = False, lr: Number = 5e-5, clip: Number | None = 1.0,
    code_weight: Number = 0.1, weight_weight: Number = 100.0, **options: Any,
) -> Run:  # fmt: skip
    """Train a prior on pictures in [0, 1] of one size, then fit the density of their codes (whole pictures as context).

    context: the least and the most pixels that are shown; permute_context: show them at each other's places (a control:
    nothing can be learnt of where things are).
    """
    pairs = [to_values(image) for image in images]
    grid, values = pairs[0][0], torch.stack([y for _, y in pairs])
    low, high = context

    def step(rows: Tensor) -> dict[str, Tensor]:
        y = values[rows.to(values.device)]
        where, mask = (t.to(values.device) for t in random_context(len(y), len(grid), low, high, generator))
        shown = torch.gather(y, 1, where[..., None].expand(-1, -1, y.shape[-1]))
        if permute_context:
            key = torch.rand(mask.shape, generator=generator, device=generator.device).to(mask.device) + 2 * ~mask
            shown = torch.gather(shown, 1, key.argsort(1)[..., None].expand_as(shown))
        weights = dict(code_weight=code_weight, weight_weight=weight_weight)
        return prior.loss(grid[where], shown, grid, y, mask, **weights)

    batches = index_batches(len(values), min(batch, len(values)), generator, drop_last=True)
    run = train(prior, step, batches, lr=lr, clip=clip, keep={"generator": generator}, **options)
    prior.fit_codes(encode_images(prior, images))
    return run


@torch.no_grad()
def encode_images(prior: SirenPrior, images: Float[Tensor, "n c h w"], rows: int = 256) -> Float[Tensor, "n latent"]:
    """Codes of pictures in [0, 1], all their pixels shown."""
    codes = []
    for part in images.split(rows):
        pairs = [to_values(image) for image in part]
        codes.append(prior.encoder(torch.stack([x for x, _ in pairs]), torch.stack([y for _, y in pairs])))
    return torch.cat(codes)
