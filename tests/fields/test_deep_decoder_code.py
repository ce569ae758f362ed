"""Codes of pictures: round trips, sizes, other processes, damaged bytes."""

import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from precis.fields.deep_decoder import DeepDecoder, parameter_count
from precis.fields.deep_decoder_code import (
    code_size,
    decode,
    encode,
    noise_schedule,
    pack,
    read_header,
    unpack,
    width_for_bytes,
)
from precis.fields.quantised import pack_tensors, packed_size, unpack_tensors
from precis.nn.image import psnr


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def picture(h: int = 24, w: int = 32) -> torch.Tensor:
    y, x = torch.meshgrid(torch.linspace(-1, 1, h), torch.linspace(-1, 1, w), indexing="ij")
    return torch.stack([0.5 + 0.3 * torch.sin(3 * x + 2 * y + c) for c in range(3)])


@pytest.fixture(scope="module")
def fitted() -> tuple[torch.Tensor, DeepDecoder]:
    image = picture()
    return image, encode(image, width=10, steps=150, lr=0.01, input_noise=0, generator=seeded()).decoder


@pytest.mark.parametrize("bits", [1, 5, 8, 12, 16])
def test_tensors_survive_rounding(bits: int) -> None:
    tensors = [torch.randn(3, 5, generator=seeded(1)), torch.randn(7, generator=seeded(2)), torch.full((2,), 0.25)]
    data = pack_tensors(tensors, bits)
    assert len(data) <= packed_size([15, 7, 2], bits)
    for t, back in zip(tensors, unpack_tensors(data, [(3, 5), (7,), (2,)], bits), strict=True):
        assert back.dtype == torch.float64 and back.shape == t.shape
        step = float(t.max() - t.min()) / (2**bits - 1)
        assert (back - t).abs().max() <= 0.5001 * step + 1e-7
    with pytest.raises(ValueError):
        unpack_tensors(data, [(3, 5), (7,)], bits)
    with pytest.raises(ValueError, match="finite"):
        pack_tensors([torch.tensor([1.0, float("nan")])])


def test_weights_that_repeat_are_deflated_and_no_bomb_unpacks() -> None:
    flat = [torch.cat([torch.zeros(5000), torch.ones(1)])]
    data = pack_tensors(flat, 8)
    assert len(data) < 100 and torch.equal(unpack_tensors(data, [(5001,)])[0], flat[0].double())
    bomb = bytes([1]) + data[1:9] + zlib.compress(bytes(10_000_000))
    with pytest.raises(ValueError, match="bytes of weights"):
        unpack_tensors(bomb, [(5001,)])


@pytest.mark.parametrize(("bits", "loss"), [(16, 0.05), (12, 0.1), (8, 1.0)])
def test_what_rounding_costs(fitted: tuple[torch.Tensor, DeepDecoder], bits: int, loss: float) -> None:
    image, net = fitted
    whole = net(net.input_for((24, 32))).detach()
    before = float(psnr(whole.clamp(0, 1), image[None]))
    after = float(psnr(decode(pack(net, (24, 32), 0, bits))[None].float(), image[None]))
    assert before > 25 and after > before - loss


def test_a_code_says_all_that_is_needed(fitted: tuple[torch.Tensor, DeepDecoder]) -> None:
    _, net = fitted
    data = pack(net, (24, 32), 3, 12)
    assert len(data) <= code_size(10, net.layers, 3, 12)
    header = read_header(data)
    assert header == (12, "code", 3, (24, 32), 10, net.layers, 3)
    again, _ = unpack(data)
    assert again.layers == net.layers and again.weights[0].dtype == torch.float64
    assert not any(p.requires_grad for p in again.parameters())


