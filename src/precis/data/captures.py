"""Photographs with known cameras, from the formats in which they come: `read_scene`.

A folder is looked at in this order: transforms_train.json (Blender), transforms.json (nerfstudio, instant-ngp),
poses_bounds.npy (LLFF), sparse/0 or colmap/sparse/0 (COLMAP), dataset.json with camera/ (Nerfies); or a file: .npz with
images, poses, focal (tiny-nerf), or one of those JSON files.

Whatever the source, `c2w` is camera to world with OpenGL's axes (x right, y up, z backwards), and the centre of the
first pixel lies at (½, ½).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8

from precis.errors import InputError

FORMATS = (
    "transforms_train.json (Blender), transforms.json (nerfstudio, instant-ngp), poses_bounds.npy (LLFF), sparse/0 "
    "(COLMAP), dataset.json with camera/ (Nerfies) or an .npz with images, poses, focal"
)
FEWEST = 4
RIGID = 1e-2  # deviation from a rotation up to which a matrix is repaired


@dataclass(frozen=True, eq=False)
class Frame:
    """One photograph as its format states it; `size` (W, H) and K belong together and may not be the file's, which may
    be a copy that is `reduced` already, so many times a side."""

    name: str
    image: Path | UInt8[np.ndarray, "h w c"] | None
    c2w: Float[np.ndarray, "m 4"]
    K: tuple[float, float, float, float] | None = None  # fx, fy, cx, cy; None: by `angle` from the file's own size
    size: tuple[int, int] | None = None
    angle: tuple[float, float | None] | None = None  # horizontal and vertical, radians
    distortion: tuple[float, ...] = (0.0,) * 9  # k1 k2 k3 k4 p1 p2 d1 d2 d3
    fisheye: bool = False
    mask: Path | None = None
    split: str | None = None
    time: float | None = None
    reduced: int = 1


@dataclass(frozen=True, eq=False)
class Described:
    """What a format's reader gives: frames, and what it knows of the scene."""

    format: str
    frames: list[Frame]
    near: float | None = None
    far: float | None = None
    aabb: Float[np.ndarray, "2 3"] | None = None
    points: Float[np.ndarray, "p 3"] | None = None
    forward: bool = False  # cameras that all look one way (LLFF)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class SceneFiles:
    """V photographs: images uint8 [H,W,3 or 4] (straight alpha), c2w [V,3,4], K [V,4] = fx, fy, cx, cy, size [V,2] (W,
    H), distortion [V,9] (k1 k2 k3 k4 p1 p2 d1 d2 d3), split "train", "val" or "test" of each, validity masks or None,
    and, where the source has them, near, far (depth), box, 3-D points and times.  `notes`: what was repaired or left.
    """

    format: str
    images: list[np.ndarray]
    c2w: Float[np.ndarray, "v 3 4"]
    K: Float[np.ndarray, "v 4"]
    size: Int64[np.ndarray, "v 2"]
    distortion: Float[np.ndarray, "v 9"]
    fisheye: bool
    names: list[str]
    split: list[str]
    valid: list[np.ndarray] | None
    near: float | None
    far: float | None
    aabb: Float[np.ndarray, "2 3"] | None
    points: Float[np.ndarray, "p 3"] | None
    time: Float[np.ndarray, "v"] | None
    forward: bool
    notes: list[str]

    def views(self, split: str) -> list[int]:
        """Numbers of the photographs of a split."""
        return [v for v, s in enumerate(self.split) if s == split]

    @property
    def has_alpha(self) -> bool:
        return self.images[0].shape[-1] == 4


