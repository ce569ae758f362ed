"""Claims about what the decoder can represent with few weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from precis.fields.deep_decoder import DeepDecoder, parameter_count, width_for_ratio
from precis.fields.deep_decoder_code import noise_schedule, pack
from precis.fields.deep_decoder_wavelets import cosine_transform, orthonormal_wavelet
from precis.fields.restoration import fit_untrained
from precis.lab.claim import Claim, Metrics, Profile, Recorder
from precis.lab.hypotheses import Equivalent, Greater, Less, NotWorse
from precis.nn.image import psnr
from precis.papers.deep_image_prior.crops import Pictures, load_pictures

SCORED = ("astronaut", "coffee", "rocket", "china", "motorcycle_left")
MORE = (*SCORED, "chelsea")
RATIOS = {"low": 0.031, "high": 0.125}
PICTURED = 2  # seeds whose pictures are kept


@dataclass(frozen=True)
class Compress:
    """Crops of size² from photographs whose shorter side is `side`; decoders of `layers` layers, `steps` of Adam."""

    size: int
    side: int
    layers: int
    steps: int
    lr: float = 0.01
    photos: tuple[str, ...] = SCORED


class _Compression(Claim):
    """Two claims read the same runs: the decoder and the wavelets it is compared with, at two ratios."""

    runs = "compression"
    takes = ("image", "images")
    profiles = {
        "smoke": Profile(Compress(32, 48, 3, 5), seeds=2, scale="32×32, 5 steps"),
        "quick": Profile(Compress(64, 96, 4, 1000), scale="64×64, 4 layers of 8 and 18 channels, 1,000 steps"),
        "full": Profile(
            Compress(128, 192, 5, 2000, photos=MORE), seeds=3,
            scale="128×128, 5 layers, 2,000 steps (GPU: 512×512, 6 layers, 20,000)",
            cuda=Compress(512, 512, 6, 20_000, 0.005, MORE),
        ),
    }  # fmt: skip

    def load(self, settings: Any, source: Path | None) -> Pictures:
        return load_pictures(source, settings.size, settings.side, settings.photos)

    def trial(self, arm: str, seed: int, settings: Any, data: Any, record: Recorder) -> Metrics:
        image = data.crop(seed, settings.size, record.streams["data"]).to(record.device)
        who, ratio = arm.rsplit("_", 1)
        width = width_for_ratio(RATIOS[ratio], image.shape[-2:], settings.layers)
        keep, metrics = parameter_count(width, settings.layers), {}
        if who in ("decoder", "no_upsampling"):
            net = DeepDecoder(
                width, settings.layers, upsample="none" if who == "no_upsampling" else "bilinear",
                generator=record.streams["init"],
            )  # fmt: skip
            made = fit_picture(net.to(record.device), image, settings, record)
            if who == "decoder":
                metrics = {"bytes_8_bit": len(pack(net, image.shape[-2:], 0, 8)), "bytes_16_bit": 2 * keep}
        elif who == "dct":
            made = cosine_transform(image[0], keep, block=16, joint=True)[None]
        else:
            made = orthonormal_wavelet(image[0], who, keep, joint=who == "cdf97")[None]  # type: ignore[arg-type]
        if seed < PICTURED:
            record.image("truth", image[0])
            record.image(arm, made[0].clamp(0, 1))
        return {"psnr": float(psnr(made.clamp(0, 1), image)), "numbers": keep, **metrics}


class Compression(_Compression):
    """The paper shows a scatter of 100 pictures about the diagonal, a little above it at 0.031, below it at 0.125.

    Haar, hard thresholding, as many coefficients in each of R, G and B, is the paper's baseline.  Numbers are
    counted, not bytes: N weights against N coefficients, without the coefficients' places (which would have to be
    stored) and one mean a channel.  "Slightly better": above by anything.  "Slightly worse": not worse by 1 dB, which
    is where one begins to see it; that it is worse at all is shown and does not count.  Broken arm: no upsampling, so
    that each pixel has its own random numbers and no neighbours; the weights are as many.
    """

    name = "compression"
    statement = (
        "With as many weights as a Haar wavelet transform has coefficients, the decoder is slightly better at ratio "
        "0.031 and at most slightly worse at ratio 0.125."
    )
    arms = ("decoder_low", "decoder_high", "haar_low", "haar_high")
    sabotaged = {"no_upsampling_low": "decoder_low", "no_upsampling_high": "decoder_high"}
    hypotheses = (
        Greater("psnr", "decoder_low", "haar_low"),
        NotWorse("psnr", "decoder_high", "haar_high", margin=1),
        Less("psnr", "decoder_high", "haar_high", counts=False),
    )
    untried = (
        "Whole photographs of 512×512 pixels with six layers and 20,000 steps, and the paper's 100 pictures of "
        "ImageNet were not tried."
    )


class CompressionStrong(_Compression):
    """The same decoders against transforms that one would take today.

    CDF 9/7 (that of JPEG 2000) and cosines in blocks of 16, both on orthonormal luma and colour differences, whose
    coefficients compete with each other.  The numbers of levels and the block were chosen on `chelsea`, which is not
    scored.  Parity means not worse by 1 dB.
    """

    name = "compression_strong"
    statement = (
        "With as many weights as coefficients, the decoder is on par with the CDF 9/7 wavelets and the cosine "
        "transform at both ratios."
    )
    arms = ("decoder_low", "decoder_high", "cdf97_low", "cdf97_high", "dct_low", "dct_high")
    sabotaged = {"no_upsampling_low": "decoder_low", "no_upsampling_high": "decoder_high"}
    hypotheses = tuple(
        NotWorse("psnr", f"decoder_{ratio}", f"{other}_{ratio}", margin=1)
        for ratio in RATIOS for other in ("cdf97", "dct")
    )  # fmt: skip
    untried = "Codes with entropy coding, and whole photographs, were not tried: numbers are counted, not bytes."


@dataclass(frozen=True)
class Upsampled:
    size: int
    side: int
    layers: int
    width: int
    steps: int
    lr: float = 0.01
    photos: tuple[str, ...] = SCORED


class Upsampling(Claim):
    """Which upsampling makes the decoder a model of pictures, at equal width and steps.

    The paper: bilinear and nearest represent pictures, without upsampling there is no prior.  Its convex upsampling is
    one whose new pixels are convex combinations of old ones; the weights here are our choice (a random place between
    four pixels).  Nearest and convex are shown and do not count, since the paper claims no order among them.  Without
    upsampling no pixel knows its neighbours, so a picture and its shuffled pixels are fitted alike, within 1 dB: Adam's
    path is not quite the same for the two.  No broken arm: the baseline is the decoder without the mechanism.
    """

    name = "upsampling"
    statement = (
        "The prior is in the upsampling: without it the decoder represents pictures far worse, and a picture whose "
        "pixels are shuffled as well as the picture itself."
    )
    arms = ("bilinear", "none", "nearest", "convex", "none_shuffled", "bilinear_shuffled")
    takes = ("image", "images")
    profiles = {
        "smoke": Profile(Upsampled(16, 32, 3, 6, 4), seeds=2, scale="16×16, 4 steps"),
        "full": Profile(
            Upsampled(128, 192, 5, 32, 800), scale="128×128, 5 layers of 32 channels, 800 steps (GPU: 512×512, 128)",
            cuda=Upsampled(512, 512, 6, 128, 3000, photos=MORE),
        ),
    }  # fmt: skip
    hypotheses = (
        Greater("psnr", "bilinear", "none", by=3),
        Equivalent("psnr", "none", "none_shuffled", within=1),
        Greater("psnr", "bilinear", "bilinear_shuffled", by=3),
        Greater("psnr", "bilinear", "nearest", counts=False),
        Greater("psnr", "bilinear", "convex", counts=False),
        Greater("psnr", "nearest", "none", counts=False),
    )
    untried = "Other widths and depths, and pictures above 128 pixels on a processor, were not tried."

    def load(self, settings: Any, source: Path | None) -> Pictures:
        return load_pictures(source, settings.size, settings.side, settings.photos)

    def trial(self, arm: str, seed: int, settings: Any, data: Any, record: Recorder) -> Metrics:
        image = data.crop(seed, settings.size, record.streams["data"]).to(record.device)
        upsample, _, shuffled = arm.partition("_")
        if shuffled:
            order = torch.randperm(settings.size**2, generator=record.streams["noise"]).to(record.device)
            image = image.flatten(2)[..., order].view_as(image)
        net = DeepDecoder(settings.width, settings.layers, upsample=upsample, generator=record.streams["init"])  # type: ignore[arg-type]
        made = fit_picture(net.to(record.device), image, settings, record)
        if seed < PICTURED:
            record.image(arm, made[0])
        return {"psnr": float(psnr(made, image))}


def fit_picture(
    net: DeepDecoder, image: Float[Tensor, "1 c h w"], settings: Any, record: Recorder
) -> Float[Tensor, "1 c h w"]:  # fmt: skip
    """The picture that a decoder has come to, by the paper's recipe for compression."""
    size, steps = (int(image.shape[-2]), int(image.shape[-1])), settings.steps
    fit = fit_untrained(
        net, net.input_for(size), image, steps=steps, lr=settings.lr, crop=size, stop="loss",
        input_noise=noise_schedule(0.005, steps), generator=record.streams["noise"], log=record.log,
        every=max(1, steps // 30), callback=lambda step, out, average: {"psnr": float(psnr(out, image))},
    )  # fmt: skip
    record.curve("psnr", *fit.curve["psnr"])
    return fit.best
