"""Figures of jobs: the pixels and marks that are drawn."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

from precis.lab import figures


def opened(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


def test_pixels_of_reads_every_layout():
    grey = np.linspace(0, 1, 12).reshape(3, 4)
    assert figures.pixels_of(np.zeros((5, 6, 1))).shape == (5, 6, 4)
    wanted = (grey * 255 + 0.5).astype(np.uint8)
    for image in (grey, grey[None], torch.tensor(grey), torch.tensor(grey)[None]):
        rgba = figures.pixels_of(image)
        assert rgba.shape == (3, 4, 4)
        assert (rgba[:, :, 0] == wanted).all() and (rgba[:, :, 2] == wanted).all() and (rgba[:, :, 3] == 255).all()
    colour = np.random.default_rng(0).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    assert (figures.pixels_of(colour)[:, :, :3] == colour).all()
    assert (figures.pixels_of(colour.transpose(2, 0, 1))[:, :, :3] == colour).all()
    assert figures.pixels_of(torch.rand(3, 4, 5).bfloat16()).shape == (4, 5, 4)


def test_values_that_are_not_finite_are_magenta_and_others_are_clipped():
    rgba = figures.pixels_of(np.array([[np.nan, np.inf], [-3.0, 7.0]]))
    assert rgba[0].tolist() == [[255, 0, 255, 255]] * 2
    assert rgba[1, :, 0].tolist() == [0, 255]


@pytest.mark.parametrize("shape", [(4,), (2, 5, 6), (0, 4), (1, 2, 3, 4)])
def test_a_shape_that_is_no_picture_is_refused(shape):
    with pytest.raises(ValueError, match=r"a picture is \[H,W\]"):
        figures.pixels_of(np.zeros(shape))


def test_a_sheet_keeps_pixels_as_pixels():
    image = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    sheet = opened(figures.contact_sheet([image], size=64, gap=10))
    assert sheet.shape == (84, 84, 4)
    assert (sheet[10:74, 10:74, :3] == image.repeat(8, 0).repeat(8, 1)).all()
    assert (sheet[:10] == 255).all()


def test_a_sheet_lays_pictures_out_by_rows_and_writes_captions():
    images = np.stack([np.full((4, 4), i / 5) for i in range(6)])
    plain = opened(figures.contact_sheet(images, columns=3, size=40))
    assert plain.shape[:2] == (10 + 2 * 50, 10 + 3 * 50)
    centres = plain[30::50, 30::50, 0][:2, :3]
    assert centres.tolist() == [[0, 51, 102], [153, 204, 255]]
    with_words = opened(figures.contact_sheet(images, [f"picture {i}" for i in range(6)], columns=3, size=40))
    assert with_words.shape[0] > plain.shape[0]
    labelled = opened(figures.contact_sheet(images, header=list("abc"), rows=["seed 0", "seed 1"], title="T", size=40))
    assert labelled.shape[1] > plain.shape[1] and labelled.shape[0] > plain.shape[0]
    assert opened(figures.strip(images, size=40)).shape[:2] == (60, 10 + 6 * 50)


def test_a_transparent_sheet_has_no_ground():
    sheet = opened(figures.contact_sheet([np.zeros((4, 4))], size=8, background=None))
    assert sheet[0, 0, 3] == 0 and sheet[12, 12, 3] == 255


def test_large_pictures_are_averaged_down():
    board = np.indices((400, 400)).sum(0) % 2
    sheet = opened(figures.contact_sheet([board.astype(float)], size=100, gap=0))
    assert sheet.shape == (200, 200, 4)
    assert np.ptp(sheet[:, :, 0]) <= 1 and abs(int(sheet[0, 0, 0]) - 127) <= 1


@pytest.mark.parametrize(
    ("options", "words"),
    [({"labels": ["one"]}, "labels: 1 given for 2"), ({"header": ["a", "b", "c"], "columns": 2}, "header"),
     ({"rows": ["a", "b"], "columns": 2}, "rows")],
)
def test_captions_must_match(options, words):
    with pytest.raises(ValueError, match=words):
        figures.contact_sheet(np.zeros((2, 4, 4)), **options)


def test_no_pictures_is_an_error():
    with pytest.raises(ValueError, match="at least one picture"):
        figures.contact_sheet([])


def test_an_arm_keeps_its_colour_in_every_figure():
    order = ["siren", "relu", "tanh"]
    line = figures.curves({"tanh": ([0, 1], [1, 2])}, order=order).figure.axes[0].lines[0]
    bar = figures.bars({"tanh": 1.0}, order=order).figure.axes[0].patches[0]
    from matplotlib.colors import to_hex

    assert line.get_color() == to_hex(bar.get_facecolor()) == figures.arm_colours(order)["tanh"]


def test_colours_are_told_apart():
    from matplotlib.colors import to_rgb

    colours = np.array([to_rgb(c) for c in figures.PALETTE])
    apart = np.linalg.norm(colours[:, None] - colours[None], axis=-1) + np.eye(len(colours))
    assert apart.min() > 0.2


def test_curves_show_every_seed_and_the_mean():
    x = np.arange(4)
    axes = figures.curves({"a": [(x, x * 1.0), (x, x * 3.0)], "b": (x, -x)}, log_x=False).figure.axes[0]
    drawn = [line.get_ydata().tolist() for line in axes.lines]
    assert drawn == [[0, 1, 2, 3], [0, 3, 6, 9], [0, 2, 4, 6], [0, -1, -2, -3]]
    with pytest.raises(ValueError, match="equally long"):
        figures.curves({"a": (x, [1, 2])})


def test_points_of_curves_are_marked_on_request():
    lines = {"a": ([1, 2], [3, 4]), "b": ([1, 2], [4, 5])}
    marked, bare = (figures.curves(lines, marks=marks).figure.axes[0].get_lines() for marks in (True, False))
    assert len({line.get_marker() for line in marked}) == 2 and {line.get_marker() for line in bare} == {"None"}


def test_bars_heat_map_and_scatter_hold_the_numbers():
    axes = figures.bars({"a": 1.25, "gone": float("nan")}, intervals={"a": (1.0, 1.5)}).figure.axes[0]
    assert [text.get_text().strip() for text in axes.texts] == ["1.25", "no number"]
    axes = figures.heat_map([[0.0, -2.0], [1.0, None]], rows=["r", "s"], columns=["c", "d"], diverging=True).figure.axes
    assert axes[0].images[0].get_clim() == (-2.0, 2.0)
    axes = figures.scatter({"g": (torch.rand(5), torch.rand(5, requires_grad=True))}, identity=True).figure.axes[0]
    assert len(axes.collections[0].get_offsets()) == 5 and len(axes.lines) == 1
    with pytest.raises(ValueError, match="matrix"):
        figures.heat_map([1, 2])


def test_a_png_is_the_same_twice_white_and_says_what_it_shows():
    chart = figures.curves({"a $x$": ([0, 1], [0, 1])}, title="Loss − of $a$")
    png = chart.png()
    assert chart.png() == png and (opened(png)[0, 0] == 255).all()
    assert Image.open(io.BytesIO(png)).text["Description"] == "Loss − of $a$"


def test_drawing_leaves_matplotlib_as_it_was():
    import matplotlib

    before = dict(matplotlib.rcParams)
    figures.curves({"a": ([0, 1], [0, 1])}).png()
    assert dict(matplotlib.rcParams) == before
