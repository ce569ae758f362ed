import numpy as np
import pytest
import scipy.ndimage
import torch

from precis.fields.poisson import (
    align_gain_offset,
    align_mean,
    blend_gradients,
    gradient_rows,
    image_gradient,
    image_laplacian,
    solve_gradient,
    solve_laplacian,
)  # fmt: skip
from precis.nn.coordinates import coordinate_grid


def picture(c: int = 2, h: int = 13, w: int = 18) -> torch.Tensor:
    return torch.rand(c, h, w, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def centred(image: torch.Tensor) -> torch.Tensor:
    return image - image.mean((-2, -1), keepdim=True)


@pytest.mark.parametrize("scheme", ["central", "sobel", "forward"])
def test_a_picture_comes_back_from_its_gradient(scheme) -> None:
    image = picture()
    rebuilt = solve_gradient(image_gradient(image, scheme), scheme)
    torch.testing.assert_close(rebuilt, centred(image), rtol=0, atol=1e-10)


def test_a_picture_comes_back_from_its_laplacian() -> None:
    image = picture()
    target = image_laplacian(image)
    rebuilt = solve_laplacian(target)
    assert float((image_laplacian(rebuilt) - target).abs().max() / target.abs().max()) < 1e-10
    torch.testing.assert_close(rebuilt, centred(image), rtol=0, atol=1e-10)


@pytest.mark.parametrize("scheme", ["central", "sobel", "forward"])
def test_the_solution_is_the_least_squares_one(scheme) -> None:
    """For a field that is no gradient: residual orthogonal to all gradients, and a dense solver agrees."""
    h, w = 5, 6
    field = torch.randn(1, 2, h, w, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    basis = torch.eye(h * w, dtype=torch.float64).view(h * w, h, w)
    matrix = torch.stack([image_gradient(one[None], scheme).flatten() for one in basis], 1).numpy()
    dense = np.linalg.lstsq(matrix, field.flatten().numpy(), rcond=None)[0].reshape(h, w)
    found = solve_gradient(field, scheme)[0].numpy()
    np.testing.assert_allclose(found, dense - dense.mean(), atol=1e-10)


def test_units_are_those_of_the_coordinates() -> None:
    x = coordinate_grid((20, 31), dtype=torch.float64)
    plane = (3 * x[:, 0] - 2 * x[:, 1]).view(1, 20, 31)
    gradient = image_gradient(plane)[0, :, 1:-1, 1:-1]
    torch.testing.assert_close(gradient[0], torch.full_like(gradient[0], 3.0))
    torch.testing.assert_close(gradient[1], torch.full_like(gradient[1], -2.0))
    bowl = (x[:, 0] ** 2 + 2 * x[:, 1] ** 2).view(1, 20, 31)
    inner = image_laplacian(bowl)[0, 1:-1, 1:-1]
    torch.testing.assert_close(inner, torch.full_like(inner, 6.0))
    assert gradient_rows(image_gradient(plane)).shape == (620, 1, 2)
    slope = torch.tensor([[3.0, -2.0]], dtype=torch.float64)
    torch.testing.assert_close(gradient_rows(image_gradient(plane))[33], slope)


def test_filters_equal_scipy() -> None:
    image = picture(1, 16, 16)
    array = image[0].numpy()
    for axis in (0, 1):
        reference = scipy.ndimage.sobel(array, axis=axis) / 8 * 8
        np.testing.assert_allclose(image_gradient(image, "sobel")[0, axis], reference, atol=1e-12)
    np.testing.assert_allclose(image_laplacian(image)[0], scipy.ndimage.laplace(array) * 64, atol=1e-10)


def test_blends() -> None:
    a, b = image_gradient(picture()), image_gradient(picture().flip(-1))
    torch.testing.assert_close(blend_gradients(a, b), (a + b) / 2)
    torch.testing.assert_close(blend_gradients(a, b, 1.0), a)
    longer = blend_gradients(a, b, rule="max")
    torch.testing.assert_close(longer.norm(dim=1), torch.maximum(a.norm(dim=1), b.norm(dim=1)))
    mask = torch.zeros(13, 18, dtype=torch.float64)
    mask[:5] = 1
    mixed = blend_gradients(a, b, mask=mask)
    torch.testing.assert_close(mixed[..., 5:, :], a[..., 5:, :])
    torch.testing.assert_close(mixed[..., :5, :], (a + b)[..., :5, :] / 2)
    with pytest.raises(ValueError, match="one shape"):
        blend_gradients(a, b[..., :4])
    with pytest.raises(ValueError, match="alpha"):
        blend_gradients(a, b, 1.5)


def test_alignment() -> None:
    image = picture()
    torch.testing.assert_close(align_mean(image + 3, image), image)
    torch.testing.assert_close(align_gain_offset(-2 * image + 1, image), image)
    flat = torch.zeros_like(image)
    torch.testing.assert_close(align_gain_offset(flat, image), image.mean((-2, -1), keepdim=True).expand_as(image))
