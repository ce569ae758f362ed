"""What a frozen representation holds: embeddings, a linear classifier on them, and a vote of the nearest neighbours.

    min_{W,b}  mean_i −log softmax(W h_i + b)_{y_i} + ridge/2 ‖W‖²          h standardised by the training part

The ridge is scikit-learn's 1/(C·N).
"""

from contextlib import nullcontext
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Int64, Shaped
from torch import Tensor, nn

from precis.errors import InputError
from precis.nn.tape import activations
from precis.train.classify import score, to_input

Number = int | float
RIDGES = (1.0, 0.1, 1e-2, 1e-3, 1e-4)
FOLDS = 5
MANY = 5000  # rows from which on one held-out fifth replaces five folds
QUERIES = 1024  # rows of queries whose similarities are looked at together


@torch.no_grad()
def embed(
    model: nn.Module, x: Shaped[Tensor, "n *shape"], *, layer: str | None = None, batch: int = 512,
    precision: Literal["fp32", "bf16"] = "fp32",
) -> Float[Tensor, "n d"]:  # fmt: skip
    """Representations [N,D] of x, uint8 or float in [0,1], in evaluation mode; the modes are as before afterwards.

    `model.features(x)` where there is such a method, else what the model returns (of a tuple the first), or what
    `layer` does; maps [C,H,W] are averaged over positions.
    """
    was = {module: module.training for module in model.modules()}
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    call = getattr(model, "features", model)
    rows = []
    try:
        model.eval()
        for part in x.split(batch):
            given = to_input(part.to(device))
            with torch.autocast(device.type, torch.bfloat16) if precision == "bf16" else nullcontext():
                out = call(given) if layer is None else activations(model, given, [layer], pool="mean")[layer]
            out = out[0] if isinstance(out, tuple) else out
            rows.append((out.flatten(2).mean(2) if out.ndim > 2 else out).float())
    finally:
        for module, training in was.items():
            module.training = training
    return torch.cat(rows)


class ProbeResult(NamedTuple):
    """Share of right answers with its exact 95 % interval, the share of each class, and counts [true, predicted]."""

    accuracy: float
    interval: tuple[float, float]
    per_class: Float[Tensor, "k"]
    confusion: Int64[Tensor, "k k"]


class LinearProbe:
    """Multinomial logistic regression on standardised features, by L-BFGS in float64.

    ridge: the penalty of the equation above, or "inner": of five from 1 to 1e-4 the one with the least loss on five
    folds of the training rows, each with its share of every class (on one held-out fifth from 5,000 rows on).
    """

    def __init__(self, ridge: Literal["inner"] | Number = "inner", *, classes: int | None = None) -> None:
        if not isinstance(ridge, str) and ridge <= 0:
            raise ValueError(f"the ridge must be positive, got {ridge}")
        self.ridge, self.classes = ridge, classes
        self.chosen: float | None = None

    def fit(self, h: Float[Tensor, "n d"], y: Int[Tensor, "n"]) -> "LinearProbe":
        """Fit to rows h with labels y from 0 on; labels of −1 are left out.  InputError for less than two classes."""
        h, y = h[y >= 0], y[y >= 0].long().to(h.device)
        if len(y.unique()) < 2:
            raise InputError("a linear probe needs labelled rows of at least two classes")
        k = self.classes or int(y.max()) + 1
        h = h.detach() if h.device.type == "mps" else h.detach().double()
        self.mean = h.mean(0)
        deviation = h.std(0, correction=0)
        self.scale = torch.where(deviation > 1e-8 * deviation.max(), deviation, torch.ones_like(deviation))
        rows = (h - self.mean) / self.scale
        if isinstance(self.ridge, str):
            self.chosen = _inner(rows, y, k)
        else:
            self.chosen = float(self.ridge)
        self.weight, self.bias = _fit(rows, y, k, self.chosen)
        return self

    def logits(self, h: Float[Tensor, "n d"]) -> Float[Tensor, "n k"]:
        """W·standardised h + b."""
        return ((h.to(self.weight) - self.mean) / self.scale) @ self.weight.T + self.bias

    def folded(self) -> tuple[Float[Tensor, "k d"], Float[Tensor, "k"]]:
        """W and b of the same logits for rows as they are: the standardisation is folded into them."""
        weight = self.weight / self.scale
        return weight, self.bias - weight @ self.mean

    def predict(self, h: Float[Tensor, "n d"]) -> Int64[Tensor, "n"]:
        """The likeliest class of each row."""
        return self.logits(h).argmax(1)

    def accuracy(self, h: Float[Tensor, "n d"], y: Int[Tensor, "n"]) -> ProbeResult:
        """How often `predict` is right; labels of −1 are left out."""
        return ProbeResult(*score(self.predict(h), y.to(h.device), len(self.bias)))


