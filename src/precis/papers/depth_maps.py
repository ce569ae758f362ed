"""Depth maps as a run writes them: exact as .npy, and as 16-bit pictures, all on one scale that is said."""

import io

import numpy as np
from jaxtyping import Float

from precis.data.captures_depth import STEPS, depth_picture
from precis.papers.job import Work
from precis.papers.work import save


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
