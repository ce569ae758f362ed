"""How the contrastive papers' claims judge a representation: linear probes on few and on all labels, and neighbours."""

from typing import Literal

from torch import Tensor, nn

from precis.lab.claim import Metrics
from precis.papers.contrastive_sets import Pool, Setting
from precis.train.probe import LinearProbe, embed, first_of_each, knn_predict


def judge(s: Setting, pool: Pool, train_h: Tensor, test_h: Tensor) -> Metrics:
    """Percentages of right answers on the test pictures: of a linear probe on the first few labels of each class
    (`accuracy`), on all labels (`accuracy_all`), and of the neighbours' vote (`knn`)."""
    few = first_of_each(pool.labels, s.labels)
    k = min(200, max(1, len(train_h) // 10))
    votes = knn_predict(train_h, pool.labels, test_h, k).argmax(1)
    return {
        "accuracy": 100 * _probe(train_h[few], pool.labels[few], pool, test_h, "inner"),
        "accuracy_all": 100 * _probe(train_h, pool.labels, pool, test_h, 1e-3),
        "knn": 100 * float((votes == pool.test_labels).float().mean()),
    }


def _probe(h: Tensor, y: Tensor, pool: Pool, test_h: Tensor, ridge: Literal["inner"] | float) -> float:
    return LinearProbe(ridge).fit(h, y).accuracy(test_h, pool.test_labels).accuracy


def judge_encoder(s: Setting, pool: Pool, model: nn.Module, *, layer: Literal["h", "z"] = "h") -> Metrics:
    """`judge` of a model's representation h, or of what its head makes of it."""
    net: nn.Module = model.encoder if layer == "h" else _Projected(model)  # type: ignore[assignment]
    return judge(s, pool, embed(net, pool.images), embed(net, pool.test_images))


class _Projected(nn.Module):
    """The second of what a model returns."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.model(x)[1]
        return z