def read_scene(
    path: str | Path, *, downscale: int = 1, premultiplied: bool = False, test_every: int = 8, fewest: int = FEWEST
) -> SceneFiles:
    """The scene in a folder or file.

    downscale: pictures are averaged over so many pixels a side (the smaller copies that LLFF, COLMAP and Nerfies scenes
    bring are used where there are).  premultiplied: colours of transparent pixels are multiplied by opacity already.
    test_every: where the source states no split, every so many-th photograph is kept back for testing; of those for
    training, if it states these alone.  Where it does, photographs that are in none of its lists are left out.

    InputError for everything that cannot be: see the messages.
    """
    described = describe(Path(path), downscale)
    notes = list(described.notes)
    frames, split = _splits(described.frames, test_every, notes)
    _all_there(frames, path)
    if len(frames) < fewest:
        found = f"{len(frames)} photograph{'' if len(frames) == 1 else 's'}"
        raise InputError(f"{found}; a scene needs at least {fewest}", file=path)
    poses = checked_poses([f.c2w for f in frames], [f.name for f in frames], notes, path)
    place = poses[:, :, 3]
    if np.ptp(place, axis=0).max() <= 1e-6 * max(np.abs(place).max(), 1.0):
        raise InputError("all cameras stand at one point: there is no parallax to see depth by", file=path)
    images, K, size, valid = _pixels(frames, downscale, premultiplied, path)
    kinds = {f.fisheye for f in frames}
    if len(kinds) > 1:
        raise InputError("fisheye and other lenses are mixed; undistort the photographs first", file=path)
    if described.near is not None and described.far is not None and not described.near < described.far:
        raise InputError(f"near ({described.near:g}) must be below far ({described.far:g})", file=path)
    times = [f.time for f in frames]
    known = [t for t in times if t is not None]
    return SceneFiles(
        described.format, images, poses, K, size, np.array([f.distortion for f in frames], np.float64), kinds.pop(),
        [f.name for f in frames], split, valid, described.near, described.far, described.aabb, described.points,
        np.array(known) if len(known) == len(times) else None, described.forward, notes,
    )  # fmt: skip


def describe(path: Path, downscale: int = 1) -> Described:
    """What the files say, pictures not yet read."""
    from precis.data import captures_colmap, captures_json, captures_other

    if not path.exists():
        raise InputError("there is no such file or folder; a scene is wanted", file=path)
    if path.is_file():
        if path.suffix == ".npz":
            return captures_other.read_tiny(path)
        if path.name == "transforms_train.json":
            return captures_json.read_blender(path.parent)
        if path.suffix == ".json":
            return captures_json.read_nerfstudio(path)
        raise InputError(f"this file is no scene; one is a folder with {FORMATS}", file=path)
    if (path / "transforms_train.json").exists():
        return captures_json.read_blender(path)
    if (path / "transforms.json").exists():
        return captures_json.read_nerfstudio(path / "transforms.json")
    if (path / "poses_bounds.npy").exists():
        return captures_other.read_llff(path, downscale)
    for sparse in ("sparse/0", "colmap/sparse/0", "sparse", "colmap/sparse"):
        if any((path / sparse / f"cameras{end}").exists() for end in (".bin", ".txt")):
            return captures_colmap.read_colmap(path, path / sparse, downscale)
    if (path / "dataset.json").exists() and (path / "camera").is_dir():
        return captures_other.read_nerfies(path, downscale)
    raise InputError(f"no scene is known by these files; wanted is {FORMATS}", file=path)


def subset(scene: SceneFiles, views: Sequence[int]) -> SceneFiles:
    """Some of the photographs."""
    rows = list(views)
    return replace(
        scene, images=[scene.images[v] for v in rows], c2w=scene.c2w[rows], K=scene.K[rows], size=scene.size[rows],
        distortion=scene.distortion[rows], names=[scene.names[v] for v in rows], split=[scene.split[v] for v in rows],
        valid=None if scene.valid is None else [scene.valid[v] for v in rows],
        time=None if scene.time is None else scene.time[rows],
    )  # fmt: skip


