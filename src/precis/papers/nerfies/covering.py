"""Whether the box of the scene holds what the photographs show."""

from typing import Any

import torch

from precis.fields.nerf_grid import box_span

from .opening import Opened

PAST, PROBED = 0.2, 20_000  # the share of pixels that may look past the box unsaid; pixels asked


def tell_of_the_box(opened: Opened, work: Any) -> None:
    """A note where many rays miss the box, though their pixels are not background."""
    pixels, device = opened.pixels, opened.box.device
    rows = torch.linspace(0, len(pixels.view) - 1, min(PROBED, len(pixels.view))).long().to(device)
    rays = opened.cameras.rays(pixels.view[rows], pixels.pix[rows], unit=True)
    first, last = box_span(rays, opened.box, opened.near, opened.far)
    shows = torch.ones_like(first, dtype=torch.bool)
    if opened.background is not None:
        behind = (torch.tensor(opened.background, device=device) * 255).round()
        shows = (pixels.rgb[rows] != behind).any(-1)
    share = float(((first >= last) & shows).float().mean())
    if share > PAST:
        work.note(f"{share:.0%} of the pixels show something where their rays miss the box of the scene, and nothing "
                  "can be learned of that: --aabb, or points.npy that reach further, make it larger")  # fmt: skip
