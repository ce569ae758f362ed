"""Readers of scenes: one scene in every format gives one set of rays; what is wrong is told in one line."""

import json
import math

import numpy as np
import pytest
import torch
from tests.data import scene_files as write

from precis.data.captures import load_picture, read_scene, read_silhouettes, shrunk, subset
from precis.data.captures_json import read_poses
from precis.errors import InputError
from precis.fields.nerf_cameras import Cameras


def rays(files, order=None):
    cameras = Cameras(torch.from_numpy(files.c2w).float(), torch.from_numpy(files.K).float(),
                      torch.from_numpy(files.size), distortion=torch.from_numpy(files.distortion).float(),
                      model="fisheye" if files.fisheye else "perspective")  # fmt: skip
    return torch.stack([torch.cat(cameras.all_rays(v), -1) for v in range(len(files.names))])


@pytest.fixture(scope="module")
def scene():
    return write.made()


def test_every_format_gives_the_same_rays(tmp_path, scene):
    sources = [
        write.blender(tmp_path / "b", scene), write.nerfstudio(tmp_path / "n", scene),
        write.colmap(tmp_path / "cb", scene), write.colmap(tmp_path / "ct", scene, binary=False),
        write.llff(tmp_path / "l", scene), write.tiny(tmp_path / "t", scene), write.nerfies(tmp_path / "nf", scene),
    ]  # fmt: skip
    expected = None
    formats = []
    for source in sources:
        files = read_scene(source)
        formats.append(files.format)
        if files.format == "Blender":
            files = subset(files, files.views("train"))
        found = rays(files)
        expected = found if expected is None else expected
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
        image = files.images[3].astype(float)
        if files.format == "tiny-nerf":
            assert np.abs(image - 255 * scene.rgb()[3]).max() <= 1
        else:
            assert np.array_equal(files.images[3], scene.images[3])
    assert formats == ["Blender", "nerfstudio", "COLMAP", "COLMAP", "LLFF", "tiny-nerf", "Nerfies"]


def test_a_cropped_picture_keeps_its_rays(tmp_path, scene):
    whole = rays(read_scene(write.nerfstudio(tmp_path / "a", scene)))
    cut = rays(read_scene(write.nerfstudio(tmp_path / "b", scene, crop=5)))
    torch.testing.assert_close(cut, whole[:, 5:, 5:])


def test_downscaling_moves_no_ray(tmp_path, scene):
    source = write.nerfstudio(tmp_path, scene)
    whole, half = read_scene(source), read_scene(source, downscale=2)
    fine, coarse = rays(whole), rays(half)
    centre = (fine[:, 0::2, 0::2] + fine[:, 1::2, 1::2]) / 2
    torch.testing.assert_close(coarse, centre, atol=1e-6, rtol=0)
    assert half.images[0].shape == (8, 8, 4) and half.size[0].tolist() == [8, 8]


def test_clear_pixels_do_not_bleed_when_pictures_are_made_smaller():
    picture = np.zeros((2, 2, 4), np.uint8)
    picture[0, 0] = [200, 100, 50, 255]
    picture[1] = [255, 0, 255, 0]  # clear, with arbitrary colours
    assert shrunk(picture, 1, 1, False)[0, 0].tolist() == [200, 100, 50, 64]
    pre = picture.copy()
    pre[1] = 0
    assert shrunk(pre, 1, 1, True)[0, 0].tolist() == [200, 100, 50, 64]
    odd = np.full((7, 5, 3), 90, np.uint8)
    assert (shrunk(odd, 3, 2, False) == 90).all()


