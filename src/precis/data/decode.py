"""From the bytes of a picture to samples: what Pillow loses (16-bit colour) or cannot read (float colour) included."""

import io
import logging
from typing import IO, Any

import numpy as np

from precis.errors import InputError

MAX_PIXELS = 100_000_000
FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000", "AVIF", "ICO")
WANTED = "a picture (PNG, JPEG, WebP, TIFF, GIF, BMP, PNM)"

for _decoder in ("PIL", "tifffile"):  # what is wrong with a file is told by an exception, not on stderr as well
    logging.getLogger(_decoder).setLevel(logging.CRITICAL)

Decoded = tuple[np.ndarray, np.ndarray | None, dict[str, Any]]


def check_size(width: int, height: int, label: str, max_pixels: int) -> None:
    if width * height > max_pixels:
        size = f"{width}×{height} pixels"
        raise InputError(f"the picture has {size}, more than the limit of {max_pixels:,}; make it smaller", file=label)
    if width < 1 or height < 1:
        raise InputError("the picture has no pixels", file=label)


def open_pillow(data: bytes | IO[bytes], label: str, max_pixels: int) -> Any:
    """A Pillow picture whose header was read and whose size is allowed; nothing is decoded yet."""
    from PIL import Image as Pillow
    from PIL import UnidentifiedImageError

    try:
        picture = Pillow.open(io.BytesIO(data) if isinstance(data, bytes) else data, formats=FORMATS)
    except UnidentifiedImageError as error:
        raise InputError(f"this is no picture that can be read; {WANTED} is wanted", file=label) from error
    except Pillow.DecompressionBombError as error:
        too_many = f"the picture has more pixels than the limit of {max_pixels:,}; make it smaller"
        raise InputError(too_many, file=label) from error
    except Exception as error:  # a decoder may raise anything on broken bytes
        raise InputError(f"the picture is damaged or cut short ({error}); save it again", file=label) from error
    check_size(*picture.size, label, max_pixels)
    return picture


def decode(data: bytes, label: str, max_pixels: int, near: int | None = None, page: int = 0) -> Decoded:
    """Pixels, alpha and meta of a picture in `data`; any exception may come out of broken bytes."""
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        deep = _deep_tiff(data, label, max_pixels, page)
        if deep is not None:
            return deep
    picture = open_pillow(data, label, max_pixels)
    if page:
        picture.seek(page)
        check_size(picture.width, picture.height, label, max_pixels)
    stored, fmt = picture.mode, picture.format or ""
    if near is not None and fmt == "JPEG":
        picture.draft(stored, (near, near))
    frames = int(getattr(picture, "n_frames", 1))
    deep_png = fmt == "PNG" and data[24:25] == b"\x10"
    if fmt == "PPM" and stored == "RGB" and picture.tile[0][3] not in ("RGB", ("RGB", 255)):
        raise InputError("colour PNM is read with 8 bits a sample only; save it as PNG or TIFF", file=label)
    samples = _deep_png(picture, data, label, max_pixels) if deep_png and stored != "I;16" else None
    if samples is None:
        samples, bits = _samples(picture)
    else:
        bits = 16
    orientation = picture.getexif().get(0x0112, 1)
    pixels, alpha = _split_alpha(_upright(samples, orientation))
    meta = {"file": label, "format": fmt, "mode": stored, "bits": bits, "frames": frames}
    return pixels, alpha, meta


def _samples(picture: Any) -> tuple[np.ndarray, int]:
    """[C,H,W] with alpha as the last of 2 or 4 channels, and the bits a sample."""
    mode = picture.mode
    if mode == "F":
        return np.asarray(picture, np.float32)[None], 32
    if mode.startswith("I"):  # 16 bits in every format that is let in; a mode I PNG or PGM holds 0…65535 too
        clear = picture.info.get("transparency")
        grey = np.asarray(picture)
        planes = [grey] if not isinstance(clear, int) else [grey, np.where(grey == clear, 0, 65535)]
        return np.stack(planes).astype(np.float32) / np.float32(65535), 16
    if mode in ("RGBa", "La", "PA") or "transparency" in picture.info:
        picture = picture.convert("LA" if mode in ("L", "La", "1") else "RGBA")
    elif mode not in ("L", "LA", "RGB", "RGBA"):
        picture = picture.convert("L" if mode == "1" else "RGB")
    array = np.asarray(picture)
    return array[None] if array.ndim == 2 else np.moveaxis(array, -1, 0), 8


