"""Depth maps as a run writes them: exact as .npy, as 16-bit pictures, all on one scale that is said, and in colour."""

import io

import numpy as np
from jaxtyping import Float

from precis.papers.job import Work
from precis.papers.work import save

STEPS = 65535
KEY = "units_per_step"  # of the text that a picture carries


class DepthMaps:
    """NAME.npy at once, NAME_depth.png at the end, when the largest depth of all is known: 65535 stands for it."""

    def __init__(self, work: Work) -> None:
        self.work, self.most = work, 0.0
        self.names: list[str] = []

    def add(self, name: str, depth: Float[np.ndarray, "h w"]) -> None:
        """A map in the units of INPUT; `name` is a path below the run's folder, without suffix."""
        content = io.BytesIO()
        np.save(content, depth.astype(np.float32))
        save(self.work.folder / f"{name}.npy", content.getvalue())
        self.most = max(self.most, float(depth.max()))
        self.names.append(name)

    def finish(self) -> float:
        """The pictures, each with its scale as text; what one step is worth, which is noted too."""
        step = max(self.most, 1e-9) / STEPS
        for name in self.names:
            depth = np.load(self.work.folder / f"{name}.npy", allow_pickle=False)
            save(self.work.folder / f"{name}_depth.png", depth_picture(depth, step))
        self.work.note(f"depth pictures of 16 bits: a step is worth {step:.6g} units of INPUT, in all of them")
        return step


def in_colour(depth: Float[np.ndarray, "h w"], far: float) -> Float[np.ndarray, "h w 3"]:
    """To look at: near warm and bright, far dark; nothing (at `far`) white."""
    import matplotlib

    there = depth < 0.999 * far
    low, high = (np.percentile(depth[there], [1, 99]) if there.any() else (0.0, 1.0))
    share = 1 - ((depth - low) / max(high - low, 1e-6)).clip(0, 1)
    colours = matplotlib.colormaps["inferno"](0.1 + 0.85 * share)[..., :3]
    return np.asarray(np.where(there[..., None], colours, 1.0))


def depth_picture(depth: Float[np.ndarray, "h w"], step: float) -> bytes:
    """A 16-bit PNG of depth/step, at most 65535; its text `units_per_step` says what a step is worth."""
    from PIL import Image as Pillow
    from PIL.PngImagePlugin import PngInfo

    said, picture = PngInfo(), io.BytesIO()
    said.add_text(KEY, repr(float(step)))
    values = np.rint(depth / step).clip(0, STEPS).astype(np.uint16)
    Pillow.fromarray(values).save(picture, "PNG", pnginfo=said)
    return picture.getvalue()