def test_splits_times_and_boxes(tmp_path, scene):
    blender = read_scene(write.blender(tmp_path / "b", scene))
    assert len(blender.views("train")) == 8 and len(blender.views("test")) == 2
    assert (blender.near, blender.far) == (2.0, 6.0) and blender.aabb[1].tolist() == [1.5] * 3
    names = [f"images/f{v:02d}.png" for v in range(8)]
    ns = write.nerfstudio(tmp_path / "n", scene, train_filenames=names[:6], test_filenames=names[6:])
    assert read_scene(ns).views("test") == [6, 7]
    free = read_scene(write.nerfstudio(tmp_path / "f", scene), test_every=4)
    assert free.views("test") == [0, 4] and any("every 4th" in n for n in free.notes)
    ngp = read_scene(write.nerfstudio(tmp_path / "g", scene, aabb_scale=2, scale=0.5, offset=[0.5, 0.5, 0.5]))
    assert ngp.aabb.tolist() == [[-2.0] * 3, [2.0] * 3]
    nerfies = read_scene(write.nerfies(tmp_path / "nf", scene))
    assert nerfies.views("test") == [0, 1] and nerfies.time[-1] == 1.0
    points = read_scene(write.colmap(tmp_path / "c", scene))
    assert 1 < points.near < 3 < points.far < 8 and len(points.points) == 200
    assert (points.aabb[0] < scene.aabb[0] * 0.9).all() and (points.aabb[1] > scene.aabb[1] * 0.9).all()


def test_stated_lists_are_kept_to(tmp_path, scene):
    names = [f"images/f{v:02d}.png" for v in range(8)]
    only = read_scene(write.nerfstudio(tmp_path / "o", scene, train_filenames=names[:6]), test_every=3)
    assert only.names == names[:6] and only.views("test") == [0, 3]
    assert any("2 of 8 photographs are in none of the lists" in n for n in only.notes)
    assert any("only photographs for training are listed: every 3th" in n for n in only.notes)
    both = read_scene(write.nerfstudio(tmp_path / "b", scene, train_filenames=names[1:4], val_filenames=names[6:]))
    assert [both.names[v] for v in both.views("train")] == names[1:4]
    assert [both.names[v] for v in both.views("test")] == names[6:]
    rest = read_scene(write.nerfstudio(tmp_path / "r", scene, test_filenames=names[:2]))  # the others are to learn from
    assert [rest.names[v] for v in rest.views("train")] == names[2:] and rest.views("test") == [0, 1]
    root = changed(write.nerfies(tmp_path / "nf", scene), lambda m: m.update(val_ids=[]), "dataset.json")
    lone = read_scene(root, test_every=4)
    assert lone.names == [f"{v:06d}" for v in range(2, 8)] and lone.views("test") == [0, 4]
    assert read_scene(write.llff(tmp_path / "l", scene), test_every=3).views("test") == [0, 3, 6]


def test_intrinsics_without_a_size_are_for_the_picture_as_it_lies(tmp_path, scene):
    def crop(meta):
        for f in meta["frames"]:
            f.pop("w"), f.pop("h")
            f |= {"cx": 4.0, "cy": 5.0}

    files = read_scene(changed(write.nerfstudio(tmp_path, scene), crop))
    np.testing.assert_allclose(files.K[:, :2], scene.K[:, :2], rtol=1e-6)
    np.testing.assert_allclose(files.K[:, 2:], [[4.0, 5.0]] * 8)


@pytest.mark.parametrize(("where", "change", "words"), [
    ("nerfstudio", lambda m: m.update(k1="much"), "k1 must be a number"),
    ("nerfstudio", lambda m: m.update(k1=None), "k1 must be a number"),
    ("nerfstudio", lambda m: m.update(k1=float("nan")), "k1 must be a number"),
    ("nerfstudio", lambda m: m["frames"][1].update(w="wide"), "w must be a number"),
    ("nerfstudio", lambda m: m["frames"][1].update(h=0), "w and h must be at least 1"),
    ("nerfstudio", lambda m: m["frames"][1].update(time="noon"), "time must be a number"),
    ("nerfstudio", lambda m: m.update(aabb_scale=2, scale="x"), "scale must be a number"),
    ("nerfstudio", lambda m: m.update(aabb_scale=2, offset=[1, 2]), "offset must be 3 numbers"),
    ("nerfstudio", lambda m: m.update(train_filenames="all"), "train_filenames must be a list"),
    ("scene.json", lambda m: m.update(scale="x"), "scale must be a number"),
    ("scene.json", lambda m: m.update(scale=0), "scale must be above 0"),
    ("scene.json", lambda m: m.update(near=[1]), "near must be a number"),
    ("metadata.json", lambda m: m.update({"000001": 3}), "warp_id of 000001 must be a whole number"),
    ("metadata.json", lambda m: m.update({"000001": {"warp_id": 0.5}}), "warp_id of 000001 must be a whole number"),
    ("camera/000001.json", lambda m: m.update(radial_distortion=["x", 0, 0]), "radial_distortion must be 3 numbers"),
    ("camera/000001.json", lambda m: m.update(skew=None), "skew, pixel_aspect_ratio and principal_point must be"),
])  # fmt: skip
def test_values_of_the_wrong_kind_are_told(tmp_path, scene, where, change, words):
    if where == "nerfstudio":
        root = changed(write.nerfstudio(tmp_path, scene), change)
    else:
        root = changed(write.nerfies(tmp_path, scene), change, where)
    with pytest.raises(InputError, match=words):
        read_scene(root)


