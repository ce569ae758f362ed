import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow

from precis.data import animation
from precis.data.animation import read_frames, write_animation
from precis.data.images import write_image
from precis.errors import InputError

rng = np.random.default_rng(2)
CLIP = rng.integers(0, 256, (5, 3, 12, 10), dtype=np.uint8)


def test_webp_round_trip_is_exact(tmp_path):
    path = write_animation(tmp_path / "a.webp", CLIP, fps=20)
    assert path == tmp_path / "a.webp"
    frames = read_frames(path)
    np.testing.assert_array_equal(frames.pixels, CLIP)
    assert frames.fps == 20 and frames.alpha is None
    assert [p.name for p in tmp_path.iterdir()] == ["a.webp"]


def test_gif_of_grey_is_exact_and_rate_is_kept(tmp_path):
    grey = CLIP[:, :1]
    frames = read_frames(write_animation(tmp_path / "a.gif", grey, fps=25))
    np.testing.assert_array_equal(frames.pixels, grey)
    assert frames.fps == 25


def test_numbered_pictures_in_natural_order(tmp_path):
    folder = write_animation(tmp_path / "frames", CLIP)
    np.testing.assert_array_equal(read_frames(folder).pixels, CLIP)
    other = tmp_path / "other"
    other.mkdir()
    for i in (2, 10, 1):
        write_image(other / f"f{i}.png", np.full((4, 4), i / 255))
    assert read_frames(other).pixels[:, 0, 0, 0].tolist() == [1, 2, 10]
    assert read_frames(other).fps is None


def test_equal_frames_that_an_encoder_merges_come_back(tmp_path):
    still = CLIP[[0, 1, 1, 1, 2]]
    frames = read_frames(write_animation(tmp_path / "a.webp", still, fps=10))
    np.testing.assert_array_equal(frames.pixels, still)
    assert frames.fps == 10


def test_uneven_rate_is_averaged(tmp_path):
    shots = [Pillow.fromarray(np.moveaxis(f, 0, -1).copy()) for f in CLIP[:3]]
    shots[0].save(tmp_path / "a.webp", save_all=True, append_images=shots[1:], duration=[30, 50, 40], lossless=True)
    frames = read_frames(tmp_path / "a.webp")
    assert len(frames.pixels) == 3 and frames.fps == pytest.approx(25)


def test_multi_page_tiff_keeps_its_depth(tmp_path):
    deep = rng.integers(0, 65536, (4, 6, 5), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", deep, photometric="minisblack")
    frames = read_frames(tmp_path / "a.tif")
    np.testing.assert_allclose(frames.pixels[:, 0], deep / 65535, rtol=1e-6)
    shots = [Pillow.fromarray(np.moveaxis(f, 0, -1).copy()) for f in CLIP]
    shots[0].save(tmp_path / "b.tif", save_all=True, append_images=shots[1:])
    np.testing.assert_array_equal(read_frames(tmp_path / "b.tif").pixels, CLIP)
    with tifffile.TiffWriter(tmp_path / "c.tif") as writer:
        writer.write(deep[0])
        writer.write(deep[1, :3])
    with pytest.raises(InputError, match="pages differ in size"):
        read_frames(tmp_path / "c.tif")


def test_mixed_folders(tmp_path):
    write_image(tmp_path / "0.png", np.zeros((4, 4)))
    write_image(tmp_path / "1.png", np.ones((3, 4, 4)), np.zeros((4, 4)))
    frames = read_frames(tmp_path)
    assert frames.pixels.shape == (2, 3, 4, 4)
    np.testing.assert_array_equal(frames.alpha[:, 0, 0, 0], [255, 0])
    write_image(tmp_path / "2.png", np.zeros((4, 5)))
    with pytest.raises(InputError, match=r"2\.png: the frame is 5×4 pixels, 0\.png 4×4"):
        read_frames(tmp_path)


def test_bad_input(tmp_path):
    with pytest.raises(InputError, match="no picture in the folder"):
        read_frames(tmp_path)
    with pytest.raises(InputError, match="no such file"):
        read_frames(tmp_path / "none.gif")
    path = write_animation(tmp_path / "a.webp", CLIP)
    with pytest.raises(InputError, match="600 pixels in all, more than the limit of 599"):
        read_frames(path, max_pixels=599)
    for name in ("a.webp", "a.gif"):
        path = write_animation(tmp_path / name, CLIP)
        path.write_bytes(path.read_bytes()[:-300])
        with pytest.raises(InputError, match=name):
            read_frames(path)
    with pytest.raises(InputError, match="--fps"):
        write_animation(tmp_path / "b.webp", CLIP, fps=0)
    with pytest.raises(InputError, match="cannot write an animation"):
        write_animation(tmp_path / "b.xyz", CLIP)
    with pytest.raises(ValueError, match="frames are"):
        write_animation(tmp_path / "b.webp", CLIP[:, :2])


def test_mp4_without_a_plug_in_names_the_other_way(tmp_path, monkeypatch):
    monkeypatch.setattr(animation, "find_spec", lambda name: None)
    (tmp_path / "clip.mp4").write_bytes(b"\0\0\0\x18ftypmp42")
    with pytest.raises(InputError, match=r"ffmpeg -i clip\.mp4 frames/%05d\.png, and give the folder"):
        read_frames(tmp_path / "clip.mp4")
    assert write_animation(tmp_path / "out.mp4", CLIP) == tmp_path / "out.webp"
    assert not (tmp_path / "out.mp4").exists()


def test_mp4_goes_through_imageio_where_a_plug_in_is_there(tmp_path, monkeypatch):
    import imageio.v3 as imageio

    seen = {}

    def imwrite(path, frames, *, plugin, fps, **options):
        seen.update(shape=frames.shape, plugin=plugin, fps=fps)
        path.write_bytes(b"film")

    monkeypatch.setattr(animation, "find_spec", lambda name: name == "imageio_ffmpeg")
    monkeypatch.setattr(imageio, "imwrite", imwrite)
    monkeypatch.setattr(imageio, "immeta", lambda path, **_: {"fps": 12.5})
    monkeypatch.setattr(imageio, "imiter", lambda path, **_: iter(np.moveaxis(CLIP, 1, -1)))
    path = write_animation(tmp_path / "out.mp4", CLIP[:, :1, :11], fps=30)
    assert path.read_bytes() == b"film" and seen == {"shape": (5, 10, 10, 3), "plugin": "FFMPEG", "fps": 30}
    frames = read_frames(path)
    np.testing.assert_array_equal(frames.pixels, CLIP)
    assert frames.fps == 12.5
