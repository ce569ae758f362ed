"""One made scene, written in every format that `read_scene` takes."""

import json
import struct
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from precis.data.images import write_image
from precis.data.scenes3d import Capture, capture


def made(views: int = 8, size: int = 16) -> Capture:
    return capture("static", views, size).train


def save(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    planes = np.moveaxis(image, -1, 0)
    write_image(path, planes[:3], planes[3:] if len(planes) == 4 else None)


def square(pose: np.ndarray) -> list[list[float]]:
    return np.concatenate([pose.astype(np.float64), [[0, 0, 0, 1]]]).tolist()


def blender(root: Path, scene: Capture, **more) -> Path:
    frames = []
    for v, image in enumerate(scene.images):
        save(root / f"images/r_{v}.png", image)
        frames.append({"file_path": f"./images/r_{v}", "transform_matrix": square(scene.c2w[v])})
    angle = 2 * np.arctan(scene.size[0] / 2 / scene.K[0, 0])
    root.joinpath("transforms_train.json").write_text(json.dumps({"camera_angle_x": float(angle), "frames": frames,
                                                                  **more}))  # fmt: skip
    root.joinpath("transforms_test.json").write_text(json.dumps({"camera_angle_x": float(angle),
                                                                 "frames": frames[:2]}))  # fmt: skip
    return root


def nerfstudio(root: Path, scene: Capture, crop: int = 0, **more) -> Path:
    """`crop` pixels are cut off at the left and at the top, so that the principal point is off the middle."""
    frames = []
    w, h = (n - crop for n in scene.size)
    for v, image in enumerate(scene.images):
        save(root / f"images/f{v:02d}.png", image[crop:, crop:])
        fx, fy, cx, cy = (float(x) for x in scene.K[v])
        frames.append({"file_path": f"images/f{v:02d}.png", "transform_matrix": square(scene.c2w[v]), "fl_x": fx,
                       "fl_y": fy, "cx": cx - crop, "cy": cy - crop, "w": w, "h": h})  # fmt: skip
    meta = {"camera_model": "OPENCV", "frames": frames, **more}
    root.joinpath("transforms.json").write_text(json.dumps(meta))
    return root


def colmap(root: Path, scene: Capture, binary: bool = True, lens: str = "PINHOLE", extra: tuple[float, ...] = (),
           points: int = 200) -> Path:  # fmt: skip
    sparse = root / "sparse/0"
    sparse.mkdir(parents=True)
    w, h = scene.size
    fx, fy, cx, cy = (float(x) for x in scene.K[0])
    one = lens in ("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL")
    numbers = ((fx, cx, cy) if one else (fx, fy, cx, cy)) + extra
    number = {"SIMPLE_PINHOLE": 0, "PINHOLE": 1, "SIMPLE_RADIAL": 2, "RADIAL": 3, "OPENCV": 4, "OPENCV_FISHEYE": 5,
              "FULL_OPENCV": 6, "FOV": 7}[lens]  # fmt: skip
    poses = []
    for v, image in enumerate(scene.images):
        save(root / f"images/p{v:02d}.png", image)
        turn = (scene.c2w[v][:, :3].astype(np.float64) * [1, -1, -1]).T
        x, y, z, q = Rotation.from_matrix(turn).as_quat()
        poses.append((v + 1, (q, x, y, z), -turn @ scene.c2w[v][:, 3].astype(np.float64), f"p{v:02d}.png"))
    rng = np.random.default_rng(0)
    cloud = scene.aabb[0] + (scene.aabb[1] - scene.aabb[0]) * rng.random((points, 3))
    if binary:
        lines = struct.pack("<QiiQQ", 1, 1, number, w, h) + struct.pack(f"<{len(numbers)}d", *numbers)
        sparse.joinpath("cameras.bin").write_bytes(lines)
        rows = [struct.pack("<i7di", i, *q, *t, 1) + name.encode() + b"\0" + struct.pack("<Q2dq", 1, 3.0, 4.0, -1)
                for i, q, t, name in poses]  # fmt: skip
        sparse.joinpath("images.bin").write_bytes(struct.pack("<Q", len(rows)) + b"".join(rows))
        rows = [struct.pack("<Q3d3Bd", i, *p, 1, 2, 3, 0.5) + struct.pack("<Q2i", 1, 1, 0) for i, p in enumerate(cloud)]
        sparse.joinpath("points3D.bin").write_bytes(struct.pack("<Q", len(rows)) + b"".join(rows))
    else:
        sparse.joinpath("cameras.txt").write_text(f"# cameras\n1 {lens} {w} {h} {' '.join(map(repr, numbers))}\n")
        rows = [f"{i} {' '.join(repr(float(x)) for x in (*q, *t))} 1 {name}\n\n" for i, q, t, name in poses]
        sparse.joinpath("images.txt").write_text("# two lines each\n" + "".join(rows))
        sparse.joinpath("points3D.txt").write_text(
            "".join(f"{i} {' '.join(map(repr, map(float, p)))} 1 2 3 0.5 1 0\n" for i, p in enumerate(cloud)))
    return root


def llff(root: Path, scene: Capture) -> Path:
    w, h = scene.size
    rows = []
    for v, image in enumerate(scene.images):
        save(root / f"images/i{v:02d}.png", image)
        c = scene.c2w[v].astype(np.float64)
        matrix = np.stack([-c[:, 1], c[:, 0], c[:, 2], c[:, 3], [h, w, scene.K[v, 0]]], 1)
        rows.append(np.concatenate([matrix.reshape(-1), [2.0, 6.0]]))
    np.save(root / "poses_bounds.npy", np.array(rows))
    return root


def tiny(root: Path, scene: Capture) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    poses = np.array([square(c) for c in scene.c2w])
    np.savez(root / "tiny.npz", images=scene.rgb(), poses=poses, focal=np.array(scene.K[0, 0], np.float64))
    return root / "tiny.npz"


def nerfies(root: Path, scene: Capture, scale: float = 0.5) -> Path:
    ids = [f"{v:06d}" for v in range(len(scene.images))]
    (root / "camera").mkdir(parents=True)
    for v, name in enumerate(ids):
        save(root / f"rgb/1x/{name}.png", scene.images[v])
        turn = (scene.c2w[v][:, :3].astype(np.float64) * [1, -1, -1]).T
        camera = {"orientation": turn.tolist(), "position": scene.c2w[v][:, 3].tolist(),
                  "focal_length": float(scene.K[v, 0]), "principal_point": [float(x) for x in scene.K[v, 2:]],
                  "skew": 0.0, "pixel_aspect_ratio": 1.0, "radial_distortion": [0.0, 0.0, 0.0],
                  "tangential_distortion": [0.0, 0.0], "image_size": list(scene.size)}  # fmt: skip
        (root / f"camera/{name}.json").write_text(json.dumps(camera))
    root.joinpath("dataset.json").write_text(json.dumps({"ids": ids, "train_ids": ids[2:], "val_ids": ids[:2]}))
    bounds = {"near": 2.0 * scale, "far": 6.0 * scale}  # which the layout has in the scaled units
    root.joinpath("scene.json").write_text(json.dumps({"scale": scale, "center": [1.0] * 3, **bounds}))
    root.joinpath("metadata.json").write_text(json.dumps({n: {"warp_id": i} for i, n in enumerate(ids)}))
    return root