def test_arrays_of_the_wrong_kind_are_told(tmp_path, scene):
    rows = np.load((root := write.llff(tmp_path / "l", scene)) / "poses_bounds.npy")
    for value in (np.nan, 0.0):
        rows[1, 4] = value
        np.save(root / "poses_bounds.npy", rows)
        with pytest.raises(InputError, match="finite numbers, with heights, widths and focal lengths"):
            read_scene(root)
    path = write.tiny(tmp_path / "t", scene)
    with np.load(path) as held:
        np.savez(path, images=held["images"], poses=held["poses"], focal=np.array([9.0, 9.0]))
    with pytest.raises(InputError, match="focal must be one number"):
        read_scene(path)


def test_cameras_to_render_are_checked_as_those_of_photographs(tmp_path, scene):
    square = np.array([write.square(c) for c in scene.c2w], np.float64)
    np.save(tmp_path / "good.npy", square)
    np.testing.assert_allclose(read_poses(tmp_path / "good.npy"), square[:, :3], atol=1e-6)
    for change, words in (([-1, 1, 1], "negative determinant"), ([1.5, 1.5, 1.5], "camera 0 is no rotation")):
        bad = square.copy()
        bad[:, :3, :3] *= change
        np.save(tmp_path / "bad.npy", bad)
        with pytest.raises(InputError, match=words):
            read_poses(tmp_path / "bad.npy")


@pytest.mark.parametrize(("lens", "extra"), [
    ("SIMPLE_RADIAL", (0.05,)), ("RADIAL", (0.05, -0.02)), ("OPENCV", (0.05, -0.02, 0.001, 0.002)),
    ("OPENCV_FISHEYE", (0.05, -0.02, 0.004, -0.001)),
    ("FULL_OPENCV", (0.05, -0.02, 0.001, 0.002, 0.01, 0.1, 0.02, 0.005)),
])  # fmt: skip
def test_lenses_of_colmap_round_trip(tmp_path, scene, lens, extra):
    files = read_scene(write.colmap(tmp_path, scene, lens=lens, extra=extra))
    cameras = Cameras(torch.from_numpy(files.c2w), torch.from_numpy(files.K), torch.from_numpy(files.size),
                      distortion=torch.from_numpy(files.distortion),
                      model="fisheye" if files.fisheye else "perspective")  # fmt: skip
    pix = cameras.pixels().reshape(-1, 2)
    view = torch.full((len(pix),), 2)
    line = cameras.rays(view, pix)
    found, _ = cameras.project(view, line.o + 3 * line.d)
    torch.testing.assert_close(found, pix.double(), atol=1e-4, rtol=0)
    plain = read_scene(write.colmap(tmp_path / "plain", scene))
    straight = Cameras(torch.from_numpy(plain.c2w), torch.from_numpy(plain.K), (16, 16)).rays(view, pix)
    assert (straight.d - line.d).abs().max() > 1e-4


