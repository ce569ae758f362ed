"""Charts of pages: what is drawn where, read back from the SVG; ticks; hostile words."""

import math
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from precis.lab import charts, figures, svg

NAMESPACE = "{http://www.w3.org/2000/svg}"
NUMBERS = st.floats(-1e12, 1e12, allow_nan=False).filter(lambda v: v == 0 or abs(v) > 1e-12)


def marks(drawing: svg.Drawing, kind: str) -> list[ElementTree.Element]:
    """Elements that carry this class."""
    return [node for node in ElementTree.fromstring(drawing.svg).iter() if kind in node.get("class", "").split()]


def texts(drawing: svg.Drawing, kind: str) -> list[str]:
    return [node.text or "" for node in marks(drawing, kind)]


def points(node: ElementTree.Element) -> list[list[tuple[float, float]]]:
    """The subpaths of a path of M and L alone."""
    found = []
    for part in filter(None, node.get("d", "").split("M")):
        numbers = [float(v) for v in re.findall(r"-?[\d.]+", part.removesuffix("h0"))]
        found.append(list(zip(numbers[::2], numbers[1::2])))
    return found


def place(node: ElementTree.Element) -> tuple[float, float]:
    x, y = re.findall(r"-?[\d.]+", node.get("transform", ""))
    return float(x), float(y)


def reader(drawing: svg.Drawing):
    """From a coordinate along x back to the number, by two of the axis's labels (a linear one without a power)."""
    ticks = [n for n in marks(drawing, "tick") if n.get("text-anchor") == "middle" and re.search(r"\d", n.text or "")]
    (x0, v0), (x1, v1) = [
        (float(n.get("x", "")), float((n.text or "").replace("−", "-").replace(",", ""))) for n in (ticks[0], ticks[-1])
    ]
    return lambda x: v0 + (x - x0) * (v1 - v0) / (x1 - x0)


PAIRS = {"siren": {0: 30.0, 1: 31.0, 2: 32.0}, "relu": {0: 21.0, 1: None, 2: float("nan")}, "broken": {}}


def test_every_paired_point_is_drawn_and_pairs_are_joined():
    chart = charts.paired_dots(PAIRS, label="PSNR", broken=["relu"])
    read = reader(chart)
    dots = {node.find(f"{NAMESPACE}title").text: node for node in marks(chart, "dot")}
    assert list(dots) == ["siren, 0: 30", "siren, 1: 31", "siren, 2: 32", "relu, 0: 21"]
    assert [read(place(node)[0]) for node in dots.values()] == pytest.approx([30, 31, 32, 21], abs=0.1)
    assert ["broken" in node.get("class", "") for node in dots.values()] == [False, False, False, True]
    (way,) = points(marks(chart, "pairs")[0])
    assert way == [place(dots["siren, 0: 30"]), place(dots["relu, 0: 21"])]
    assert [read(points(bar)[0][0][0]) for bar in marks(chart, "mean")] == pytest.approx([31, 21], abs=0.1)
    assert texts(chart, "name") == ["siren", "relu", "broken"] and "no finite value" in texts(chart, "tick")
    assert "siren: mean 31, 30 to 32" in chart.svg and "broken: no finite value" in chart.svg


def test_numbers_of_many_sizes_get_a_logarithmic_axis():
    chart = charts.paired_dots({"a": {0: 1e-7, 1: 1e-4}, "b": {0: 1.0}}, label="mse")
    assert texts(chart, "label") == ["mse (logarithmic)"]
    first, second, third = (place(node)[0] for node in marks(chart, "dot"))
    assert (second - first) / (third - first) == pytest.approx(3 / 7, abs=0.01)
    assert "(logarithmic)" not in charts.paired_dots({"a": {0: 0.0, 1: 1e9}}).svg


