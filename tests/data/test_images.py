"""Every way in which a picture can be stored, or be wrong."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow
from PIL import ImageOps

from precis.data.images import Image, as_bytes, as_float, composite, read_image, resize, shrink, write_image
from precis.errors import InputError

rng = np.random.default_rng(0)
RGB = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)


def png16(samples: np.ndarray, colour_type: int, extra: bytes = b"", filters: tuple[int, ...] = (0,)) -> bytes:
    """A 16-bit PNG [H,W,C] written by hand (Pillow writes none in colour), rows filtered by `filters` in turn."""
    height, width, channels = samples.shape
    rows = samples.astype(">u2").reshape(height, -1).view(np.uint8).reshape(height, -1)
    step, above, body = 2 * channels, np.zeros(rows.shape[1], np.uint8), b""
    for i, row in enumerate(rows):
        kind = filters[i % len(filters)]
        left = np.concatenate([np.zeros(step, np.uint8), row[:-step]])
        body += bytes([kind]) + (row - {0: 0, 1: left, 2: above}[kind]).astype(np.uint8).tobytes()
        above = row

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    idat = chunk(b"IDAT", zlib.compress(body))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + idat + chunk(b"IEND", b"")


def test_rgb_png_keeps_every_byte(tmp_path):
    Pillow.fromarray(RGB).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    assert image.pixels.dtype == np.uint8 and image.alpha is None
    np.testing.assert_array_equal(image.pixels, np.moveaxis(RGB, -1, 0))
    assert image.meta["format"] == "PNG" and image.meta["bits"] == 8 and image.meta["frames"] == 1


def test_grey_stays_one_channel_and_bilevel_becomes_0_and_255(tmp_path):
    Pillow.fromarray(RGB[..., 0]).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png").pixels, RGB[None, ..., 0])
    Pillow.fromarray(RGB[..., 0] > 127).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(read_image(tmp_path / "bits.png").pixels[0], np.where(RGB[..., 0] > 127, 255, 0))


def test_alpha_is_kept_apart(tmp_path):
    rgba = rng.integers(0, 256, (5, 7, 4), dtype=np.uint8)
    Pillow.fromarray(rgba).save(tmp_path / "a.png")
    image = read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(image.pixels, np.moveaxis(rgba[..., :3], -1, 0))
    np.testing.assert_array_equal(image.alpha[0], rgba[..., 3])
    Pillow.fromarray(rgba[..., :2].copy(), "LA").save(tmp_path / "la.png")
    image = read_image(tmp_path / "la.png")
    assert image.pixels.shape == (1, 5, 7) and image.alpha.shape == (1, 5, 7)


def test_palette_with_transparent_entry(tmp_path):
    indexed = Pillow.fromarray(rng.integers(0, 4, (5, 7), dtype=np.uint8), "P")
    indexed.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    indexed.save(tmp_path / "p.png", transparency=2)
    image = read_image(tmp_path / "p.png")
    index = np.asarray(indexed)
    assert image.pixels.shape == (3, 5, 7)
    np.testing.assert_array_equal(image.pixels[0], np.array([10, 40, 70, 100])[index])
    np.testing.assert_array_equal(image.alpha[0], np.where(index == 2, 0, 255))
    indexed.save(tmp_path / "q.png")
    assert read_image(tmp_path / "q.png").alpha is None


def test_cmyk_becomes_rgb(tmp_path):
    flat = np.zeros((8, 8, 4), np.uint8)
    flat[..., 0] = 255  # full cyan
    Pillow.fromarray(flat, "CMYK").save(tmp_path / "c.jpg", quality=100)
    pixels = read_image(tmp_path / "c.jpg").pixels
    assert pixels.shape == (3, 8, 8) and np.abs(pixels[:, 4, 4].astype(int) - [0, 255, 255]).max() < 6


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, suffix, orientation):
    smooth = np.add.outer(np.arange(16) * 9, np.arange(24) * 4).astype(np.uint8)
    picture = Pillow.fromarray(np.stack([smooth, smooth[::-1], smooth[:, ::-1]], -1))
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"o.{suffix}"
    picture.save(path, exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    with Pillow.open(path) as stored:
        want = np.moveaxis(np.asarray(ImageOps.exif_transpose(stored)), -1, 0)
    np.testing.assert_array_equal(read_image(path).pixels, want)
    assert want.shape == ((3, 24, 16) if orientation > 4 else (3, 16, 24))


def test_16_bit_grey_png_and_tiff(tmp_path):
    deep = rng.integers(0, 65536, (5, 7), dtype=np.uint16)
    deep[0, 0], deep[0, 1] = 65535, 0
    Pillow.fromarray(deep).save(tmp_path / "a.png")
    Pillow.fromarray(deep).save(tmp_path / "a.tif")
    for name in ("a.png", "a.tif"):
        image = read_image(tmp_path / name)
        assert image.pixels.dtype == np.float32 and image.meta["bits"] == 16
        np.testing.assert_allclose(image.pixels[0], deep / 65535, rtol=1e-6)
        assert image.pixels.max() == 1


@pytest.mark.parametrize(("colour_type", "channels"), [(2, 3), (6, 4), (4, 2)])
def test_16_bit_colour_png_loses_no_bit(colour_type, channels):
    deep = rng.integers(0, 65536, (6, 7, channels), dtype=np.uint16)
    image = read_image(png16(deep, colour_type, filters=(0, 1, 2)), name="deep.png")
    colours = 3 if channels > 2 else 1
    np.testing.assert_allclose(image.pixels, np.moveaxis(deep[..., :colours], -1, 0) / 65535, rtol=1e-6)
    if channels in (2, 4):
        np.testing.assert_allclose(image.alpha[0], deep[..., -1] / 65535, rtol=1e-6)


def test_interlaced_16_bit_colour_png():
    deep = rng.integers(0, 65536, (11, 13, 3), dtype=np.uint16)
    adam7 = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    rows = [row for y, x, down, right in adam7 for row in deep[y::down, x::right] if row.size]
    body = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rows)
    plain = png16(deep, 2)
    header = struct.pack(">IIBBBBB", 13, 11, 16, 2, 0, 0, 1)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(body)), (b"IEND", b"")]
    packed = [struct.pack(">I", len(d)) + n + d + struct.pack(">I", zlib.crc32(n + d)) for n, d in chunks]
    image = read_image(plain[:8] + b"".join(packed), name="deep.png")
    np.testing.assert_array_equal(image.pixels, read_image(plain).pixels)


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_deep_tiff_with_orientation_and_with_white_as_zero(tmp_path, kind):
    values = (rng.integers(0, 60_000, (4, 6)) / (1 if kind == np.uint16 else 60_000)).astype(kind)
    tifffile.imwrite(tmp_path / "r.tif", values, extratags=[(274, "H", 1, 6, True)])
    upright = np.rot90(values, -1) / (65535 if kind == np.uint16 else 1)
    np.testing.assert_allclose(read_image(tmp_path / "r.tif").pixels[0], upright, rtol=1e-6)
    if kind == np.uint16:
        tifffile.imwrite(tmp_path / "w.tif", values, photometric="miniswhite")
        np.testing.assert_allclose(read_image(tmp_path / "w.tif").pixels[0], 1 - values / 65535, atol=1e-6)


def test_16_bit_rgb_png_with_a_transparent_colour():
    deep = np.full((2, 2, 3), 1000, np.uint16)
    deep[0, 1] = (1000, 1000, 1001)
    data = struct.pack(">HHH", 1000, 1000, 1001)
    chunk = struct.pack(">I", 6) + b"tRNS" + data + struct.pack(">I", zlib.crc32(b"tRNS" + data))
    image = read_image(png16(deep, 2, extra=chunk))
    np.testing.assert_array_equal(image.alpha[0], [[1, 0], [1, 1]])


@pytest.mark.parametrize("planar", ["contig", "separate"])
def test_float_and_16_bit_colour_tiff(tmp_path, planar):
    values = rng.normal(0, 3, (5, 7, 3)).astype(np.float32)
    stored = values if planar == "contig" else np.moveaxis(values, -1, 0)
    tifffile.imwrite(tmp_path / "f.tif", stored, photometric="rgb", planarconfig=planar)
    image = read_image(tmp_path / "f.tif")
    np.testing.assert_array_equal(image.pixels, np.moveaxis(values, -1, 0))  # the range is kept
    deep = rng.integers(0, 65536, (5, 7, 3), dtype=np.uint16)
    stored = deep if planar == "contig" else np.moveaxis(deep, -1, 0)
    tifffile.imwrite(tmp_path / "d.tif", stored, photometric="rgb", planarconfig=planar, compression="zlib")
    np.testing.assert_allclose(read_image(tmp_path / "d.tif").pixels, np.moveaxis(deep, -1, 0) / 65535, rtol=1e-6)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_named_with_its_place(tmp_path, bad):
    values = np.zeros((4, 6), np.float32)
    values[2, 5] = bad
    tifffile.imwrite(tmp_path / "f.tif", values)
    with pytest.raises(InputError, match=r"f\.tif: pixel at row 2, column 5, channel 0"):
        read_image(tmp_path / "f.tif")


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "empty"), (b"hello world, this is text", "no picture"), (b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", "picture"),
     (b"\xff\xd8\xff\xe0junk", "picture")],
)  # fmt: skip
def test_what_is_no_picture(tmp_path, content, words):
    path = tmp_path / "bad.png"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        read_image(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(InputError, match=r"none\.png: no such file"):
        read_image(tmp_path / "none.png")
    with pytest.raises(InputError, match="this is a folder"):
        read_image(tmp_path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "gif", "bmp"])
def test_truncated_files_are_refused(tmp_path, suffix):
    path = tmp_path / f"t.{suffix}"
    Pillow.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=rf"t\.{suffix}"):
        read_image(path)


def test_a_bomb_is_refused_before_it_is_decoded(tmp_path):
    path = tmp_path / "bomb.png"
    Pillow.new("1", (20_000, 20_000)).save(path)
    assert path.stat().st_size < 100_000
    with pytest.raises(InputError, match=r"bomb\.png: .*limit of 100,000,000"):
        read_image(path)
    Pillow.new("L", (30, 30)).save(tmp_path / "small.png")
    with pytest.raises(InputError, match="30×30 pixels, more than the limit of 100"):
        read_image(tmp_path / "small.png", max_pixels=100)
    tifffile.imwrite(tmp_path / "deep.tif", np.zeros((30, 30, 3), np.uint16), photometric="rgb")
    with pytest.raises(InputError, match="limit of 100"):
        read_image(tmp_path / "deep.tif", max_pixels=100)


def test_formats_that_start_other_programs_are_not_opened(tmp_path):
    path = tmp_path / "e.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n")
    with pytest.raises(InputError, match="no picture"):
        read_image(path)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=300), st.sampled_from([
    b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08",
    b"II+\0\x08\0\0\0", b"RIFF\x20\0\0\0WEBPVP8 ", b"BM", b"P6\n", b"Pf\n", b"P5 3 3 65535\n", b"\0\0\1\0\1\0",
    b"\0\0\0\x0cjP  \r\n\x87\n",
]))  # fmt: skip
def test_random_bytes_raise_input_error_or_give_a_picture(tail, magic):
    try:
        image = read_image(magic + tail, name="fuzz")
    except InputError as error:
        assert str(error).startswith("fuzz: ")
    else:
        assert image.pixels.ndim == 3 and image.pixels.shape[0] in (1, 3)


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_a_damaged_picture_raises_input_error_or_gives_a_picture(data):
    fmt, mode = data.draw(st.sampled_from([
        ("PNG", "RGB"), ("PNG", "I;16"), ("JPEG", "RGB"), ("GIF", "P"), ("TIFF", "F"), ("TIFF", "RGB"), ("WEBP", "RGB"),
        ("PPM", "RGB"), ("BMP", "RGB"),
    ]))  # fmt: skip
    stream = io.BytesIO()
    Pillow.new(mode, (9, 6)).save(stream, fmt)
    body = bytearray(stream.getvalue())
    for _ in range(data.draw(st.integers(1, 6))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert read_image(bytes(body), name="fuzz", max_pixels=1_000_000).pixels.ndim == 3
    except InputError as error:
        assert str(error).startswith("fuzz: ")


def test_composite_lays_on_a_background():
    pixels = np.full((3, 1, 3), 100, np.uint8)
    alpha = np.array([[[0, 255, 51]]], np.uint8)
    white = composite(Image(pixels, alpha, {}))
    np.testing.assert_array_equal(white.pixels[0], [[255, 100, round(0.2 * 100 + 0.8 * 255)]])
    assert white.alpha is None and white.pixels.dtype == np.uint8
    red = composite(Image(pixels[:1], alpha, {}), "red")
    np.testing.assert_array_equal(red.pixels[:, 0, 0], [255, 0, 0])
    half = composite(Image(as_float(pixels), as_float(alpha), {}), (0.5,))
    np.testing.assert_allclose(half.pixels[0, 0], [0.5, 100 / 255, 0.2 * 100 / 255 + 0.4], rtol=1e-6)
    with pytest.raises(InputError, match="'sky' is no colour"):
        composite(Image(pixels, alpha, {}), "sky")
    with pytest.raises(InputError, match="between 0 and 1"):
        composite(Image(pixels, alpha, {}), (0.0, 2.0, 0.0))


@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_write_and_read_round_trip(tmp_path, suffix):
    pixels = np.moveaxis(RGB, -1, 0)
    alpha = RGB[None, ..., 1].copy()
    image = read_image(write_image(tmp_path / f"w.{suffix}", pixels, alpha))
    np.testing.assert_array_equal(image.pixels, pixels)
    np.testing.assert_array_equal(image.alpha, alpha)
    grey = as_float(pixels[:1])
    image = read_image(write_image(tmp_path / f"g.{suffix}", grey))
    np.testing.assert_allclose(as_float(image.pixels[:1]), grey, atol=1e-7)
    assert [p.name for p in sorted(tmp_path.iterdir())] == [f"g.{suffix}", f"w.{suffix}"]


def test_float_tiff_keeps_the_range(tmp_path):
    values = rng.normal(0, 5, (3, 4, 6)).astype(np.float32)
    np.testing.assert_array_equal(read_image(write_image(tmp_path / "f.tif", values)).pixels, values)
    np.testing.assert_array_equal(read_image(write_image(tmp_path / "g.tif", values[0])).pixels, values[:1])


def test_write_refuses_and_leaves_nothing_half_written(tmp_path, monkeypatch):
    with pytest.raises(InputError, match="cannot write"):
        write_image(tmp_path / "a.xyz", np.zeros((4, 4)))
    with pytest.raises(InputError, match="no alpha"):
        write_image(tmp_path / "a.jpg", np.zeros((4, 4)), np.zeros((4, 4)))
    with pytest.raises(ValueError, match="NaN"):
        write_image(tmp_path / "a.png", np.full((4, 4), np.nan))
    with pytest.raises(ValueError, match=r"\[2, 4, 4\]"):
        write_image(tmp_path / "a.png", np.zeros((2, 4, 4)))
    write_image(tmp_path / "a.png", np.zeros((4, 4)))

    def full(self, path, *args, **kwargs):
        path.write_bytes(b"half")
        raise OSError("No space left on device")

    monkeypatch.setattr(Pillow.Image, "save", full)
    with pytest.raises(OSError, match="No space"):
        write_image(tmp_path / "a.png", np.ones((4, 4)))
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert read_image(tmp_path / "a.png").pixels.max() == 0


def test_resize_and_shrink():
    ramp = np.tile(np.linspace(0, 1, 32, dtype=np.float32), (1, 16, 1))
    small = resize(ramp, (8, 16))
    assert small.shape == (1, 8, 16) and small.dtype == np.float32
    np.testing.assert_allclose(small[0, 4, 2:-2], ramp[0, 0].reshape(16, 2).mean(1)[2:-2], atol=1e-3)
    assert resize(as_bytes(np.repeat(ramp, 3, 0)), (4, 4)).dtype == np.uint8
    wide = Image(np.zeros((3, 100, 300), np.uint8), None, {})
    assert shrink(wide, 30).pixels.shape == (3, 10, 30) and shrink(wide, 400) is wide
    clear = np.zeros((3, 20, 20), np.uint8)
    clear[:, :, 10:] = 200  # what is clear is black and must not darken the edge
    alpha = np.where(np.arange(20) >= 9, 255, 0).astype(np.uint8)[None, None].repeat(20, 1)
    clear[:, :, 9] = 200
    out = shrink(Image(clear, alpha, {}), 10)
    assert (out.pixels[:, 5, 5:] == 200).all() and 0 < out.alpha[0, 5, 4] < 255 and (out.pixels[:, 5, 4] == 200).all()