def test_odd_sizes_grey_and_other_orders() -> None:
    image = picture(13, 21)[:1]
    made = encode(image, ratio=1.0, bits=16, steps=60, lr=0.02, input_noise=0, generator=seeded())
    assert decode(made.data).shape == (1, 13, 21)
    assert float(psnr(decode(made.data)[None].float(), image[None])) > 18
    for order in ("paper", "upsample_last"):
        net = DeepDecoder(4, 3, 1, order=order, generator=seeded())  # type: ignore[arg-type]
        out = decode(pack(net, (16, 16), 0, 16)).float()
        assert (out - net(net.input_for((16, 16)))[0].detach()).abs().max() < 1e-3
    with pytest.raises(ValueError, match="bilinear"):
        pack(DeepDecoder(4, 2, upsample="nearest"), (8, 8), 0)


def test_another_process_decodes_the_same(fitted: tuple[torch.Tensor, DeepDecoder], tmp_path: Path) -> None:
    data = pack(fitted[1], (24, 32), 5, 8)
    (tmp_path / "x.pdd").write_bytes(data)
    script = (
        "import sys, torch, pathlib; torch.set_num_threads(1); torch.manual_seed(99);"
        "from precis.fields.deep_decoder_code import decode;"
        "x = (decode(pathlib.Path(sys.argv[1]).read_bytes()) * 255).round().byte();"
        "sys.stdout.buffer.write(x.numpy().tobytes())"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "x.pdd")]
    found = subprocess.run(command, capture_output=True, check=True).stdout
    here = (decode(data) * 255).round().byte().numpy()
    assert np.array_equal(np.frombuffer(found, np.uint8).reshape(here.shape), here)


def test_bytes_that_are_no_code(fitted: tuple[torch.Tensor, DeepDecoder]) -> None:
    data = pack(fitted[1], (24, 32), 0, 8)
    cases = {
        "magic": (b"GIF8" + data[4:], b"", data[1:]),
        "cut short": (data[:4], data[:20]),
        "version 9": (data[:4] + b"\x09" + data[5:],),
        "checksum": (data[:-9], data[:40] + bytes([data[40] ^ 1]) + data[41:], data + b"\0"),
    }
    for words, broken in cases.items():
        for one in broken:
            with pytest.raises(ValueError, match=words):
                decode(one)
    senseless = bytearray(data[:-4])
    senseless[8:12] = (2**31).to_bytes(4, "little")  # the height; with a checksum to match
    with pytest.raises(ValueError, match="makes no sense"):
        decode(bytes(senseless) + zlib.crc32(senseless).to_bytes(4, "little"))
    wide = bytearray(data[:-4])
    wide[16:18] = (11).to_bytes(2, "little")
    with pytest.raises(ValueError, match="bytes of weights"):
        decode(bytes(wide) + zlib.crc32(wide).to_bytes(4, "little"))


def test_width_for_bytes() -> None:
    for bits in (8, 12, 16):
        width = width_for_bytes(3000, (64, 64), 5, 3, bits)
        assert code_size(width, 5, 3, bits) <= 3000 < code_size(width + 1, 5, 3, bits)
        net = DeepDecoder(width, 5, 3, generator=seeded())
        assert len(pack(net, (64, 64), 0, bits)) <= 3000
    assert code_size(8, 4, 3, 8) == 27 + 1 + 8 * 13 + parameter_count(8, 4) + 4
    with pytest.raises(ValueError, match="are too few"):
        width_for_bytes(100, (64, 64), 5, 3, 8)


def test_options_that_make_no_sense() -> None:
    with pytest.raises(ValueError, match="either"):
        encode(picture())
    with pytest.raises(ValueError, match="bits"):
        encode(picture(), width=4, bits=7)


def test_noise_falls() -> None:
    sigma = noise_schedule(0.005, 20_000)
    assert sigma(0) == pytest.approx(0.0035) and sigma(500) == pytest.approx(0.00245) and sigma(499) == sigma(0)
    assert noise_schedule(0.005, 400)(399) == pytest.approx(0.005 * 0.7**40)
