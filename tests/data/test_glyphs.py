import numpy as np
import pytest

from precis.data.glyphs import ALIKE, FONTS, classes_of, glyphs, split_fonts
from precis.errors import InputError


def test_the_same_seed_gives_the_same_and_another_another():
    a, b, c = (glyphs("digits", n_per_class=3, seed=s) for s in (1, 1, 2))
    assert np.array_equal(a.images, b.images) and np.array_equal(a.fonts, b.fonts)
    assert not np.array_equal(a.images, c.images)
    assert a.images.shape == (30, 1, 16, 16) and a.images.dtype == np.uint8
    assert a.labels.tolist() == [i // 3 for i in range(30)]


def test_characters_that_look_alike_are_one_class():
    assert classes_of("digits") == tuple("0123456789")
    latin = classes_of("latin+digits")
    assert "Oo0" in latin and "Il1" in latin and "a" in latin and len(latin) == 48
    assert len(classes_of("latin+digits+greek")) >= 62
    assert len({c for word in ALIKE for c in word}) == sum(map(len, ALIKE))
    with pytest.raises(InputError, match="no alphabet"):
        classes_of("latin+runes")


def test_typefaces_are_held_out_whole():
    train, test = split_fonts()
    assert len(test) == 4 and not set(train) & set(test) and set(train) | set(test) == set(FONTS)
    assert all("STIX" in f for f in test) and not any("STIX" in f for f in train)
    assert len(split_fonts(("DejaVuSans",))[1]) == 4
    with pytest.raises(InputError, match="typeface"):
        split_fonts(("Comic",))


def test_labels_of_three_kinds():
    kinds = ("char", "font", "alphabet")
    made = [glyphs("upper+digits", FONTS[:3], n_per_class=2, labels=kind, seed=3) for kind in kinds]
    assert all(np.array_equal(m.images, made[0].images) for m in made)
    assert np.array_equal(made[1].labels, made[1].fonts) and set(made[1].labels) == {0, 1, 2}
    assert set(made[2].labels) == {0, 1}


def test_without_noise_and_motion_a_character_of_a_font_has_one_shape():
    still = glyphs("digits", FONTS[:1], 28, 12, affine=0, noise=0, classes=1, seed=0)
    x = still.images[:, 0].astype(float)
    ink = np.abs(x - x[:, :1, :1]) / np.abs(x - x[:, :1, :1]).max((1, 2), keepdims=True)
    inside = ink[0] > 0.9
    assert all((np.corrcoef(ink[0].ravel(), i.ravel())[0, 1]) > 0.85 for i in ink)  # thin or bold
    moved = glyphs("digits", FONTS[:1], 28, 12, noise=0, classes=1, seed=0).images[:, 0].astype(float)
    assert inside.any() and not np.array_equal(moved, x)


def test_ink_stands_out_on_plain_and_on_photographs():
    for background in ("plain", "photo"):
        made = glyphs("upper", n_per_class=4, noise=0, background=background, seed=1)
        spans = np.ptp(made.images.reshape(len(made.images), -1).astype(float), axis=1)
        assert (spans > 60).mean() > 0.95


def test_classes_can_be_told_apart_across_typefaces():
    """Nearest mean picture of the ink, train fonts to held-out ones: far above the 10 % of guessing."""
    train, test = split_fonts()
    parts = [glyphs("digits", fonts, 16, 60, noise=0, seed=i) for i, fonts in enumerate((train, test))]
    shapes = []
    for p in parts:
        x = p.images.reshape(len(p.images), -1).astype(float)
        x = np.abs(x - np.median(x, axis=1, keepdims=True))
        shapes.append(x / np.linalg.norm(x, axis=1, keepdims=True))
    means = np.stack([shapes[0][parts[0].labels == c].mean(0) for c in range(10)])
    assert ((shapes[1] @ means.T).argmax(1) == parts[1].labels).mean() > 0.45


@pytest.mark.parametrize(
    "options", [{"size": 4}, {"n_per_class": 0}, {"classes": 99}, {"fonts": ("Comic",)}, {"fonts": ()}]
)
def test_what_cannot_be_drawn_is_told(options):
    with pytest.raises(InputError):
        glyphs("digits", **options)