def _deep_png(picture: Any, data: bytes, label: str, max_pixels: int) -> np.ndarray:
    """16-bit PNG with several channels, of which Pillow keeps the high bytes only.

    Both halves are in the stream: read as big-endian, Pillow's unpacker takes the high byte of each sample, read as
    little-endian the low one.  Grey with alpha is four bytes a pixel, and so is read as if it were 8-bit RGBA.
    """
    colour_type, clear = data[25], picture.info.get("transparency")
    codec, extents, offset, *_ = picture.tile[0]

    def halves(rawmode: str) -> np.ndarray:
        again = open_pillow(data, label, max_pixels)
        again.tile = [type(picture.tile[0])(codec, extents, offset, rawmode)]
        again.info.pop("transparency", None)
        again.load()
        return np.moveaxis(np.asarray(again), -1, 0).astype(np.uint16)

    if colour_type == 4:
        grey_high, grey_low, alpha_high, alpha_low = halves("RGBA")
        samples = np.stack([grey_high << 8 | grey_low, alpha_high << 8 | alpha_low])
    else:
        mode = "RGBA" if colour_type == 6 else "RGB"
        samples = halves(f"{mode};16B") << 8 | halves(f"{mode};16L")
        if colour_type == 2 and isinstance(clear, tuple):
            opaque = (samples != np.asarray(clear, np.uint16)[:, None, None]).any(0)
            samples = np.concatenate([samples, np.where(opaque, 65535, 0).astype(np.uint16)[None]])
    picture.load()  # the EXIF block may stand behind the pixels
    return samples.astype(np.float32) / np.float32(65535)


def _deep_tiff(data: bytes, label: str, max_pixels: int, index: int) -> Decoded | None:
    """16-bit, 32-bit and float TIFF, which Pillow cannot read with several channels; None for 8-bit (or fewer) ones."""
    import tifffile

    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        page: Any = tiff.pages[index]
        width, height, count = page.imagewidth, page.imagelength, page.samplesperpixel
        dtype, colour = page.dtype, page.photometric
        check_size(width, height, label, max_pixels)
        if dtype is None:
            raise InputError("the TIFF's samples are of no known kind; save it as 8-bit, 16-bit or float", file=label)
        if dtype.itemsize == 1 or dtype.kind == "b":
            return None
        if dtype.kind not in "uf" or count not in (1, 2, 3, 4) or page.imagedepth != 1 or colour not in (0, 1, 2):
            kind = f"{count} samples of {dtype} a pixel"
            raise InputError(f"a TIFF with {kind} is not read; save it as grey or RGB", file=label)
        frames = len(tiff.pages)
        orientation = page.tags.get(274)
        try:
            array = page.asarray()
        except ValueError as error:
            if "imagecodecs" in str(error):
                packed = f"TIFF compression {page.compression.name} of deep samples is not read; save it without"
                raise InputError(packed, file=label) from error
            raise
        planar = page.planarconfig == 2 and count > 1
    samples = array.reshape(count, height, width) if planar else np.moveaxis(array.reshape(height, width, count), -1, 0)
    if dtype.kind == "u":
        top = np.iinfo(dtype).max
        samples = (samples / np.float64(top)).astype(np.float32)
        samples = 1 - samples if colour == 0 else samples
    pixels, alpha = _split_alpha(_upright(samples.astype(np.float32), int(orientation.value) if orientation else 1))
    meta = {"file": label, "format": "TIFF", "mode": str(dtype), "bits": dtype.itemsize * 8, "frames": frames}
    return pixels, alpha, meta


def _upright(samples: np.ndarray, orientation: int) -> np.ndarray:
    """Undo the EXIF orientation 1 … 8 of [C,H,W]."""
    if orientation in (5, 6, 7, 8):
        samples = samples.swapaxes(1, 2)
    if orientation in (2, 3, 6, 7):
        samples = samples[:, :, ::-1]
    if orientation in (3, 4, 7, 8):
        samples = samples[:, ::-1]
    return samples


def _split_alpha(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    if samples.shape[0] in (2, 4):
        return np.ascontiguousarray(samples[:-1]), np.ascontiguousarray(samples[-1:])
    return np.ascontiguousarray(samples), None
