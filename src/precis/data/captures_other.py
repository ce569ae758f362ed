"""Scenes as LLFF, tiny-nerf and Nerfies write them."""

from pathlib import Path
from typing import Any

import numpy as np

from precis.data.captures import Described, Frame
from precis.data.captures_json import BLENDER_BOX, read_json, read_number, read_numbers
from precis.data.images import SUFFIXES
from precis.errors import InputError


def read_llff(folder: Path, downscale: int = 1) -> Described:
    """poses_bounds.npy [V,17]: 3×5 (rotation, axes down, right, back; place; height, width, focal), near and far."""
    path = folder / "poses_bounds.npy"
    try:
        rows = np.load(path, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise InputError(f"it cannot be read ({error})", file=path) from None
    if rows.ndim != 2 or rows.shape[1] != 17:
        raise InputError(f"poses_bounds.npy must be [V,17], and is {list(rows.shape)}", file=path)
    if rows.dtype.kind not in "fiu" or not np.isfinite(rows).all() or (rows[:, [4, 9, 14]] < 1).any():
        raise InputError("poses_bounds.npy must hold finite numbers, with heights, widths and focal lengths in pixels",
                         file=path)  # fmt: skip
    small = folder / f"images_{downscale}"
    pictures, reduced = (small, downscale) if small.is_dir() else (folder / "images", 1)
    files = sorted(p for p in pictures.iterdir() if p.suffix.lower() in SUFFIXES) if pictures.is_dir() else []
    if len(files) != len(rows):
        raise InputError(f"{len(files)} pictures in {pictures.name}/ for {len(rows)} poses", file=folder)
    frames = []
    for row, file in zip(rows.astype(np.float64), files):
        matrix = row[:15].reshape(3, 5)
        c2w = np.stack([matrix[:, 1], -matrix[:, 0], matrix[:, 2], matrix[:, 3]], 1)
        h, w, focal = matrix[:, 4]
        K = (focal, focal, w / 2, h / 2)
        frames.append(Frame(file.name, file, c2w, K, (int(w), int(h)), reduced=reduced))
    bounds = rows[:, 15:]
    if not (bounds[:, 0] < bounds[:, 1]).all():
        raise InputError("near must be below far in every row", file=path)
    return Described("LLFF", frames, float(0.9 * bounds.min()), float(bounds.max()), forward=True)


def read_tiny(path: Path) -> Described:
    """An .npz with images [V,H,W,3] (bytes, or floats in [0, 1]), poses [V,4,4] and one focal length in pixels."""
    try:
        with np.load(path, allow_pickle=False) as file:
            images, poses, focal = (np.asarray(file[key]) for key in ("images", "poses", "focal"))
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"an .npz with images, poses and focal is wanted ({error})", file=path) from None
    if images.ndim != 4 or images.shape[-1] not in (3, 4) or poses.shape[1:] not in ((4, 4), (3, 4)):
        shapes = f"images {list(images.shape)}, poses {list(poses.shape)}"
        raise InputError(f"images [V,H,W,3] and poses [V,4,4] are wanted, found {shapes}", file=path)
    if len(images) != len(poses):
        raise InputError(f"{len(images)} images for {len(poses)} poses", file=path)
    if images.dtype != np.uint8:
        if not np.isfinite(images).all() or images.min() < 0 or images.max() > 1:
            raise InputError("images must be bytes, or numbers between 0 and 1", file=path)
        images = np.rint(images * 255).astype(np.uint8)
    v, h, w, _ = images.shape
    if focal.size != 1 or focal.dtype.kind not in "fiu":
        raise InputError(f"focal must be one number, and is {list(focal.shape)}", file=path)
    f = float(focal.item())
    frames = [Frame(f"{i:03d}", images[i], poses[i], (f, f, w / 2, h / 2), (w, h)) for i in range(v)]
    return Described("tiny-nerf", frames, 2.0, 6.0, BLENDER_BOX)