def test_an_arm_keeps_colour_and_marker_by_its_place_in_the_claim():
    order = [f"arm_{i}" for i in range(10)]
    line = charts.curves({"arm_9": [([0, 1], [1, 2])]}, order=order)
    dots = charts.paired_dots({"arm_9": {0: 1.0}}, order=order)
    assert len(marks(line, "a1")) == len(marks(dots, "a1")) == 1
    assert marks(dots, "dot")[0].get("d") == svg.MARKERS[1]
    assert marks(line, "curve")[0].get("stroke-dasharray") == svg.DASHES[1]


def test_pages_and_pictures_have_the_same_colours():
    light = Path(svg.__file__).with_name("templates").joinpath("chart.css").read_text().split("@media")[0]
    assert tuple(re.findall(r"--arm: (#\w{6})", light)) == figures.PALETTE and len(figures.PALETTE) == svg.COLOURS


def test_the_interval_is_drawn_beside_the_claimed_side():
    chart = charts.interval_of_difference(9.1, (8.3, 9.9), (3.0, None), points=[8.5, 9.7, math.nan], label="a − b")
    read = reader(chart)
    ((low, _), (high, _)) = points(marks(chart, "interval")[0])[0]
    assert (read(low), read(high)) == pytest.approx((8.3, 9.9), abs=0.03)
    assert read(place(marks(chart, "effect")[0])[0]) == pytest.approx(9.1, abs=0.03)
    (bound,) = marks(chart, "bound")
    (claimed,) = marks(chart, "claimed")
    assert read(points(bound)[0][0][0]) == pytest.approx(3.0, abs=0.03)
    assert float(claimed.get("x", "")) == points(bound)[0][0][0]
    assert float(claimed.get("x", "")) + float(claimed.get("width", "")) == pytest.approx(svg.WIDTH - 8)
    assert marks(chart, "seed")[0].get("d", "").count("M") == 2 and marks(chart, "zero") == []
    assert chart.alt == "effect 9.100, interval 8.3 to 9.9" and texts(chart, "label") == ["a − b"]


@pytest.mark.parametrize("claimed", [None, (None, None), (None, 2.0), (-1.0, 1.0)])
@pytest.mark.parametrize("effect", [None, math.nan, 0.0, 1e-9, -1e30])
def test_whatever_is_known_is_a_picture(effect, claimed):
    known = effect is not None and math.isfinite(effect)
    for interval in (None, (math.nan, math.inf), *([(effect, effect)] if known else [])):
        chart = charts.interval_of_difference(effect, interval, claimed)
        assert len(marks(chart, "effect")) == known and ("no effect" in chart.alt) == (not known)
        assert len(marks(chart, "claimed")) == (claimed is not None) and "nan" not in chart.svg


def test_curves_show_every_seed_and_the_mean():
    x = [0, 1, 2, 3]
    chart = charts.curves({"a": [(x, [0, 1, 2, 3]), (x, [0, 3, 6, 9])], "b": [(x, [0, -1, -2, None])]}, label="loss")
    key_a, key_b, thin, mean, alone = marks(chart, "curve")
    assert "thin" in thin.get("class", "") and "thin" not in mean.get("class", "")
    one, three = points(thin)
    (two,) = points(mean)
    assert [b for _, b in two] == pytest.approx([(p[1] + q[1]) / 2 for p, q in zip(one, three)], abs=0.11)
    assert [len(part) for part in points(alone)] == [3]
    assert texts(chart, "title") == ["loss"] and texts(chart, "name") == ["a", "b"]
    assert "a: from 0 at 0 to 6 at 3; b: from 0 at 0 to −2 at 2" in chart.svg
    with pytest.raises(ValueError, match="equally many"):
        charts.curves({"a": [(x, [1, 2])]})


def test_a_line_is_broken_where_a_number_is_missing():
    y = [1.0, 2.0, math.nan, 4.0, None, 6.0]
    chart = charts.curves({"a": [(list(range(6)), y)]})
    assert [len(part) for part in points(marks(chart, "curve")[0])] == [2, 1, 1]
    assert len(marks(charts.curves({"a": [([3], [4.0])]}), "dot")) == 1
    assert points(marks(charts.curves({"a": [([0, 1, 2], [1.0, 0.0, 1e-4])]}, log_y=True), "curve")[0])[0][0][0] > 0


