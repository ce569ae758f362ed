"""Characters of a few random strokes: classes without end, and as many hands as one likes.

A class is 2 to 4 strokes, each a quadratic Bézier curve; an example moves its control points a little, turns, scales
and shifts the whole, and draws it with a pen of its own.
"""

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

STROKES, POINTS = 4, 12  # at most, and points drawn of each


def characters(
    classes: int, examples: int, size: int = 14, *, seed: int = 0, jitter: float = 0.035, turn: float = 0.25
) -> tuple[Float[Tensor, "n 1 size size"], Int[Tensor, " n"]]:
    """Pictures in [0, 1], ink 1, and their classes; `examples` of each.

    jitter: standard deviation of a control point, in widths of the picture; turn: the largest rotation, in radians.
    """
    g = torch.Generator().manual_seed(seed)
    control = 0.18 + 0.64 * torch.rand(classes, STROKES, 3, 2, generator=g)
    control[:, 1:, 0] = torch.where(  # half of the strokes begin where the one before ends
        torch.rand(classes, STROKES - 1, 1, generator=g) < 0.5, control[:, :-1, 2], control[:, 1:, 0]
    )
    drawn = torch.arange(STROKES) < torch.randint(2, STROKES + 1, (classes, 1), generator=g)
    n = classes * examples
    own = control.repeat_interleave(examples, 0)
    own = own + jitter * torch.randn(own.shape, generator=g)
    angle = turn * (2 * torch.rand(n, generator=g) - 1)
    scale = 0.85 + 0.3 * torch.rand(n, 2, generator=g)
    shift = 0.5 + 0.09 * torch.randn(n, 2, generator=g)
    rotation = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], -1).view(n, 1, 1, 2, 2)
    own = ((own - 0.5) * scale[:, None, None])[..., None, :] @ rotation
    own = own[..., 0, :] + shift[:, None, None]
    t = torch.linspace(0, 1, POINTS)[:, None]
    weights = torch.cat([(1 - t) ** 2, 2 * t * (1 - t), t**2], 1)
    path = torch.einsum("pk,nskd->nspd", weights, own)
    far = ~drawn.repeat_interleave(examples, 0)[..., None, None]
    path = path.masked_fill(far, 9.0).flatten(1, 2)
    pen = 0.035 + 0.02 * torch.rand(n, 1, generator=g)
    grid = (torch.arange(size) + 0.5) / size
    pixels = torch.stack(torch.meshgrid(grid, grid, indexing="ij"), -1).view(1, -1, 2)
    ink = [
        (1 - (torch.cdist(pixels.expand(len(some), -1, -1), some).amin(-1) - width) * size).clamp(0, 1)
        for some, width in zip(path.split(512), pen.split(512))
    ]
    labels = torch.arange(classes).repeat_interleave(examples)
    return torch.cat(ink).view(n, 1, size, size), labels


def sheet(pictures: Float[Tensor, "r c 1 s s"]) -> np.ndarray:
    """[H,W]: rows of characters side by side, dark ink on white."""
    r, c, _, s, _ = pictures.shape
    return 1 - pictures[:, :, 0].permute(0, 2, 1, 3).reshape(r * s, c * s).numpy()
