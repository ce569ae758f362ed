"""The built-in sample: clips of rendered objects, one folder of frames each, in a folder a shape."""

from pathlib import Path

from precis.data.images import write_image
from precis.data.toy_clips import clips
from precis.data.toy_shapes import SHAPES

CLIPS, FRAMES, SIZE = 48, 16, 32


def write_clips(folder: Path) -> str:
    """`folder`/shape/number/00.png …; the folder's path."""
    made = clips(CLIPS, FRAMES, 0, size=SIZE, deform=0.3)
    shapes = made.factors["shape"][::FRAMES, 0]
    for i, frames in enumerate(made.frames):
        place = folder / SHAPES[shapes[i]] / f"{i:02d}"
        place.mkdir(parents=True, exist_ok=True)
        for t, frame in enumerate(frames):
            write_image(place / f"{t:02d}.png", frame)
    return str(folder)