def knn_predict(
    bank: Float[Tensor, "m d"], labels: Int[Tensor, "m"], query: Float[Tensor, "q d"], k: int = 200,
    temperature: Number = 0.07, classes: int | None = None, chunk: int = 4096,
) -> Float[Tensor, "q c"]:  # fmt: skip
    """Shares of the vote of the k nearest labelled rows of `bank` by cosine, each with weight exp(cos/temperature).

    Labels of −1 do not vote.  Wu et al., CVPR 2018 (arXiv 1805.01978), §3.4.
    """
    bank, labels = bank[labels >= 0], labels[labels >= 0].long()
    if not len(bank):
        raise InputError("there is no labelled row to vote")
    cosine, index = nearest(bank, query, min(k, len(bank)), chunk=chunk)
    votes = ((cosine - cosine[:, :1]) / temperature).exp()  # the largest is 1, so that none overflows
    shares = votes.new_zeros(len(query), classes or int(labels.max()) + 1)
    shares.scatter_add_(1, labels[index], votes)
    return shares / shares.sum(1, keepdim=True)


def nearest(
    bank: Float[Tensor, "m d"], query: Float[Tensor, "q d"], k: int, *, chunk: int = 4096
) -> tuple[Float[Tensor, "q k"], Int64[Tensor, "q k"]]:
    """Cosines and indices of the k rows of `bank` nearest to each query, the nearest first.

    At most 1,024 queries by `chunk` rows of the bank are compared at once.
    """
    if not 1 <= k <= len(bank):
        raise ValueError(f"k must lie between 1 and {len(bank)} rows, got {k}")
    bank, query = F.normalize(bank, dim=1), F.normalize(query, dim=1)
    found = [_nearest(bank, part, k, chunk) for part in query.split(QUERIES)]
    return torch.cat([c for c, _ in found]), torch.cat([i for _, i in found])


def first_of_each(labels: Int[Tensor, "n"], count: int) -> Int64[Tensor, "m"]:
    """Indices of the first `count` rows of each class, in ascending order; labels of −1 are of none."""
    chosen = [torch.nonzero(labels == c)[:count, 0] for c in labels.unique() if c >= 0]
    return torch.cat(chosen).sort().values


def _nearest(bank: Tensor, query: Tensor, k: int, chunk: int) -> tuple[Tensor, Tensor]:
    best, at = query.new_empty(len(query), 0), torch.empty(len(query), 0, dtype=torch.long, device=query.device)
    for start in range(0, len(bank), chunk):
        s = query @ bank[start : start + chunk].T
        some, index = s.topk(min(k, s.shape[1]), dim=1)
        best, at = torch.cat([best, some], 1), torch.cat([at, index + start], 1)
        best, keep = best.topk(min(k, best.shape[1]), dim=1)
        at = at.gather(1, keep)
    return best, at


def _fit(
    rows: Tensor, y: Tensor, classes: int, ridge: float, start: tuple[Tensor, Tensor] | None = None,
    tolerance: float = 1e-6, steps: int = 1000,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Weights [K,D] and biases [K] by SciPy's L-BFGS; `start`: where to begin."""
    from scipy.optimize import minimize

    shape = (classes, rows.shape[1] + 1)
    target = F.one_hot(y, classes).to(rows)

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        w = torch.from_numpy(flat).view(shape).to(rows)
        logits = torch.addmm(w[:, -1], rows, w[:, :-1].T)
        log_p = logits.log_softmax(1)
        value = -(log_p * target).sum() / len(y) + ridge / 2 * w[:, :-1].square().sum()
        error = (log_p.exp() - target) / len(y)
        gradient = torch.cat([error.T @ rows + ridge * w[:, :-1], error.sum(0)[:, None]], 1)
        return float(value), gradient.double().cpu().numpy().ravel()

    begin = np.zeros(shape) if start is None else torch.cat([start[0], start[1][:, None]], 1).double().cpu().numpy()
    found = minimize(loss, begin.ravel(), jac=True, method="L-BFGS-B",
                     options={"maxiter": steps, "maxcor": 20, "gtol": tolerance, "ftol": 1e-13})  # fmt: skip
    w = torch.from_numpy(found.x).view(shape).to(rows)
    return w[:, :-1], w[:, -1]


def _inner(rows: Tensor, y: Tensor, classes: int) -> float:
    """The ridge with the least held-out loss; each fold goes from the strongest to the weakest, from where it was."""
    place = _places(y)
    folds = FOLDS if len(y) < MANY else 1
    losses = np.zeros(len(RIDGES))
    for fold in range(folds):
        held = place % FOLDS == fold
        if not bool(held.any()) or len(y[~held].unique()) < 2:
            continue
        start = None
        for i, ridge in enumerate(RIDGES):
            start = _fit(rows[~held], y[~held], classes, ridge, start, 1e-4, 60)
            logits = rows[held] @ start[0].T + start[1]
            losses[i] += float(F.cross_entropy(logits, y[held], reduction="sum"))
    return RIDGES[int(losses.argmin())]


def _places(y: Tensor) -> Tensor:
    """The place of each row among those of its class, continued from class to class so that folds stay even."""
    order = y.argsort(stable=True)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(y), device=y.device)
    return place
