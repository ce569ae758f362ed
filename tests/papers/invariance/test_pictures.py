"""The bars of a measurement: every score stands on its own bar, also where a line runs just above it."""

from precis.papers.invariance.pictures import score_bars, score_chart


def rows():
    made = []
    for encoder, scores in (("a", (46.24, 21.0, 2.0)), ("b", (31.0, 60.0, 80.0))):
        made += [{"encoder": encoder, "change": change, "score": score, "untrained": 25.0, "shuffled": 12.5}
                 for change, score in zip(("occlusion", "viewpoint", "light_dir"), scores)]  # fmt: skip
    return made


def test_every_bar_has_its_number_on_it_or_above_it_and_never_on_a_line():
    axes = score_chart(rows()).figure.axes[0]
    said = {text.get_text(): text for text in axes.texts}
    assert set(said) == {"46.2", "21.0", "2.0", "31.0", "60.0", "80.0"}
    bars = {f"{bar.get_height():.1f}": bar for bar in axes.patches if bar.get_height()}
    for words, text in said.items():
        bar, (x, y) = bars[words], text.xy
        assert abs(x - (bar.get_x() + bar.get_width() / 2)) < 1e-9 and y == bar.get_height()
    assert said["21.0"].get_va() == "top" and said["21.0"].xyann[1] < 0  # 25 runs just above: inside the bar
    assert said["2.0"].xyann[1] > 0 and said["46.2"].xyann[1] > 0
    assert score_bars(rows())[:4] == b"\x89PNG"
