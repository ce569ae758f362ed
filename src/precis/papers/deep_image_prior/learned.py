"""A denoiser that learned from other pictures, for comparison.

Zhang et al., "Beyond a Gaussian Denoiser" (arXiv 1608.03981), in small: 3×3 convolutions with batch normalisation and
ReLU that predict the noise, which is then subtracted, x̂ = y − r(y).  It learns on cuts of photographs of which none is
scored, with fresh noise of the known strength on each; turned and mirrored, and with colours exchanged.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn

from precis.data.embedded import photo, photos
from precis.data.images import as_float
from precis.lab.claim import Recorder
from precis.train.checkpoint import load_state, save_state
from precis.train.loop import Budget, fit
from precis.train.schedule import cosine

from .crops import MORE, reduce

DEPTH, WIDTH, CUT, BATCH = 7, 32, 40, 16
SIDE = 256  # of the photographs that it learns from, as in the full profile
UNSEEN = (*MORE, "motorcycle_right")  # the other eye's view of a scored picture


class DnCNN(nn.Module):
    """y [B,3,H,W] -> y − r(y)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, WIDTH, 3, padding=1), nn.ReLU()]
        for _ in range(DEPTH - 2):
            layers += [nn.Conv2d(WIDTH, WIDTH, 3, padding=1, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU()]
        last = nn.Conv2d(WIDTH, 3, 3, padding=1)
        nn.init.zeros_(last.weight)
        self.residual = nn.Sequential(*layers, last)

    def forward(self, y: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 3 h w"]:
        return y - self.residual(y)  # type: ignore[no-any-return]


def learned(
    noisy: Float[Tensor, "1 3 h w"], sigma: float, steps: int, shuffled: bool, record: Recorder
) -> Float[Tensor, "1 3 h w"]:
    """`noisy` cleaned by the network that this seed has trained; `shuffled`: on cuts whose pixels are in no order."""

    def make(folder: Path) -> None:
        save_state(folder / "net.safetensors", dict(_train(sigma, steps, shuffled, record).state_dict()))

    folder = record.shared("dncnn", make, {"sigma": sigma, "steps": steps, "shuffled": shuffled})
    net = DnCNN().to(record.device)
    net.load_state_dict(load_state(folder / "net.safetensors"))
    with torch.no_grad():
        return net.eval()(noisy.to(record.device)).cpu()  # type: ignore[no-any-return]


def _train(sigma: float, steps: int, shuffled: bool, record: Recorder) -> DnCNN:
    names = [name for name in photos(grey=False) if name not in UNSEEN]
    pictures = [torch.from_numpy(reduce(as_float(photo(name)), SIDE)) for name in names]
    generator = record.streams["noise"]
    with torch.random.fork_rng():
        torch.manual_seed(record.streams["init"].initial_seed())
        net = DnCNN().to(record.device)

    def step(_: None) -> Tensor:
        clean = torch.stack([_cut(pictures, shuffled, generator) for _ in range(BATCH)])
        noise = sigma * torch.randn(clean.shape, generator=generator)
        clean, noisy = clean.to(record.device), (clean + noise).to(record.device)
        return (net(noisy) - clean).square().mean()

    optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
    fit(step, [None], budget=Budget(steps=steps), optimizer=optimizer, schedule=cosine(), log=record.log)
    return net


def _cut(pictures: list[Tensor], shuffled: bool, generator: torch.Generator) -> Float[Tensor, "3 s s"]:
    """A square from any of the pictures, turned, mirrored, its colours exchanged."""
    draw = lambda n: int(torch.randint(n, (), generator=generator))
    picture = pictures[draw(len(pictures))]
    row, column = (draw(n - CUT + 1) for n in picture.shape[1:])
    cut = picture[:, row : row + CUT, column : column + CUT].rot90(draw(4), (1, 2))
    cut = (cut.flip(2) if draw(2) else cut)[torch.randperm(3, generator=generator)]
    if shuffled:
        cut = cut.flatten(1)[:, torch.randperm(CUT * CUT, generator=generator)].unflatten(1, (CUT, CUT))
    return cut
