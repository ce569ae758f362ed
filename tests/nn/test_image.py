import numpy as np
import pytest
import torch
from skimage.data import astronaut
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from precis.nn.image import psnr, ssim


def pictures(dtype=torch.float64):
    clean = torch.tensor(astronaut()[100:160, 80:155], dtype=dtype).permute(2, 0, 1) / 255
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0), dtype=dtype)
    return torch.stack([clean, clean.flip(1)]), torch.stack([clean + 0.1 * noise, clean.flip(2)]).clamp(0, 1)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("sigma", [1.5, 0.8])
def test_ssim_is_scikit_images(dtype, sigma):
    x, y = pictures(dtype)
    for value, a, b in zip(ssim(x, y, sigma=sigma), x.double().numpy(), y.double().numpy()):
        reference = structural_similarity(
            a, b, channel_axis=0, data_range=1.0, gaussian_weights=True, sigma=sigma, use_sample_covariance=False
        )
        assert abs(float(value) - reference) < 1e-6


def test_ssim_keeps_its_digits_on_bright_flat_pictures():
    flat = 0.9 + 1e-4 * torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    other = flat.roll(1, -1)
    assert abs(float(ssim(flat.float(), other.float())) - float(ssim(flat, other))) < 1e-6


def test_psnr_is_scikit_images():
    x, y = pictures()
    for value, a, b in zip(psnr(x, y), x.numpy(), y.numpy()):
        assert abs(float(value) - peak_signal_noise_ratio(a, b, data_range=1.0)) < 1e-6


def test_equal_pictures():
    x, _ = pictures()
    assert torch.isinf(psnr(x, x)).all() and (psnr(x, x) > 0).all()
    torch.testing.assert_close(ssim(x, x), torch.ones(2, dtype=torch.float64))


def test_bytes_are_divided_by_255():
    x = torch.tensor(np.moveaxis(astronaut()[None, :32, :32], -1, 1).copy())
    y = x.roll(1, -1)
    assert torch.equal(psnr(x, y), psnr(x.float() / 255, y.float() / 255))
    assert torch.equal(ssim(x, y), ssim(x.float() / 255, y.float() / 255))


def test_each_picture_is_judged_by_itself():
    x, y = pictures()
    torch.testing.assert_close(ssim(x[1:], y[1:]), ssim(x, y)[1:])
    torch.testing.assert_close(psnr(x[1:], y[1:]), psnr(x, y)[1:])


def test_ssim_refuses_pictures_below_its_window():
    with pytest.raises(ValueError, match="at least 11 pixels"):
        ssim(torch.zeros(1, 1, 10, 40), torch.zeros(1, 1, 10, 40))
