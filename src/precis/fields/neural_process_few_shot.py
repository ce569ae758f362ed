"""Few-shot classification by a conditional neural process: a mean code for each class, concatenated.

    e = h(image),   r = [r_1; …; r_K],  r_k = mean of e over the examples of class k,   p(k | image*) = softmax g(e*, r)

The classes keep one order within an episode and have a random one in each, so that the head cannot learn classes by
heart.  Garnelo et al., ICML 2018, §4.3 (arXiv 1807.01613).
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.distributions import Categorical


class ConvEmbed(nn.Module):
    """Pictures [N,C,S,S] to codes [N,width·2]: 3×3 convolutions and ReLU, twice as wide after the first, halved until 4
    pixels or fewer are left a side, then a linear layer whose outputs are normalised (else a query differs from the
    examples by too little, at first, for a head of two layers to notice)."""

    def __init__(self, channels: int, size: int, width: int = 32, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.out_dim = 2 * width
        blocks: list[nn.Module] = []
        while size > 4 or not blocks:
            conv = nn.utils.skip_init(nn.Conv2d, channels, width, 3, stride=2, padding=1)
            _draw(conv, channels * 9, generator)
            blocks += [conv, nn.ReLU()]
            channels, width, size = width, self.out_dim, (size + 1) // 2
        linear = nn.utils.skip_init(nn.Linear, channels * size * size, self.out_dim)
        _draw(linear, channels * size * size, generator)
        self.layers = nn.Sequential(
            *blocks, nn.Flatten(), linear, nn.LayerNorm(self.out_dim, elementwise_affine=False)
        )

    def forward(self, x: Float[Tensor, "n c s s"]) -> Float[Tensor, "n d"]:
        return self.layers(x)


class FewShotCNP(nn.Module):
    """K classes with S examples each, and queries: `forward(support [B,K,S,C,H,W], query [B,Q,C,H,W]) -> Categorical`
    of logits [B,Q,K].

    embed: pictures [N,C,H,W] -> [N,embed.out_dim].  The head g is a perceptron of the query's code beside the K mean
    codes, its first layer split so that the codes of the classes are not tiled over the queries.
    """

    def __init__(
        self, embed: nn.Module, ways: int, decoder: Sequence[int] = (128, 128),
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if ways < 2:
            raise ValueError(f"ways must be at least 2, got {ways}")
        width = int(embed.out_dim)  # type: ignore[arg-type]
        self.embed, self.ways = embed, ways
        sizes = [*decoder, ways]
        self.from_query = _linear(width, sizes[0], generator)
        self.from_classes = _linear(width * ways, sizes[0], generator)
        linears = [_linear(a, b, generator) for a, b in zip(sizes[:-1], sizes[1:])]
        with torch.no_grad():
            linears[-1].weight.div_(6**0.5)  # nearly equal chances to begin with
        self.linears = nn.ModuleList(linears)

    def forward(
        self, support: Float[Tensor, "b k s c h w"], query: Float[Tensor, "b q c h w"]
    ) -> Categorical:
        codes, targets = self.codes(support), self.embed_all(query)
        h = self.from_query(targets) + self.from_classes(codes.flatten(1))[:, None]
        for linear in self.linears:
            h = linear(h.relu())
        return Categorical(logits=h)

    def codes(self, support: Float[Tensor, "b k s c h w"]) -> Float[Tensor, "b k d"]:
        """The mean code of each class."""
        if support.shape[1] != self.ways:
            raise ValueError(f"this model was made for {self.ways} classes, the episode has {support.shape[1]}")
        return self.embed_all(support).mean(2)

    def loss(
        self, support: Float[Tensor, "b k s c h w"], query: Float[Tensor, "b q c h w"], labels: Int[Tensor, "b q"]
    ) -> Float[Tensor, ""]:
        """Cross-entropy of the queries' labels, in nats."""
        return F.cross_entropy(self(support, query).logits.flatten(0, 1), labels.flatten())

    def embed_all(self, images: Float[Tensor, "*b c h w"]) -> Float[Tensor, "*b d"]:
        """The codes of pictures in any number of axes."""
        return self.embed(images.flatten(0, -4)).unflatten(0, images.shape[:-3])


class Episodes(NamedTuple):
    """Row numbers of pictures: support [B,K,S], query [B,Q]; labels [B,Q] of the queries, 0 … K−1; classes [B,K]."""

    support: Int[Tensor, "b k s"]
    query: Int[Tensor, "b q"]
    labels: Int[Tensor, "b q"]
    classes: Int[Tensor, "b k"]


def sample_episodes(
    labels: Int[Tensor, " n"], batch: int, ways: int, shots: int, queries: int,
    generator: torch.Generator | None = None,
) -> Episodes:
    """B episodes: K classes in random order, S examples and `queries` others of each, no picture twice.

    Raises ValueError if fewer than `ways` classes have shots + queries pictures.
    """
    need = shots + queries
    counts = torch.bincount(labels[labels >= 0])
    usable = torch.nonzero(counts >= need)[:, 0]
    if len(usable) < ways:
        raise ValueError(
            f"{len(usable)} classes have {need} pictures or more ({shots} to learn from and {queries} to ask); "
            f"{ways} are needed"
        )  # fmt: skip
    order = torch.argsort(labels, stable=True)
    begins = (counts.cumsum(0) - counts) + int((labels < 0).sum())
    classes = usable[torch.rand(batch, len(usable), generator=generator).argsort(-1)[:, :ways]]
    draw = torch.rand(batch, ways, int(counts.max()), generator=generator)
    beyond = torch.arange(draw.shape[-1]) >= counts[classes][..., None]
    inside = draw.masked_fill(beyond, 2.0).argsort(-1)[..., :need]
    rows = order[begins[classes][..., None] + inside]
    asked = torch.arange(ways)[:, None].expand(ways, queries).flatten().expand(batch, -1)
    return Episodes(rows[..., :shots], rows[..., shots:].flatten(1), asked, classes)


def nearest_class_mean(
    support: Float[Tensor, "b k s d"], query: Float[Tensor, "b q d"]
) -> Int[Tensor, "b q"]:
    """The class whose mean example is nearest (Euclidean), for features of any kind, pixels included."""
    return torch.cdist(query, support.mean(2)).argmin(-1)


def _linear(n_in: int, n_out: int, generator: torch.Generator | None) -> nn.Linear:
    layer = nn.utils.skip_init(nn.Linear, n_in, n_out)
    _draw(layer, n_in, generator)
    return layer


def _draw(layer: nn.Module, fan_in: int, generator: torch.Generator | None) -> None:
    """He's uniform weights, zero biases: with torch's own the head sees next to nothing of the codes at first."""
    nn.init.uniform_(layer.weight, -((6 / fan_in) ** 0.5), (6 / fan_in) ** 0.5, generator=generator)  # type: ignore[arg-type]
    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
