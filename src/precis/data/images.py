"""Pictures from and to files.

`read_image` gives the pixels as they are stored: uint8 for 8-bit files; float32 in [0, 1] for 16-bit ones (divided by
65535); float32 in the file's own range for float TIFF.  EXIF orientation is applied, palettes and CMYK become RGB, grey
stays one channel, alpha is kept apart.  sRGB values are not linearised.
"""

import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Shaped, UInt8

from precis.data.decode import MAX_PIXELS, WANTED, decode
from precis.data.files import contents, whole
from precis.errors import InputError

SUFFIXES = (
    ".png", ".jpg", ".jpeg", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".ppm", ".pgm", ".pbm", ".pfm", ".jp2", ".avif",
    ".ico", ".mpo",
)  # fmt: skip


class Image(NamedTuple):
    """`pixels` [C,H,W], C = 1 or 3, uint8 or float32; `alpha` [1,H,W] of the same kind in [0, 1], straight, or None.

    `meta`: file, format, mode (as stored), bits (a sample), frames (in the file; the first is given).
    """

    pixels: np.ndarray
    alpha: np.ndarray | None
    meta: dict[str, Any]


def read_image(
    source: str | Path | bytes, *, name: str | None = None, max_pixels: int = MAX_PIXELS, near: int | None = None,
    page: int = 0,
) -> Image:  # fmt: skip
    """Decode a file (or its bytes, called `name` in errors).

    `near`: a JPEG may be decoded at a half, a quarter or an eighth of its size, as long as no side falls below this.
    `page`: which picture of a TIFF with several.

    InputError for anything that is not a whole picture of at most `max_pixels` pixels with finite values; the size is
    checked before anything is decoded.
    """
    if isinstance(source, bytes):
        label, data = name or "picture", source
        if not data:
            raise InputError(f"the file is empty; {WANTED} is wanted", file=label)
    else:
        label = name or str(source)
        data = contents(source, WANTED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return read_bytes(data, label, max_pixels, near, page)


def read_bytes(data: bytes, label: str, max_pixels: int, near: int | None = None, page: int = 0) -> Image:
    """`read_image` for threads: Pillow's warnings are not held back (the filter belongs to the whole process)."""
    try:
        image = Image(*decode(data, label, max_pixels, near, page))
    except InputError:
        raise
    except MemoryError as error:
        raise InputError("there is not enough memory for this picture; make it smaller", file=label) from error
    except Exception as error:  # a decoder may raise anything on broken bytes
        raise InputError(f"the picture is damaged or cut short ({_words(error)}); save it again", file=label) from error
    _finite(image.pixels, label)
    return image


def composite(image: Image, background: "str | tuple[float | int, ...]" = "white") -> Image:
    """Lay the picture on a plain `background` (a colour name, #rrggbb, or 1 or 3 numbers in [0, 1]); alpha is used up.

    The kind of the pixels is kept.  A grey picture becomes RGB only if the background is not grey.
    """
    if image.alpha is None:
        return image
    colour = colour_of(background)
    if len(set(colour.tolist())) == 1:
        colour = colour[:1]
    alpha = as_float(image.alpha)
    pixels = as_float(image.pixels) * alpha + colour[:, None, None] * (1 - alpha)
    return Image(as_bytes(pixels) if image.pixels.dtype == np.uint8 else pixels.astype(np.float32), None, image.meta)


def colour_of(background: "str | tuple[float | int, ...]") -> np.ndarray:
    """A colour as three float32 numbers in [0, 1]."""
    if isinstance(background, str):
        from PIL import ImageColor

        try:
            rgb = ImageColor.getrgb(background)[:3]
        except ValueError as error:
            raise InputError(f"{background!r} is no colour: give a name such as white, or #rrggbb") from error
        return np.asarray(rgb, np.float32) / 255
    colour = np.asarray(background, np.float32).reshape(-1)
    if colour.size not in (1, 3) or not ((colour >= 0) & (colour <= 1)).all():
        raise InputError(f"the background {background!r} must be 1 or 3 numbers between 0 and 1")
    return np.broadcast_to(colour, (3,)).copy()


def as_float(pixels: Shaped[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """uint8 → float32 in [0, 1]; floats pass as float32."""
    return pixels.astype(np.float32) / np.float32(255) if pixels.dtype == np.uint8 else pixels.astype(np.float32)


def as_bytes(pixels: Shaped[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape"]:
    """Floats in [0, 1] (clipped) → uint8, rounded; uint8 passes.  ValueError for NaN."""
    if pixels.dtype == np.uint8:
        return pixels
    pixels = np.asarray(pixels, np.float32)
    if np.isnan(pixels).any():
        raise ValueError("pixels hold NaN")
    rounded: np.ndarray = np.rint(np.clip(pixels, 0, 1) * 255)
    return rounded.astype(np.uint8)


def resize(pixels: Shaped[np.ndarray, "c h w"], size: tuple[int, int]) -> Shaped[np.ndarray, "c {size[0]} {size[1]}"]:
    """[C,H,W] → [C,h,w] for size = (h, w), bicubic with antialiasing; uint8 stays uint8, floats become float32."""
    from PIL import Image as Pillow

    if pixels.shape[1:] == tuple(size):
        return pixels
    height, width = size
    if pixels.dtype == np.uint8 and pixels.shape[0] in (1, 3):
        made = Pillow.fromarray(np.ascontiguousarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1)))
        out = np.asarray(made.resize((width, height), Pillow.Resampling.BICUBIC))
        return out[None] if out.ndim == 2 else np.ascontiguousarray(np.moveaxis(out, -1, 0))
    planes = [Pillow.fromarray(np.ascontiguousarray(p, dtype=np.float32)) for p in pixels]
    out = np.stack([np.asarray(p.resize((width, height), Pillow.Resampling.BICUBIC)) for p in planes])
    return np.rint(out.clip(0, 255)).astype(np.uint8) if pixels.dtype == np.uint8 else out


def shrink(image: Image, longest: int) -> Image:
    """Reduce a picture so that its longest side is at most `longest`; a smaller one is returned as it is.

    With alpha, colours are weighted by it, so that clear pixels do not bleed into the edge.
    """
    height, width = image.pixels.shape[1:]
    scale = longest / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(height * scale)), max(1, round(width * scale)))
    if image.alpha is None:
        return image._replace(pixels=resize(image.pixels, size))
    alpha = resize(as_float(image.alpha), size)
    weighted = resize(as_float(image.pixels) * as_float(image.alpha), size)
    pixels, alpha = weighted / np.maximum(alpha, 1e-6), alpha.clip(0, 1)
    if image.pixels.dtype == np.uint8:
        return image._replace(pixels=as_bytes(pixels), alpha=as_bytes(alpha))
    return image._replace(pixels=pixels, alpha=alpha)


def write_image(path: str | Path, pixels: np.ndarray, alpha: np.ndarray | None = None) -> Path:
    """Write [H,W] or [C,H,W] (uint8, or floats in [0, 1]) in the format that the suffix names; whole or not at all.

    `.tif` keeps floats as float32 samples in their own range; every other format stores 8 bits (values clipped).
    JPEG takes no alpha.
    """
    path, pixels = Path(path), np.asarray(pixels)
    pixels = pixels[None] if pixels.ndim == 2 else pixels
    if pixels.ndim != 3 or pixels.shape[0] not in (1, 3) or 0 in pixels.shape:
        raise ValueError(f"a picture is [H,W], [1,H,W] or [3,H,W], got {list(pixels.shape)}")
    suffix = path.suffix.lower()
    if suffix not in (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp"):
        raise InputError(f"cannot write a picture as '{suffix}': use .png, .webp, .jpg or .tif", file=path)
    if suffix in (".tif", ".tiff") and pixels.dtype != np.uint8:
        return _write_float_tiff(path, pixels, alpha)
    if alpha is not None and suffix not in (".png", ".webp", ".tif", ".tiff"):
        raise InputError("this format stores no alpha: use .png or .webp", file=path)
    made = to_pillow(pixels, alpha)
    jpeg = {"quality": 95, "subsampling": 0}
    options: dict[str, Any] = {".webp": {"lossless": True, "exact": True}, ".jpg": jpeg, ".jpeg": jpeg}
    with whole(path) as beside:
        made.save(beside, **options.get(suffix, {}))
    return path


def to_pillow(pixels: np.ndarray, alpha: np.ndarray | None = None) -> Any:
    """A Pillow picture from [C,H,W]."""
    from PIL import Image as Pillow

    planes = [as_bytes(pixels)]
    if alpha is not None:
        planes.append(as_bytes(np.asarray(alpha).reshape(1, *pixels.shape[1:])))
    stack = np.moveaxis(np.concatenate(planes), 0, -1)
    return Pillow.fromarray(np.ascontiguousarray(stack[..., 0] if stack.shape[-1] == 1 else stack))


def _write_float_tiff(path: Path, pixels: np.ndarray, alpha: np.ndarray | None) -> Path:
    import tifffile

    planes = pixels if alpha is None else np.concatenate([pixels, np.asarray(alpha).reshape(1, *pixels.shape[1:])])
    stack = np.moveaxis(planes.astype(np.float32), 0, -1)
    with whole(path) as beside:
        tifffile.imwrite(
            beside, stack[..., 0] if stack.shape[-1] == 1 else stack,
            photometric="minisblack" if pixels.shape[0] == 1 else "rgb",
            extrasamples=None if alpha is None else ["unassalpha"],
        )  # fmt: skip
    return path


def _finite(pixels: np.ndarray, label: str) -> None:
    if pixels.dtype == np.uint8 or np.isfinite(pixels).all():
        return
    channel, row, column = (int(i) for i in np.argwhere(~np.isfinite(pixels))[0])
    raise InputError(
        f"pixel at row {row}, column {column}, channel {channel} (from 0) is {pixels[channel, row, column]}; "
        "all values must be finite", file=label,
    )  # fmt: skip


def _words(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 120 else text[:117] + "…"
