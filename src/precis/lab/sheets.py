"""Pictures side by side: grids with captions as PNG bytes, small ones enlarged without smoothing."""

import io
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

INK = "#33373d"
FAINT = "#8d939b"
Number = int | float


def contact_sheet(
    images: Any,
    labels: Sequence[str] | None = None,
    *,
    columns: int | None = None,
    header: Sequence[str] | None = None,
    rows: Sequence[str] | None = None,
    title: str = "",
    size: int = 192,
    gap: int = 10,
    background: str | None = "white",
) -> bytes:
    """PNG of a grid of pictures with captions.

    `images`: a sequence (or one array [N,…]) of [H,W], [C,H,W] or [H,W,C] with C = 1, 3 or 4; floats in 0…1 (clipped),
    or uint8; torch tensors are welcome.  A value that is not finite is drawn magenta.
    `labels`: one caption a picture; `header`: one a column; `rows`: one a row.
    `size`: height in pixels to which smaller pictures grow, by whole factors and without smoothing, so that pixels stay
    pixels; larger ones keep their size up to 2·`size` and are averaged down above it.  `background` None: transparent.

    Raises ValueError for no pictures, a shape that is none of the above, or captions that do not match in number.
    """
    from PIL import Image, ImageDraw

    tiles = [_enlarge(pixels_of(image), size) for image in images]
    if not tiles:
        raise ValueError("a contact sheet needs at least one picture")
    columns = columns or (len(header) if header else min(len(tiles), max(1, round(len(tiles) ** 0.5 * 1.25))))
    n_rows = -(-len(tiles) // columns)
    for name, given, wanted in (("labels", labels, len(tiles)), ("header", header, columns), ("rows", rows, n_rows)):
        if given is not None and len(given) != wanted:
            raise ValueError(f"{name}: {len(given)} given for {wanted}")
    font = _font(15)
    widths = [max(tile.width for tile in tiles[c::columns]) for c in range(min(columns, len(tiles)))]
    heads = [_wrap(text, font, w) for text, w in zip(header or [""] * len(widths), widths)]
    captions = [_wrap(text, font, widths[i % columns]) for i, text in enumerate(labels or [""] * len(tiles))]
    line = 20
    left = gap + (max(int(font.getlength(text)) for text in rows) + gap if rows else 0)
    top = gap + (line + gap if title else 0) + (line * max(len(head) for head in heads) + 4 if header else 0)
    heights = []
    for r in range(n_rows):
        row = slice(r * columns, (r + 1) * columns)
        under = line * max(len(c) for c in captions[row]) + 4 if labels else 0
        heights.append((max(tile.height for tile in tiles[row]), under))
    total = (left + sum(widths) + gap * len(widths), top + sum(h + u + gap for h, u in heights))
    total = (max(total[0], 2 * gap + int(font.getlength(title))), total[1])
    sheet = Image.new("RGBA", total, background or (0, 0, 0, 0))
    draw = ImageDraw.Draw(sheet)
    ink = INK if background else FAINT
    if title:
        draw.text((gap, gap), title, font=font, fill=ink)
    at_x = [left + sum(widths[:c]) + gap * c for c in range(len(widths))]
    if header:
        for x, w, head in zip(at_x, widths, heads):
            _centred(draw, head, x + w / 2, top - 4 - line * len(head), line, font, ink)
    y = top
    for r, (height, under) in enumerate(heights):
        if rows:
            draw.text((gap, y + height / 2), rows[r], font=font, fill=ink, anchor="lm")
        for c, tile in enumerate(tiles[r * columns : (r + 1) * columns]):
            sheet.paste(tile, (at_x[c] + (widths[c] - tile.width) // 2, y + (height - tile.height) // 2), tile)
            _centred(draw, captions[r * columns + c], at_x[c] + widths[c] / 2, y + height + 2, line, font, ink)
        y += height + under + gap
    out = io.BytesIO()
    (sheet.convert("RGB") if background else sheet).save(out, "PNG")
    return out.getvalue()


def strip(images: Any, labels: Sequence[str] | None = None, *, size: int = 192, **options: Any) -> bytes:
    """PNG of pictures side by side with captions: reconstruction | error | gradient | Laplacian."""
    images = list(images)
    return contact_sheet(images, labels, columns=max(1, len(images)), size=size, **options)


def pixels_of(image: Any) -> Any:
    """uint8 [H,W,4] of [H,W], [C,H,W] or, where the first axis cannot be channels, [H,W,C]; see `contact_sheet`."""
    import numpy as np

    x = image.detach().float().cpu().numpy() if hasattr(image, "detach") and image.is_floating_point() else image
    x = np.asarray(x.cpu() if hasattr(x, "cpu") else x)
    if x.ndim == 3 and x.shape[0] in (1, 3, 4):
        x = x.transpose(1, 2, 0)
    elif x.ndim == 2:
        x = x[:, :, None]
    if x.ndim != 3 or x.shape[2] not in (1, 3, 4) or 0 in x.shape:
        raise ValueError(f"a picture is [H,W], [C,H,W] or [H,W,C] with 1, 3 or 4 channels; got {tuple(x.shape)}")
    if x.dtype == np.uint8:
        whole, lost = x, np.zeros(x.shape[:2], bool)
    else:
        x = x.astype(np.float64)
        lost = ~np.isfinite(x).all(-1)
        whole = (np.clip(np.nan_to_num(x), 0, 1) * 255 + 0.5).astype(np.uint8)
    colour = whole[:, :, :3] if whole.shape[2] >= 3 else whole.repeat(3, 2)
    alpha = whole[:, :, 3:] if whole.shape[2] == 4 else np.full_like(whole[:, :, :1], 255)
    rgba = np.concatenate([colour, alpha], 2)
    rgba[lost] = (255, 0, 255, 255)
    return rgba


def _enlarge(pixels: Any, size: int) -> Any:
    from PIL import Image

    tile = Image.fromarray(pixels)
    if tile.height < size:
        factor = max(1, min(round(size / tile.height), 4 * size // tile.width))
        return tile.resize((tile.width * factor, tile.height * factor), Image.Resampling.NEAREST)
    if tile.height > 2 * size:
        return tile.resize((max(1, round(tile.width * 2 * size / tile.height)), 2 * size), Image.Resampling.BOX)
    return tile


@cache
def _font(size: int) -> Any:
    import matplotlib
    from PIL import ImageFont

    return ImageFont.truetype(Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def _wrap(text: str, font: Any, width: Number) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width:
            lines[-1] += f" {word}"
            continue
        while font.getlength(word) > width and len(word) > 1:
            cut = next(n for n in range(len(word) - 1, 0, -1) if n == 1 or font.getlength(word[:n]) <= width)
            lines.append(word[:cut])
            word = word[cut:]
        lines.append(word)
    return lines


def _centred(draw: Any, lines: list[str], x: Number, y: Number, line: int, font: Any, ink: str) -> None:
    for i, text in enumerate(lines):
        draw.text((x, y + line * (i + 0.5)), text, font=font, fill=ink, anchor="mm")
