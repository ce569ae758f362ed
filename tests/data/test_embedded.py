import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from precis.data.embedded import digits, patches, photo, photos, split_digits
from precis.errors import InputError


def test_digits_equal_scikit_learn():
    want = load_digits()
    images, labels, classes = digits()
    np.testing.assert_array_equal(images[:, 0], want.images)
    np.testing.assert_array_equal(labels, want.target)
    assert images.dtype == np.uint8 and labels.dtype == np.int64 and classes == tuple("0123456789")
    images[:] = 0  # a copy: the next caller is not harmed
    assert digits().images.max() == 16


def test_enlarged_digits_use_the_whole_range_and_average_back():
    small, large = digits().images / 16, digits(16).images / 255
    assert large.shape == (1797, 1, 16, 16) and digits(16).images.max() == 255
    back = large.reshape(-1, 1, 8, 2, 8, 2).mean((3, 5))
    assert np.abs(back - small).mean() < 0.05 < 0.2 < np.abs(back - small[::-1]).mean()
    with pytest.raises(ValueError, match="at least 8"):
        digits(4)


def test_default_split_is_randperm_0():
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0)).numpy()
    train, test = split_digits()
    np.testing.assert_array_equal(np.concatenate([train, test]), order)
    assert len(train) == 1200 and len(test) == 597
    np.testing.assert_array_equal(digits(8, "test").labels, digits().labels[test])
    assert len(digits(8, "train").images) == 1200 and not np.array_equal(split_digits(1)[0], train)


def test_photos_are_there_without_a_network():
    names = photos()
    assert {"camera", "astronaut", "coffee", "chelsea", "rocket", "china", "flower", "page", "text"} <= set(names)
    code = (
        "import socket\n"
        "def no(*a, **k): raise OSError('network')\n"
        "socket.socket.connect = no; socket.getaddrinfo = no\n"
        "from precis.data.embedded import photo, photos\n"
        "print(sum(photo(n).size > 0 for n in photos()))"
    )
    env_path = ":".join(p for p in sys.path if p)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": env_path})
    assert done.stdout.strip() == str(len(names)), done.stderr


def test_photo():
    assert photo("camera").shape == (1, 512, 512) and photo("coffee").shape == (3, 400, 600)
    assert photo("coffee").dtype == np.uint8
    np.testing.assert_array_equal(photo("cat"), photo("chelsea"))
    assert "camera" in photos(grey=True) and "camera" not in photos(grey=False)
    with pytest.raises(InputError, match="'nobody': there are astronaut"):
        photo("nobody")


@pytest.mark.parametrize("grey", [True, False])
def test_patches(grey):
    train = patches(16, 200, grey=grey, seed=3)
    assert train.shape == (200, 1 if grey else 3, 16, 16) and train.dtype == np.uint8
    np.testing.assert_array_equal(train, patches(16, 200, grey=grey, seed=3))
    assert not np.array_equal(train, patches(16, 200, grey=grey, seed=4))


def test_test_patches_come_from_the_right_third(monkeypatch):
    from precis.data import embedded

    ramp = np.broadcast_to(np.arange(90, dtype=np.uint8), (1, 40, 90))
    monkeypatch.setattr(embedded, "_photo", lambda name: ramp)
    embedded._side.cache_clear()
    train, test = patches(8, 300, grey=True), patches(8, 300, grey=True, split="test")
    embedded._side.cache_clear()
    assert train.min() == 0 and train.max() == 59 and test.min() == 60 and test.max() == 89


def test_patches_refuse():
    with pytest.raises(ValueError, match="2000 pixels"):
        patches(2000, 3)
