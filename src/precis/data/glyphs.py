"""Characters in many typefaces: small grey pictures with a known character, typeface and alphabet.

Drawn with Pillow from the TrueType files that matplotlib ships (DejaVu Sans, Sans Mono and Serif, STIX; four styles of
each), then moved, turned, scaled and given grey levels, a background and noise.  Characters that look alike in some
typeface (O o 0, Latin A and Greek Α) are one class: `ALIKE`.  Everything depends on `seed` alone.
"""

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Int64, UInt8
from torch import Tensor

from precis.data.embedded import patches
from precis.errors import InputError

UPPER, LOWER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "abcdefghijklmnopqrstuvwxyz"
ALPHABETS = {
    "latin": UPPER + LOWER, "upper": UPPER, "lower": LOWER, "digits": "0123456789",
    "greek": "ΑΒΓΔΕΖΗΘΙΚΛΜΝΞΟΠΡΣΤΥΦΧΨΩαβγδεζηθικλμνξοπρστυφχψω",
}  # fmt: skip
# Characters that some typeface draws alike but for their size; a class is called by the first of them that is there.
ALIKE = (
    "AΑ", "aα", "BΒβ", "Cc", "EΕ", "HΗ", "Il1Ι", "KkΚκ", "MΜ", "NΝ", "Oo0Οο", "PpΡρ", "Ss", "TΤτ", "Uuυ", "Vvν", "Wwω",
    "XxΧχ", "YyΥγ", "ZzΖ", "Θθ", "Φφ", "Ψψ",
)  # fmt: skip
FONTS = (
    "DejaVuSans", "DejaVuSans-Bold", "DejaVuSans-Oblique", "DejaVuSans-BoldOblique",
    "DejaVuSansMono", "DejaVuSansMono-Bold", "DejaVuSansMono-Oblique", "DejaVuSansMono-BoldOblique",
    "DejaVuSerif", "DejaVuSerif-Bold", "DejaVuSerif-Italic", "DejaVuSerif-BoldItalic",
    "STIXGeneral", "STIXGeneralBol", "STIXGeneralItalic", "STIXGeneralBolIta",
)  # fmt: skip
DRAWN, INK = 64, 46  # side of the mask that pictures are sampled from, and of the character in it
CHUNK = 2048


class Glyphs(NamedTuple):
    """`images` uint8 [N,1,S,S], `labels` int64 [N], `fonts` int64 [N]: places in the fonts that were asked for."""

    images: UInt8[np.ndarray, "n 1 s s"]
    labels: Int64[np.ndarray, "n"]
    fonts: Int64[np.ndarray, "n"]


def classes_of(alphabet: str) -> tuple[str, ...]:
    """The characters of each class of "upper+digits" and the like, in their order; alike ones share a class."""
    unknown = [name for name in alphabet.split("+") if name not in ALPHABETS]
    if unknown:
        raise InputError(f"no alphabet is called {unknown[0]!r}: {', '.join(ALPHABETS)}, joined by +")
    characters = "".join(dict.fromkeys("".join(ALPHABETS[name] for name in alphabet.split("+"))))
    groups = {c: word for word in ALIKE for c in word}
    words = dict.fromkeys(groups.get(c, c) for c in characters)
    return tuple("".join(c for c in word if c in characters) for word in words)