def read_silhouettes(
    folder: str | Path, names: Sequence[str], size: Int64[np.ndarray, "v 2"]
) -> list[Bool[np.ndarray, "h w"]]:
    """For photographs of these names and sizes (W, H) the masks in `folder`: bright where the subject is."""
    from precis.data.images import as_float, read_image

    folder = Path(folder)
    if not folder.is_dir():
        raise InputError("there is no such folder of masks", file=folder)
    there = {p.stem: p for p in sorted(folder.iterdir()) if p.is_file()}
    stems = [Path(name).stem for name in names]
    missing = [s for s in stems if s not in there]
    if missing:
        raise InputError(f"{len(missing)} masks are missing: {_first(missing)}", file=folder)
    masks = []
    for v, stem in enumerate(stems):
        picture = as_float(read_image(there[stem]).pixels).mean(0)
        width, height = (int(n) for n in size[v])
        if picture.shape != (height, width):
            h, w = picture.shape
            factor = max(round(h / height), 1)
            if (h // factor, w // factor) != (height, width):
                raise InputError(f"the mask is {w}×{h}, the photograph {width}×{height}", file=there[stem])
            picture = picture[: height * factor, : width * factor]
            picture = picture.reshape(height, factor, width, factor).max((1, 3))
        masks.append(picture > 0.5)
    return masks


def cut_out(scene: SceneFiles, folder: str | Path) -> SceneFiles:
    """The photographs with what is outside of their masks in `folder` made transparent."""
    images = []
    masks = read_silhouettes(folder, scene.names, scene.size)
    for image, mask in zip(scene.images, masks):
        alpha = image[..., 3] if image.shape[-1] == 4 else np.full(mask.shape, 255, np.uint8)
        images.append(np.concatenate([image[..., :3], (alpha * mask)[..., None]], -1))
    return replace(scene, images=images)


def _first(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _all_there(frames: list[Frame], path: str | Path) -> None:
    lost = [str(f.image) for f in frames if f.image is None or isinstance(f.image, Path) and not f.image.is_file()]
    if lost:
        raise InputError(f"{len(lost)} of {len(frames)} picture files are missing: {_first(lost)}", file=path)


def checked_poses(
    matrices: Sequence[np.ndarray], names: Sequence[str], notes: list[str], path: str | Path
) -> Float[np.ndarray, "v 3 4"]:
    """Camera matrices [3 or 4, 4]; small deviations from a rotation are repaired and noted, others refused."""
    poses = np.stack([np.asarray(matrix, np.float64)[:3, :4] for matrix in matrices])
    bad = [name for name, p in zip(names, poses) if not np.isfinite(p).all()]
    if bad:
        raise InputError(f"the camera matrix of {_first(bad)} holds numbers that are not finite", file=path)
    turn = poses[:, :, :3]
    flat = [name for name, rank in zip(names, np.linalg.matrix_rank(turn)) if rank < 3]
    if flat:
        raise InputError(f"the camera matrix of {_first(flat)} is singular: it is no rotation", file=path)
    mirrored = [name for name, t in zip(names, turn) if np.linalg.det(t) < 0]
    if mirrored:
        raise InputError(
            f"the camera matrix of {_first(mirrored)} has a negative determinant: a mirror image is no rotation; are "
            "its columns right, up, backwards?", file=path,
        )  # fmt: skip
    u, _, vt = np.linalg.svd(turn)
    nearest = u @ vt
    off = np.abs(nearest - turn).max((1, 2))
    if off.max() > RIGID:
        worst = names[int(off.argmax())]
        raise InputError(f"the camera matrix of {worst} is no rotation: it deviates by {off.max():.3g}", file=path)
    if off.max() > 1e-5:
        notes.append(f"camera matrices deviated from rotations by up to {off.max():.1g} and were repaired")
    poses[:, :, :3] = np.where((off > 1e-9)[:, None, None], nearest, turn)
    return poses


def _pixels(
    frames: list[Frame], downscale: int, premultiplied: bool, path: str | Path
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray, list[np.ndarray] | None]:
    """Pictures of the working size, and the intrinsics that belong to them."""
    images, K, sizes = [], [], []
    for f in frames:
        picture = f.image if isinstance(f.image, np.ndarray) else load_picture(f.image)
        h, w = picture.shape[:2]
        k = np.asarray(intrinsics(f, (w, h), path), np.float64)
        factor = max(downscale // f.reduced, 1)
        small = shrunk(picture, max(h // factor, 1), max(w // factor, 1), premultiplied)
        height, width = small.shape[:2]
        images.append(small)
        K.append(k * np.array([width / w, height / h] * 2))
        sizes.append((width, height))
    if len(set(sizes)) > 1 and all(f.size is None for f in frames):
        raise InputError(f"the pictures have different sizes ({_first(sorted({f'{w}×{h}' for w, h in sizes}))}) and "
                         "the file states no intrinsics of each", file=path)  # fmt: skip
    bad = [f.name for f, k in zip(frames, K) if not (np.isfinite(k).all() and (k[:2] > 0).all())]
    if bad:
        raise InputError(f"the focal length of {_first(bad)} must be a positive number", file=path)
    if any(x.shape[-1] == 4 for x in images):
        images = [x if x.shape[-1] == 4 else np.concatenate([x, np.full_like(x[..., :1], 255)], -1) for x in images]
        if all(not x[..., 3].any() for x in images):
            raise InputError("every pixel of every picture is transparent", file=path)
    valid = None
    if any(f.mask is not None for f in frames):
        valid = [validity(f.mask, x.shape[:2]) for f, x in zip(frames, images)]
    return images, np.stack(K), np.array(sizes, np.int64), valid


def intrinsics(f: Frame, size: tuple[int, int], path: str | Path) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy for the picture as it lies on disk, W × H."""
    w, h = size
    if f.K is not None:
        stated = f.size or size
        if abs(stated[0] * h - stated[1] * w) > 0.02 * stated[0] * h:
            raise InputError(f"{f.name} is {w}×{h}, which is not the shape {stated[0]}×{stated[1]} that its "
                             "intrinsics are for", file=path)  # fmt: skip
        a, b = w / stated[0], h / stated[1]
        return f.K[0] * a, f.K[1] * b, f.K[2] * a, f.K[3] * b
    if f.angle is None:
        raise InputError(f"there is no focal length for {f.name}: fl_x or camera_angle_x is wanted", file=path)
    fx = w / (2 * np.tan(f.angle[0] / 2))
    fy = fx if f.angle[1] is None else h / (2 * np.tan(f.angle[1] / 2))
    return float(fx), float(fy), w / 2, h / 2


def load_picture(path: Path | None) -> UInt8[np.ndarray, "h w c"]:
    """RGB, or RGBA where the file has opacity, as bytes."""
    from precis.data.images import as_bytes, as_float, read_image

    assert path is not None
    image = read_image(path)
    pixels = np.repeat(image.pixels, 3, 0) if len(image.pixels) == 1 else image.pixels
    planes = [as_bytes(as_float(pixels))] + ([] if image.alpha is None else [as_bytes(as_float(image.alpha))])
    return np.ascontiguousarray(np.moveaxis(np.concatenate(planes), 0, -1))


def shrunk(picture: UInt8[np.ndarray, "h w c"], height: int, width: int, premultiplied: bool) -> np.ndarray:
    """Averaged to height × width; colours weighted by opacity, so that clear pixels do not bleed; straight alpha."""
    from PIL import Image as Pillow

    h, w, c = picture.shape
    if (h, w) == (height, width) and not (premultiplied and c == 4):
        return picture
    x = picture.astype(np.float32) / 255
    if c == 4 and not premultiplied:
        x[..., :3] *= x[..., 3:]
    if h % height == 0 and w % width == 0:
        x = x.reshape(height, h // height, width, w // width, c).mean((1, 3))
    else:
        planes = [Pillow.fromarray(np.ascontiguousarray(x[..., i])) for i in range(c)]
        x = np.stack([np.asarray(p.resize((width, height), Pillow.Resampling.BOX)) for p in planes], -1)
    if c == 4:
        x[..., :3] /= np.maximum(x[..., 3:], 1e-6)
    return np.asarray(np.rint(x.clip(0, 1) * 255).astype(np.uint8))


def validity(path: Path | None, shape: tuple[int, ...]) -> Bool[np.ndarray, "h w"]:
    """Pixels that take part: those that are not black in the mask (and all, where there is none)."""
    from PIL import Image as Pillow

    from precis.data.images import as_float, read_image

    if path is None:
        return np.ones(shape, bool)
    x = as_float(read_image(path).pixels).max(0)
    if x.shape != tuple(shape):
        if abs(x.shape[0] * shape[1] - x.shape[1] * shape[0]) > 0.02 * x.shape[0] * shape[1]:
            raise InputError(f"the mask is {x.shape[1]}×{x.shape[0]}, the picture {shape[1]}×{shape[0]}", file=path)
        made = Pillow.fromarray(np.ascontiguousarray(x)).resize((shape[1], shape[0]), Pillow.Resampling.BOX)
        x = np.asarray(made)
        return np.asarray(x > 0.99)
    return np.asarray(x > 0.01)


def _splits(frames: list[Frame], test_every: int, notes: list[str]) -> tuple[list[Frame], list[str]]:
    """The photographs that take part, and the split of each."""
    listed = [f for f in frames if f.split is not None]
    if any(f.split == "train" for f in listed):
        if left := len(frames) - len(listed):
            notes.append(f"{left} of {len(frames)} photographs are in none of the lists and are left out")
        frames = listed
    given = [f.split or "train" for f in frames]
    if "test" in given:
        return frames, given
    if "val" in given:
        return frames, ["test" if s == "val" else s for s in given]
    what = "only photographs for training are listed" if listed else "no split was given"
    notes.append(f"{what}: every {test_every}th is kept back for testing")
    return frames, ["test" if i % test_every == 0 else "train" for i in range(len(frames))]