def test_vertical_angle_and_nerfstudio_distortion(tmp_path, scene):
    source = write.blender(tmp_path / "b", scene, camera_angle_y=0.4)
    files = read_scene(source)
    assert files.K[0, 1] == pytest.approx(16 / (2 * math.tan(0.2)))
    bent = read_scene(write.nerfstudio(tmp_path / "n", scene, k1=0.1, k4=0.2, p2=0.3))
    assert bent.distortion[0].tolist() == [0.1, 0, 0, 0.2, 0, 0.3, 0, 0, 0]


def test_masks_of_validity_and_silhouettes(tmp_path, scene):
    root = write.nerfstudio(tmp_path, scene)
    meta = json.loads((root / "transforms.json").read_text())
    half = np.zeros((1, 16, 16), np.uint8)
    half[:, :, 8:] = 255
    for v, frame in enumerate(meta["frames"]):
        write.save(root / f"masks/f{v:02d}.png", np.moveaxis(half.repeat(3, 0), 0, -1))
        frame["mask_path"] = f"masks/f{v:02d}.png"
    (root / "transforms.json").write_text(json.dumps(meta))
    files = read_scene(root)
    assert files.valid[0].sum() == 128 and not files.valid[0][:, :8].any()
    silhouettes = read_silhouettes(root / "masks", files.names, files.size)
    assert np.array_equal(silhouettes[3], files.valid[3])
    half = read_scene(root, downscale=2)
    assert read_silhouettes(root / "masks", half.names, half.size)[0].shape == (8, 8)
    (root / "masks/f05.png").unlink()
    with pytest.raises(InputError, match="1 masks are missing: f05"):
        read_silhouettes(root / "masks", files.names, files.size)
    write.save(root / "masks/f05.png", np.zeros((5, 9, 3), np.uint8))
    with pytest.raises(InputError, match="the mask is 9×5, the photograph 16×16"):
        read_silhouettes(root / "masks", files.names, files.size)


def changed(root, change, name="transforms.json"):
    meta = json.loads((root / name).read_text())
    change(meta)
    (root / name).write_text(json.dumps(meta))
    return root


def broken(kind):
    def frame(key, value):
        return lambda meta: meta["frames"][2].__setitem__(key, value)

    def matrix(change):
        def apply(meta):
            m = np.array(meta["frames"][2]["transform_matrix"])
            meta["frames"][2]["transform_matrix"] = change(m).tolist()

        return apply

    def scaled(m):
        m[:3, :3] *= 1.1
        return m

    def mirrored(m):
        m[:, 0] *= -1
        return m

    def with_nan(m):
        m[0, 0] = np.nan
        return m

    def lose_focal(meta):
        for f in meta["frames"]:
            f.pop("fl_x")

    def few(meta):
        meta["frames"] = meta["frames"][:3]

    def one_place(meta):
        for f in meta["frames"]:
            for r in range(3):
                f["transform_matrix"][r][3] = 1.0

    return {
        "missing": (frame("file_path", "images/none.png"), "1 of 8 picture files are missing: .*none.png"),
        "few": (few, "3 photographs; a scene needs at least 4"), "place": (one_place, "no parallax"),
        "rotation": (matrix(scaled), "f02.png is no rotation: it deviates by 0.09"),
        "mirror": (matrix(mirrored), "negative determinant"), "nan": (matrix(with_nan), "not finite"),
        "focal": (lose_focal, "no focal length"), "shape": (frame("h", 99), "not the shape 16×99"),
        "model": (lambda m: m.update(camera_model="EQUIRECTANGULAR"), "camera model EQUIRECTANGULAR is not known"),
        "matrix": (frame("transform_matrix", [[1, 2]]), "frame 2 must be 4×4"),
        "zero": (frame("fl_x", 0), "focal length of .*f02.png must be a positive"),
        "word": (frame("fl_x", "long"), "fl_x must be a number"),
        "frames": (lambda m: m.update(frames=[]), 'list of "frames" is empty'),
    }[kind]  # fmt: skip


