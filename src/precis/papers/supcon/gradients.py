"""What the two forms of the loss do to the weights: how noisy their gradients are, and how many positives pull."""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from precis.contrastive.supcon import positive_weights, sup_con
from precis.papers.contrastive_sets import Pool
from precis.papers.contrastive_training import make_views, views_of

from .training import Plan

FORMS = ("out", "in")


class GradientNoise:
    """Calling it measures, at the model's present weights, ln(tr Cov(g)/‖ḡ‖²) of the gradients g of minibatches under
    each form; the model, its batch statistics and its gradients stay as they were."""

    def __init__(self, s: Plan, pool: Pool, model: nn.Module, labels: Tensor, generator: torch.Generator) -> None:
        self.s, self.pool, self.model, self.labels, self.generator = s, pool, model, labels, generator
        self.found: dict[str, list[float]] = {form: [] for form in FORMS}

    def __call__(self) -> None:
        weights = [p for p in self.model.parameters() if p.requires_grad]
        buffers = copy.deepcopy(dict(self.model.named_buffers()))
        total = {form: torch.zeros(sum(p.numel() for p in weights), device=weights[0].device) for form in FORMS}
        squares = dict.fromkeys(FORMS, 0.0)
        for _ in range(self.s.minibatches):
            features, y = _minibatch(self.s, self.pool, self.model, self.labels, self.generator)
            for form in FORMS:
                loss = sup_con(features, y, temperature=self.s.temperature, reduction_form=form)  # type: ignore[arg-type]
                grads = torch.autograd.grad(loss, weights, retain_graph=form != FORMS[-1])
                flat = torch.cat([g.flatten() for g in grads])
                total[form] += flat
                squares[form] += float(flat.square().sum())
        n = self.s.minibatches
        for form in FORMS:
            mean = float((total[form] / n).square().sum())
            self.found[form].append(math.log((squares[form] - n * mean) / (n - 1) / mean))
        with torch.no_grad():
            for name, b in self.model.named_buffers():
                b.copy_(buffers[name])

    def ratio(self) -> float:
        """How much noisier the form with the mean inside the logarithm is: mean over the places of the difference of
        logarithms."""
        return sum(i - o for i, o in zip(self.found["in"], self.found["out"])) / len(self.found["out"])


@torch.no_grad()
def effective_positives(
    s: Plan, pool: Pool, model: nn.Module, labels: Tensor, form: str, generator: torch.Generator
) -> float:
    """1/Σ_p X_ip² of an anchor, the mean over a minibatch: how many positives share its pull under that form."""
    features, y = _minibatch(s, pool, model, labels, generator)
    squares = positive_weights(features, y, s.temperature, form).square().sum(1)  # type: ignore[arg-type]
    return float((1 / squares[squares > 0]).mean())


def _minibatch(
    s: Plan, pool: Pool, model: Callable[..., tuple[Tensor, Tensor]], labels: Tensor, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """z [B,2,D] of two views of pictures drawn without repetition, and their labels."""
    chosen = torch.randperm(len(pool.images), generator=generator)[: s.noise_batch].to(labels.device)
    views = make_views(pool.images[chosen], views_of(s.views, s.size), generator)
    z = model(torch.cat(views))[1]
    return torch.stack(z.split(len(chosen)), 1), labels[chosen]
