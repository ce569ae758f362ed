"""Something to work on where no INPUT is named, for every task: nothing is fetched."""

from pathlib import Path

import numpy as np


def make_sample(task: str, folder: Path) -> str:
    """Put the sample of a task into `folder`; what INPUT would be."""
    from precis.data import embedded, shapes
    from precis.data.animation import write_animation
    from precis.data.audio import write_wav
    from precis.data.images import write_image
    from precis.data.points import write_ply

    if task == "sdf":
        torus = shapes.torus(20_000, seed=0)
        return str(write_ply(folder / "torus.ply", torus.points, normals=torus.normals))
    if task == "audio":
        sound = shapes.chord(2.0, 16_000)
        return str(write_wav(folder / "chord.wav", sound.samples, sound.rate))
    if task == "video":
        return str(write_animation(folder / "moving_shapes.webp", shapes.moving_shapes(24, 64), fps=12))
    if task == "prior":
        images = np.minimum(embedded.digits(8).images.astype(int) * 16, 255).astype(np.uint8)
        np.savez(folder / "digits.npz", images=images)
        return str(folder / "digits.npz")
    if task == "helmholtz":
        return str(write_image(folder / "lens.png", _lens(128)))
    if task == "wave":
        return str(write_image(folder / "two_speeds.png", _two_speeds(128)))
    if task == "blend":
        return str(write_image(folder / "camera.png", embedded.photo("camera")))
    return str(write_image(folder / "coffee.png", embedded.photo("coffee")))


def second_picture(folder: Path) -> Path:
    """What the sample of `blend` is blended with."""
    from precis.data.embedded import photo
    from precis.data.images import write_image

    grey = np.tensordot(np.array([0.299, 0.587, 0.114]), photo("astronaut"), 1)
    return write_image(folder / "astronaut.png", np.rint(grey).astype(np.uint8)[None])


def _lens(size: int) -> np.ndarray:
    """White, with a dark disc right of the middle: slower there, so that it focuses."""
    y, x = _grid(size)
    inside = np.clip(0.5 - (np.hypot(x - 0.25, y) - 0.2) * size / 6, 0, 1)
    return (255 - 155 * inside).astype(np.uint8)[None]


def _two_speeds(size: int) -> np.ndarray:
    """Slow (dark grey) on the left, fast (light) on the right, with a soft border."""
    _, x = _grid(size)
    share = 1 / (1 + np.exp(-(x - 0.2) * 30))
    return (85 + 85 * share).astype(np.uint8)[None]


def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    line = (2 * np.arange(size) + 1) / size - 1
    y, x = np.meshgrid(line, line, indexing="ij")
    return y, x