def test_a_long_line_keeps_its_spikes():
    y = [math.sin(i / 900) for i in range(20_000)]
    y[7_777] = 9.0
    chart = charts.curves({"a": [(list(range(20_000)), y)]})
    (line,) = points(marks(chart, "curve")[0])
    assert len(line) <= 1.1 * charts.MOST
    top = min(line, key=lambda point: point[1])
    assert top[0] == pytest.approx(line[0][0] + 7_777 / 19_999 * (line[-1][0] - line[0][0]), abs=0.1)


@given(NUMBERS, NUMBERS)
def test_ticks_are_round_inside_and_say_where_they_are(a, b):
    over = svg.scale([a, b], 0, 300)
    ticks, times = over.ticks(5)
    assert 2 <= len(ticks) <= 5 and len({said for _, said in ticks}) == len(ticks)
    power = 10.0 ** int(times[3:].translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789"))) if times else 1.0
    step = ticks[1][0] - ticks[0][0]
    for value, said in ticks:
        assert over.low - 1e-6 * step <= value <= over.high + 1e-6 * step
        assert float(said.replace("−", "-").replace(",", "")) * power == pytest.approx(value, abs=1e-3 * step)


@given(st.floats(1e-15, 1e15), st.floats(1.0, 1e12))
def test_ticks_of_a_logarithmic_axis_are_inside(low, times):
    over = svg.scale([low, low * times], 0, 300, log=True)
    ticks, _ = over.ticks(5)
    assert 1 <= len(ticks) <= 7
    assert all(-0.1 <= over(value) <= 300.1 for value, _ in ticks)


def test_labels_of_powers():
    assert svg.scale([1e-9, 1e-2], 0, 1, log=True).ticks(8)[0][0][1] == "10⁻⁹"
    assert [said for _, said in svg.scale([0.011, 0.9], 0, 1, room=0, log=True).ticks(6)[0]] == [
        "0.02", "0.05", "0.1", "0.2", "0.5"]  # fmt: skip
    ticks, times = svg.scale([0, 3e-7], 0, 1, room=0).ticks(4)
    assert ([said for _, said in ticks], times) == (["0", "1", "2", "3"], "×10⁻⁷")


@given(st.text(max_size=40))
def test_any_words_are_shown_as_written(words):
    chart = charts.paired_dots({words: {words: 1.0}}, label=words, broken=[words])
    lines = charts.curves({words: [([0, 1], [0, 1])], "b": [([0], [1])]}, label=words)
    for drawn in (chart, lines, charts.interval_of_difference(1.0, None, label=words, alt=words)):
        for text in (drawn.svg, drawn.standalone()):
            root = ElementTree.fromstring(text)
            assert root.tag == f"{NAMESPACE}svg" and root.get("role") == "img"
            assert {node.tag.removeprefix(NAMESPACE) for node in root.iter()} <= {
                "svg", "title", "desc", "path", "rect", "text", "style"}


def test_names_too_wide_take_two_lines_or_are_shortened_in_the_middle():
    assert svg.two_lines("siren", 100) == ["siren"]
    assert svg.two_lines("siren_with_shuffled_coordinates", 124) == ["siren_with_", "shuffled_coordinates"]
    (short,) = svg.two_lines("x" * 60, 100)
    assert "…" in short and svg.text_width(short) <= 100 and short[0] == short[-1] == "x"


def test_a_file_of_its_own_has_its_colours_and_a_page_has_none():
    chart = charts.paired_dots(PAIRS)
    assert "<style>" not in chart.svg and "prefers-color-scheme" in chart.standalone()
    assert not re.search(r"#[0-9a-f]{6}", chart.svg)