@pytest.mark.parametrize("form", ["llff", "colmap", "nerfies"])
def test_copies_that_are_smaller_already_are_not_made_smaller_again(tmp_path, scene, form):
    root = getattr(write, form)(tmp_path, scene)
    whole = read_scene(root, downscale=4)
    large, names = ("rgb/1x", "rgb/{}x") if form == "nerfies" else ("images", "images_{}")
    for factor in (2, 4):
        for path in sorted((root / large).iterdir()):
            picture = shrunk(load_picture(path), 16 // factor, 16 // factor, False)
            write.save(root / names.format(factor) / path.name, picture)
        files = read_scene(root, downscale=factor)
        assert files.size.tolist() == [[16 // factor] * 2] * 8 and files.images[0].shape[:2] == (16 // factor,) * 2
        fx = scene.K[0, 0] / factor
        np.testing.assert_allclose(files.K[:, 0], fx, rtol=1e-6)
    for a, b in zip(files.images, whole.images):  # the copies, and what is averaged here
        assert np.abs(a.astype(int) - b).max() <= 1
    if form == "nerfies":  # a factor without a copy: from the nearest one that divides it
        assert read_scene(root, downscale=8).size.tolist() == [[2, 2]] * 8


@pytest.mark.parametrize("kind", ["missing", "few", "place", "rotation", "mirror", "nan", "focal", "shape", "model",
                                  "matrix", "zero", "word", "frames"])  # fmt: skip
def test_what_is_wrong_is_told(tmp_path, scene, kind):
    change, words = broken(kind)
    root = changed(write.nerfstudio(tmp_path, scene), change)
    with pytest.raises(InputError, match=words):
        read_scene(root)


def test_small_deviations_are_repaired_and_said(tmp_path, scene):
    def skew(meta):
        meta["frames"][1]["transform_matrix"][0][0] += 4e-3

    files = read_scene(changed(write.nerfstudio(tmp_path, scene), skew))
    turn = files.c2w[1, :, :3]
    np.testing.assert_allclose(turn @ turn.T, np.eye(3), atol=1e-9)
    assert any("repaired" in note for note in files.notes)


def test_more_that_is_wrong(tmp_path, scene):
    root = write.nerfstudio(tmp_path / "j", scene)
    (root / "transforms.json").write_text('{\n"frames": [\n{,]}')
    with pytest.raises(InputError, match=r"transforms.json:3: this is not JSON"):
        read_scene(root)
    clear = write.made()
    clear.images[..., 3] = 0
    with pytest.raises(InputError, match="transparent"):
        read_scene(write.nerfstudio(tmp_path / "c", clear))
    mixed = write.blender(tmp_path / "m", scene)
    write.save(mixed / "images/r_1.png", np.zeros((12, 16, 3), np.uint8))
    with pytest.raises(InputError, match="different sizes"):
        read_scene(mixed)
    with pytest.raises(InputError, match="camera model FOV is not known"):
        read_scene(write.colmap(tmp_path / "fov", scene, lens="FOV", extra=(0.9,)))
    cut = write.colmap(tmp_path / "cut", scene)
    data = (cut / "sparse/0/images.bin").read_bytes()
    (cut / "sparse/0/images.bin").write_bytes(data[:200])
    with pytest.raises(InputError, match="no whole COLMAP model"):
        read_scene(cut)
    bounds = write.llff(tmp_path / "l", scene)
    rows = np.load(bounds / "poses_bounds.npy")
    rows[:, 15] = 9
    np.save(bounds / "poses_bounds.npy", rows)
    with pytest.raises(InputError, match="near must be below far"):
        read_scene(bounds)
    lost = write.nerfies(tmp_path / "nf", scene)
    (lost / "camera/000003.json").unlink()
    with pytest.raises(InputError, match="1 cameras are missing: 000003"):
        read_scene(lost)


def test_folders_and_files_that_are_no_scene(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        read_scene(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no scene is known by these files"):
        read_scene(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(InputError, match="this file is no scene"):
        read_scene(tmp_path / "a.txt")
    np.savez(tmp_path / "a.npz", images=np.zeros((4, 2, 2, 3)))
    with pytest.raises(InputError, match="images, poses and focal"):
        read_scene(tmp_path / "a.npz")
