"""Deep Decoder: a training step of ours against the released code's order of layers, and a code's bytes against JPEG's.

Plain: `nn.Conv2d` 1×1, `nn.Upsample`, `nn.ReLU`, `nn.BatchNorm2d` a layer, as the notebooks build them, with the same
weights, input and target, and `torch.optim.Adam`; "plain, last" is the same net with its maps channels last, which the
notebooks do not do.  Sides take turns; `ratio` is plain over ours with its 95 % interval.  `apart` is the relative
difference of the losses after the first block.  Memory is the growth of a fresh process's peak over two steps (Linux; 0
elsewhere).  Bytes: a photograph as a code of 8 bits a weight against JPEG at most as long, in dB (no clock in it).

    python -m benchmarks deep_decoder
"""

import copy
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from precis.fields.deep_decoder import DeepDecoder
from precis.lab.timing import interleaved

from ._measured import between, columns, peak_mb


@dataclass(frozen=True)
class Case:
    name: str
    side: int
    width: int
    layers: int
    steps: int  # in a block


CASES = (
    Case("64 x 64, k 18", 64, 18, 4, 30),
    Case("256 x 256, k 32", 256, 32, 6, 3),
    Case("256 x 256, k 64", 256, 64, 6, 2),
    Case("512 x 512, k 64", 512, 64, 6, 1),
)
RATE = 0.01


def plain_net(net: Any) -> nn.Sequential:
    """The released code's layers in its order, with our weights."""
    layers: list[nn.Module] = []
    for i, weight in enumerate(net.weights):
        conv = nn.Conv2d(net.width, len(weight), 1, bias=False)
        conv.weight.data = weight.detach()[..., None, None].clone()
        layers.append(conv)
        if i < net.layers:
            up = [nn.Upsample(scale_factor=2, mode="bilinear")] if i < net.layers - 1 else []
            layers += [*up, nn.ReLU(), nn.BatchNorm2d(net.width)]
    return nn.Sequential(*layers, nn.Sigmoid())


class Side:
    """A net that is fitted to a picture, block by block."""

    def __init__(self, net: nn.Module, b1: Tensor, target: Tensor) -> None:
        self.net, self.b1, self.target = net, b1, target
        self.optimizer = torch.optim.Adam(net.parameters(), lr=RATE)

    def run(self, steps: int) -> float:
        for _ in range(steps):
            self.optimizer.zero_grad()
            loss = (self.net(self.b1) - self.target).square().mean()
            loss.backward()
            self.optimizer.step()
        return loss.item()


def build(case: Case, side: str) -> Side:
    generator = torch.Generator().manual_seed(0)
    net = DeepDecoder(case.width, case.layers, generator=generator)
    b1 = net.input_for((case.side, case.side))
    target = torch.rand(1, 3, case.side, case.side, generator=generator)
    if side == "ours":
        return Side(copy.deepcopy(net), b1, target)
    plain = plain_net(net)
    if side == "plain, last":
        plain, b1 = plain.to(memory_format=torch.channels_last), b1.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return Side(plain, b1, target)


def measure(case: Case, threads: int, rounds: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    sides = {name: build(case, name) for name in ("plain", "ours", "plain, last")}
    first = {name: side.run(1) for name, side in sides.items()}
    timing = interleaved({name: (lambda s=side: s.run(case.steps)) for name, side in sides.items()}, rounds, 1)
    last, interval = timing.against("plain, last", "ours")
    return columns(case.name, threads, timing, case.steps) | {
        "ratio, last": last, "interval, last": between(interval), "apart": abs(first["plain"] / first["ours"] - 1),
    }  # fmt: skip


def against_jpeg(width: int, side: int = 128, steps: int = 1000) -> dict[str, Any]:
    """A square of `coffee`: a code, and the best JPEG that is not longer; else its shortest."""
    from precis.data.embedded import photo
    from precis.data.images import as_float, resize
    from precis.fields.deep_decoder_code import decode, encode
    from precis.nn.image import psnr
    from precis.papers.deep_decoder.codecs import at_bytes
    from precis.papers.deep_decoder.pictures import rounded

    picture = resize(photo("coffee"), (side, side * 3 // 2))[:, :, side // 4 : side // 4 + side]
    image = torch.from_numpy(as_float(picture))
    code = encode(image, width=width, steps=steps, lr=0.01, generator=torch.Generator().manual_seed(0)).data
    made = torch.from_numpy(rounded(decode(code)))[None].float() / 255
    jpeg, other = at_bytes(picture, len(code), "jpeg") or (b"", made)
    return {
        "what": f"bytes of coffee, {side} x {side}, k {width}", "ours dB": float(psnr(made, image[None])),
        "ours bytes": len(code), "JPEG dB": float(psnr(other, image[None])), "JPEG bytes": len(jpeg),
    }  # fmt: skip


def rows(threads: tuple[int, ...] = (1, 2), rounds: int = 7) -> list[dict[str, Any]]:
    """One row a case and number of threads."""
    found = []
    for case in CASES:
        tiny = replace(case, side=32)
        sizes = {f"{side} MB": peak_mb(build, case, tiny, side) for side in ("plain", "ours", "plain, last")}
        found += [measure(case, count, rounds) | sizes for count in threads]
    return found + [against_jpeg(width) for width in (16, 32)]