def split_fonts(held: Sequence[str] = ("STIXGeneral",)) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Fonts to train on, and those of the typefaces `held` out, all four styles of each: DejaVuSans,
    DejaVuSansMono, DejaVuSerif, STIXGeneral."""
    family = {font: (font[:11] if font.startswith("STIX") else font.split("-")[0]) for font in FONTS}
    if unknown := set(held) - set(family.values()):
        raise InputError(f"no typeface is called {min(unknown)!r}: {', '.join(dict.fromkeys(family.values()))}")
    return tuple(f for f in FONTS if family[f] not in held), tuple(f for f in FONTS if family[f] in held)


def glyphs(
    alphabet: str = "latin+digits", fonts: Sequence[str] = FONTS, size: int = 16, n_per_class: int = 100, *,
    affine: float | int = 1.0, noise: float | int = 0.08, levels: float | int = 1.0,
    background: Literal["plain", "photo"] = "plain", labels: Literal["char", "font", "alphabet"] = "char",
    classes: int | None = None, seed: int = 0,
) -> Glyphs:  # fmt: skip
    """`n_per_class` pictures of each class of `alphabet` (of the first so many `classes`), class by class.

    affine: strength of the random map; 1 turns by ±15°, moves by ±10 %, scales by 0.8 … 1.1 and slants by ±0.2.
    noise: its standard deviation.  levels: how freely greys are drawn, 0: white on black; 1: any two that differ by a
    third of the range, the ink darker or lighter (so that a picture can be told by its greys alone).  background: one
    grey, or a piece of a photograph.  labels: the class, the font, or the alphabet among those named.
    """
    words = classes_of(alphabet)
    if classes is not None and not 1 <= classes <= len(words):
        raise InputError(f"{alphabet} has {len(words)} classes, {classes} were asked for")
    if not fonts or not set(fonts) <= set(FONTS):
        raise InputError(f"fonts are some of {', '.join(FONTS)}; got {', '.join(fonts) or 'none'}")
    if size < 8 or size > DRAWN or n_per_class < 1:
        raise InputError(f"pictures of 8 to {DRAWN} pixels, one or more a class: got {size} and {n_per_class}")
    words = words[:classes]
    generator = torch.Generator().manual_seed(seed)
    n = len(words) * n_per_class
    which = torch.arange(len(words)).repeat_interleave(n_per_class)
    draw = torch.rand(n, 3, generator=generator)
    font = (draw[:, 0] * len(fonts)).long()
    bold = (draw[:, 1] < 0.3).long()
    characters = [word[int(u * len(word))] for word, u in zip((words[int(w)] for w in which), draw[:, 2].tolist())]
    masks = np.stack([_mask(c, fonts[f], b) for c, f, b in zip(characters, font.tolist(), bold.tolist())])
    ink = torch.cat([_moved(torch.from_numpy(masks[i : i + CHUNK]), size, float(affine), generator)
                     for i in range(0, n, CHUNK)])  # fmt: skip
    ground, level = torch.rand(n, 1, 1, 1, generator=generator), torch.rand(n, 1, 1, 1, generator=generator)
    free = (2 / 3 * level).where(level * 2 / 3 < ground - 1 / 3, 1 / 3 + 2 / 3 * level)
    shade = torch.where((free - ground).abs() >= 1 / 3, free, torch.where(ground < 0.5, ground + 0.4, ground - 0.4))
    ground, shade = levels * ground, 1 - levels * (1 - shade)
    if background == "photo":
        pieces = torch.from_numpy(patches(size, n, grey=True, seed=seed)).float() / 255
        ground = (0.5 * pieces + 0.5 * ground).clamp(0, 1)
        middle = ground.mean((2, 3), keepdim=True)
        shade = torch.where(middle < 0.5, middle + 0.4, middle - 0.4)
    pictures = ground + ink * (shade - ground)
    pictures = (pictures + noise * torch.randn(pictures.shape, generator=generator)).clamp(0, 1)
    names = alphabet.split("+")
    by = {"char": which, "font": font,
          "alphabet": torch.tensor([next(i for i, a in enumerate(names) if c in ALPHABETS[a]) for c in characters])}
    return Glyphs((pictures * 255).round().to(torch.uint8).numpy(), by[labels].numpy(), font.numpy())


def _moved(masks: Tensor, size: int, strength: float, generator: torch.Generator) -> Tensor:
    """Masks uint8 [B,64,64] under random affine maps, [B,1,S,S] in 0 … 1: sampled at twice the size and averaged."""
    x = masks[:, None].float() / 255
    pool = max(1, DRAWN // (2 * size))
    x = F.avg_pool2d(x, pool) if pool > 1 else x
    u = 2 * torch.rand(len(x), 5, generator=generator) - 1
    angle, slant = strength * u[:, 0] * 15 * torch.pi / 180, strength * u[:, 1] * 0.2
    scale = 1 / (1 - strength * (0.05 - 0.15 * u[:, 2]))
    cos, sin = angle.cos() * scale, angle.sin() * scale
    theta = torch.stack([cos, cos * slant - sin, 0.2 * strength * u[:, 3],
                         sin, sin * slant + cos, 0.2 * strength * u[:, 4]], 1).view(-1, 2, 3)  # fmt: skip
    grid = F.affine_grid(theta, [len(x), 1, 2 * size, 2 * size], align_corners=False)
    return F.avg_pool2d(F.grid_sample(x, grid, align_corners=False), 2)


@cache
def _mask(character: str, font: str, bold: int) -> UInt8[np.ndarray, "64 64"]:
    """A character white on black, its longer side 46 pixels, in the middle."""
    from PIL import Image, ImageDraw

    stroke = 3 * bold
    drawing = _font(font)
    left, top, right, bottom = drawing.getbbox(character, stroke_width=stroke)
    sheet = Image.new("L", (int(right - left), int(bottom - top)))
    ImageDraw.Draw(sheet).text((-left, -top), character, fill=255, font=drawing, stroke_width=stroke)
    factor = INK / max(sheet.size)
    sheet = sheet.resize((max(1, round(sheet.width * factor)), max(1, round(sheet.height * factor))))
    mask = Image.new("L", (DRAWN, DRAWN))
    mask.paste(sheet, ((DRAWN - sheet.width) // 2, (DRAWN - sheet.height) // 2))
    return np.asarray(mask)


@cache
def _font(name: str):  # type: ignore[no-untyped-def]
    from PIL import ImageFont

    spec = find_spec("matplotlib")
    assert spec is not None and spec.submodule_search_locations is not None, "matplotlib is a dependency"
    return ImageFont.truetype(Path(spec.submodule_search_locations[0]) / f"mpl-data/fonts/ttf/{name}.ttf", 96)