def read_nerfies(folder: Path, downscale: int = 1) -> Described:
    """dataset.json (ids, train_ids, val_ids), camera/ID.json, rgb/{n}x/ID.png, in the units of the camera files.

    scene.json names a centre and a scale, in which its near and far are, and which the authors' program works in: near
    and far are brought back from it.
    """
    data = read_json(folder / "dataset.json")
    ids = [str(i) for i in data.get("ids", ())]
    train, val = ({str(i) for i in data.get(key, ())} for key in ("train_ids", "val_ids"))
    scene = read_json(folder / "scene.json") if (folder / "scene.json").exists() else {}
    near, far, scale = (
        read_number(scene, key, folder / "scene.json") if scene.get(key) is not None else None
        for key in ("near", "far", "scale")
    )
    scale = 1.0 if scale is None else scale
    if not scale > 0:
        raise InputError(f"scale must be above 0, and is {scale:g}", file=folder / "scene.json")
    metadata = read_json(folder / "metadata.json") if (folder / "metadata.json").exists() else {}
    warps = {i: _warp(entry, i, folder / "metadata.json") for i, entry in metadata.items()}
    sizes = sorted(int(p.name[:-1]) for p in folder.glob("rgb/*x") if p.name[:-1].isdigit())
    if not ids or not sizes:
        raise InputError("dataset.json names no ids, or there is no folder such as rgb/1x", file=folder)
    used = downscale if downscale in sizes else max((s for s in sizes if downscale % s == 0), default=0)
    if not used:
        there = ", ".join(str(s) for s in sizes)
        raise InputError(f"there are no pictures at 1/{downscale} (rgb/{downscale}x); there are 1/{there}", file=folder)
    lost = [i for i in ids if not (folder / "camera" / f"{i}.json").is_file()]
    if lost:
        raise InputError(f"{len(lost)} cameras are missing: {', '.join(lost[:5])}", file=folder / "camera")
    last = max(warps.values(), default=0)
    frames = []
    for i in ids:
        split = "train" if i in train else "val" if i in val else None
        time = warps[i] / max(last, 1) if i in warps else None
        camera = read_json(folder / "camera" / f"{i}.json")
        frames.append(_nerfies_frame(camera, i, folder, used, split, time))
    points = _points(folder / "points.npy") if (folder / "points.npy").exists() else None
    return Described("Nerfies", frames, None if near is None else near / scale, None if far is None else far / scale,
                     points=points)  # fmt: skip


def _warp(entry: Any, name: str, path: Path) -> int:
    found = entry.get("warp_id", 0) if isinstance(entry, dict) else None
    if isinstance(found, bool) or not isinstance(found, int) or found < 0:
        raise InputError(f"the warp_id of {name} must be a whole number from 0 on, and is {found!r}", file=path)
    return found


def _points(path: Path) -> np.ndarray:
    try:
        found = np.load(path, allow_pickle=False).astype(np.float64)
    except (OSError, ValueError) as error:
        raise InputError(f"it cannot be read ({error})", file=path) from None
    if found.ndim != 2 or found.shape[1] != 3 or not np.isfinite(found).all():
        raise InputError(f"points [P,3] of finite numbers are wanted, found {list(found.shape)}", file=path)
    return np.asarray(found)


def _nerfies_frame(
    camera: dict[str, Any], name: str, folder: Path, used: int, split: str | None, time: float | None
) -> Frame:
    where = folder / "camera" / f"{name}.json"
    try:
        turn = np.asarray(camera["orientation"], np.float64).reshape(3, 3).T * np.array([1.0, -1.0, -1.0])
        place = np.asarray(camera["position"], np.float64).reshape(3, 1)
        f, (cx, cy) = float(camera["focal_length"]), camera["principal_point"]
        w, h = (int(n) for n in camera["image_size"])
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"orientation, position, focal_length, principal_point and image_size are wanted ({error})",
                         file=where) from None  # fmt: skip
    radial = read_numbers(camera.get("radial_distortion", [0.0] * 3), 3, "radial_distortion", where)
    tangential = camera.get("tangential", camera.get("tangential_distortion", [0.0] * 2))
    sideways = read_numbers(tangential, 2, "tangential_distortion", where)
    skew, aspect, cx, cy = read_numbers([camera.get("skew", 0.0), camera.get("pixel_aspect_ratio", 1.0), cx, cy], 4,
                                        "skew, pixel_aspect_ratio and principal_point", where)  # fmt: skip
    if abs(skew) > 1e-6:
        raise InputError("a camera with skew is not known here", file=where)
    K = (f, f * aspect, cx, cy)
    image = folder / "rgb" / f"{used}x" / f"{name}.png"
    bent = (*radial, 0.0, *sideways, 0.0, 0.0, 0.0)
    pose = np.concatenate([turn, place], 1)
    return Frame(name, image, pose, K, (w, h), None, bent, split=split, time=time, reduced=used)
