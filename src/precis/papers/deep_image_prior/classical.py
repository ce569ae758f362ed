"""What one would use without a network: total variation, non-local means, a Gaussian, bicubic, biharmonic.

Pictures are [1,3,H,W] or [1,1,H,W] tensors in and out.  `best_of` picks a method's parameter on the clean picture,
which nobody has: as a baseline that is an oracle in its favour.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

Number = float | int
Picture = Float[Tensor, "1 c h w"]


def total_variation(x: Picture, weight: Number) -> Picture:
    """min_u ½‖u − x‖² + weight · TV(u), TV over the channels together (Chambolle's projection)."""
    from skimage.restoration import denoise_tv_chambolle

    return _back(denoise_tv_chambolle(_array(x), weight=float(weight), channel_axis=-1, max_num_iter=400, eps=1e-5), x)


def non_local_means(x: Picture, h: Number, sigma: Number = 0.0) -> Picture:
    """Means of pixels whose 5 × 5 patches are alike, weights exp(−d²/h²); sigma: noise taken out of d."""
    from skimage.restoration import denoise_nl_means

    made = denoise_nl_means(
        _array(x), patch_size=5, patch_distance=8, h=float(h), sigma=float(sigma), fast_mode=True, channel_axis=-1
    )
    return _back(made, x)


def gaussian(x: Picture, sigma: Number) -> Picture:
    from scipy.ndimage import gaussian_filter

    return _back(gaussian_filter(_array(x), (sigma, sigma, 0), mode="reflect"), x)


def bicubic(x: Picture, factor: int) -> Float[Tensor, "1 c h2 w2"]:
    """Enlarged by Pillow's bicubic filter, not clipped."""
    from precis.data.images import resize

    made = resize(x[0].cpu().numpy(), (x.shape[-2] * factor, x.shape[-1] * factor))
    return torch.from_numpy(made)[None].to(x)


def biharmonic(x: Picture, known: Float[Tensor, "1 1 h w"]) -> Picture:
    """Unknown pixels from the biharmonic equation."""
    from skimage.restoration import inpaint_biharmonic

    return _back(inpaint_biharmonic(_array(x * known), known[0, 0].cpu().numpy() < 0.5, channel_axis=-1), x)


def tv_inpaint(x: Picture, known: Float[Tensor, "1 1 h w"], steps: int = 600) -> Picture:
    """Unknown pixels of least total variation, the known ones kept, by primal–dual steps (Chambolle, Pock 2011)."""
    keep = known[0, 0] > 0.5
    u = torch.where(keep, x, x.mean((-2, -1), keepdim=True)).double()
    target, ahead = u.clone(), u.clone()
    dual = torch.zeros(2, *u.shape, dtype=u.dtype, device=u.device)
    step = 8**-0.5
    for _ in range(steps):
        dual[0, ..., :-1, :] += step * (ahead[..., 1:, :] - ahead[..., :-1, :])
        dual[1, ..., :-1] += step * (ahead[..., 1:] - ahead[..., :-1])
        dual /= dual.square().sum((0, 2), keepdim=True).sqrt().clamp(min=1)
        back = torch.zeros_like(u)
        back[..., 1:, :] += dual[0, ..., :-1, :]
        back[..., :-1, :] -= dual[0, ..., :-1, :]
        back[..., 1:] += dual[1, ..., :-1]
        back[..., :-1] -= dual[1, ..., :-1]
        new = torch.where(keep, target, u - step * back)
        ahead, u = 2 * new - u, new
    return u.to(x)


def best_of(
    method: Callable[[Number], Picture], grid: Sequence[Number], score: Callable[[Picture], float]
) -> tuple[Picture, Number]:
    """The result with the best score, and its parameter."""
    made = [(method(value), value) for value in grid]
    return max(made, key=lambda pair: score(pair[0]))


def _array(x: Picture) -> np.ndarray:
    return np.ascontiguousarray(x[0].permute(1, 2, 0).cpu().numpy().astype(np.float64))


def _back(array: np.ndarray, like: Tensor) -> Tensor:
    array = array[..., None] if array.ndim == 2 else array  # non-local means drops a lone channel
    return torch.from_numpy(np.ascontiguousarray(np.moveaxis(array, -1, 0)))[None].to(like)
