"""MobileNetV2 against what one would otherwise use: the plain eager network, and that of transformers.

The plain network is written as public ones are: nested `nn.Sequential`, ReLU6 in place, NCHW order.  Evaluation: one
picture and eight of 224², width 1; ours by `for_inference` (folded, in place, channels last), and as it is.  A training
step: 16 pictures of 96², width 0.35, forward, backward and SGD; ours as `fit_classifier` runs it.  Memory: the most
bytes that live at once in evaluating a picture of 224², and the time it takes, with the wide tensors in parts.
`ratio` is theirs over ours.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks._measured import versus
from precis.papers.mobilenet.memory import peak_bytes
from precis.train.classify import to_channels_last
from precis.vision.mobilenet import STAGES, MobileNetV2, channels_of
from precis.vision.mobilenet_export import for_inference


def rows(repeats: int = 9) -> list[dict[str, Any]]:
    """A row a comparison; medians of interleaved repetitions."""
    made = []
    for batch, turns in ((1, repeats), (8, max(3, repeats // 3))):
        x = torch.rand(batch, 3, 224, 224)
        plain, ours = Plain(1000, 1.0).eval(), MobileNetV2().eval()
        fast = for_inference(ours)
        last = x.contiguous(memory_format=torch.channels_last)
        what, plainly = f"evaluation, width 1, {batch} of 224²", lambda n=plain, y=x: n(y)
        made += [
            _row(f"{what}, for_inference, against plain", lambda n=fast, y=last: n(y), plainly, turns),
            _row(f"{what}, as it is, against plain", lambda n=ours, y=x: n(y), plainly, turns),
        ]
        if (peer := _transformers(1000, 1.0)) is not None:
            peer.eval()
            made.append(_row(f"{what}, for_inference, against transformers", lambda n=fast, y=last: n(y),
                             lambda n=peer, y=x: n(y), turns))  # fmt: skip
    return [*made, *_training(max(3, repeats // 2)), *_memory(repeats)]


def _row(
    what: str, ours: Callable[[], Any], theirs: Callable[[], Any], repeats: int, grad: bool = False
) -> dict[str, Any]:
    with torch.set_grad_enabled(grad):
        return versus(what, ours, theirs, repeats)


class Plain(nn.Module):
    """MobileNetV2 as public implementations have it."""

    def __init__(self, classes: int, width: float) -> None:
        super().__init__()
        stem, thin, last = channels_of(width)
        layers: list[nn.Module] = [_cell(3, stem, 3, 2)]
        channels = stem
        for (t, _, n, s), c in zip(STAGES, thin):
            for i in range(n):
                layers.append(_Block(channels, c, t, s if i == 0 else 1))
                channels = c
        self.features = nn.Sequential(*layers, _cell(channels, last))
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(last, classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.adaptive_avg_pool2d(self.features(x), 1).flatten(1))


class _Block(nn.Module):
    def __init__(self, a: int, b: int, t: int, stride: int) -> None:
        super().__init__()
        first = [] if t == 1 else [_cell(a, t * a)]
        self.skip = stride == 1 and a == b
        self.conv = nn.Sequential(
            *first, _cell(t * a, t * a, 3, stride, t * a), nn.Conv2d(t * a, b, 1, bias=False), nn.BatchNorm2d(b)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.skip else self.conv(x)


def _cell(a: int, b: int, k: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(a, b, k, stride, k // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(b), nn.ReLU6(inplace=True))


def _transformers(classes: int, width: float) -> nn.Module | None:
    """The network of transformers with the same layers, or None where it is not installed."""
    try:
        from transformers import MobileNetV2Config, MobileNetV2ForImageClassification
    except ImportError:
        return None
    return MobileNetV2ForImageClassification(  # type: ignore[no-any-return]
        MobileNetV2Config(depth_multiplier=width, num_labels=classes, tf_padding=False, finegrained_output=True)
    )


def _training(repeats: int) -> list[dict[str, Any]]:
    x, y = torch.rand(16, 3, 96, 96), torch.randint(0, 10, (16,))

    def step(net: nn.Module, pictures: Tensor) -> Callable[[], None]:
        solver = torch.optim.SGD(net.train().parameters(), 0.01, momentum=0.9)

        def run() -> None:
            solver.zero_grad()
            out = net(pictures)
            F.cross_entropy(out if isinstance(out, Tensor) else out.logits, y).backward()
            solver.step()

        return run

    ours = step(to_channels_last(MobileNetV2(10, 0.35)), x.contiguous(memory_format=torch.channels_last))
    made = [_row("training step, width 0.35, 16 of 96², against plain", ours, step(Plain(10, 0.35), x), repeats, True)]
    if (peer := _transformers(10, 0.35)) is not None:
        made.append(_row("training step, against transformers", ours, step(peer, x), repeats, True))
    return made


def _memory(repeats: int) -> list[dict[str, Any]]:
    x = torch.rand(1, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    plain, made = Plain(1000, 1.0).eval(), []
    net = for_inference(MobileNetV2())
    with torch.no_grad():
        whole = peak_bytes(lambda: plain(x))
    for chunks in (2, 4):
        parts: Any = for_inference(MobileNetV2())
        parts.expansion_chunks = chunks
        row = _row(f"one picture, wide tensors in {chunks} parts, against whole", lambda n=parts: n(x), lambda: net(x),
                   repeats)  # fmt: skip
        with torch.no_grad():
            peak = peak_bytes(lambda n=parts: n(x))
        made.append(row | {"ours MB": peak / 1e6, "plain MB": whole / 1e6})
    return made
