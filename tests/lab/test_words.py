"""Entries in words."""

import pytest
from tests.lab.evidence import entry, not_run

from precis.lab import hypotheses as h
from precis.lab import words

P = "\u00a0%"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (9.1, "9.10"),
        (-0.00213, "−0.00213"),
        (12345.6, "12,346"),
        (3.2e-7, "3.20e−07"),
        (0.0, "0"),
        (-0.0, "0"),
        (5, "5"),
        (None, "–"),
        (float("nan"), "not finite"),
        (30.0, "30"),
        (1e9, "1.00e09"),
        ("lr", "lr"),
        (True, "True"),
    ],
)
def test_numbers(value, text):
    assert words.number(value) == text


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        ((8.31, 9.92), "8.3 to 9.9"),
        ((-10.4, -9.4), "−10.4 to −9.4"),
        ((0.01234, 0.01251), "0.01234 to 0.01251"),
        ((100.0, 900.0), "100 to 900"),
        ((2.0, 2.0), "2 to 2"),
        (None, ""),
    ],
)
def test_intervals_end_at_one_place(interval, text):
    assert words.interval_words(interval) == text


def row(hypothesis, effect, interval=(8.31, 9.92), **changes):
    base = {
        "text": "as the author says",
        "effect": effect,
        "interval": interval,
        "n": 5,
        "unit": "seed",
        "sabotaged": None,
        "holds": True,
        "counts": True,
        "note": "",
    }
    return {**base, "hypothesis": words.fields_of(hypothesis), **changes}


@pytest.mark.parametrize(
    ("hypothesis", "effect", "start"),
    [
        (h.Greater("psnr", "siren", "relu"), 9.1, "siren's psnr is 9.1 above relu's"),
        (h.Greater("psnr", "siren", "relu"), -9.1, "siren's psnr is 9.1 below relu's"),
        (h.Less("error", "siren", "relu"), 9.1, "siren's error is 9.1 below relu's"),
        (h.NotWorse("error", "siren", "relu", 1.0, maximise=False), 9.1, "siren's error is 9.1 below relu's"),
        (h.NotWorse("psnr", "siren", "relu", 1.0), -9.1, "siren's psnr is 9.1 below relu's"),
        (h.Equivalent("psnr", "siren", "relu", within=20.0), 9.1, "siren's psnr is 9.1 above relu's"),
        (h.AtLeast("psnr", "siren", 3.0), 9.1, "as the author says: 9.1"),
    ],
)
def test_sentences_name_arms_and_direction(hypothesis, effect, start):
    counted = (8.31, 9.92) if effect > 0 else (-9.92, -8.31)
    assert words.sentence(row(hypothesis, effect, counted)) == f"{start}, 95{P} interval 8.3 to 9.9, 5 seeds"


def test_what_was_claimed_stands_beside_a_row_that_does_not_hold():
    missed = row(h.Greater("psnr", "siren", "relu", by=3), -0.5, (-1.2, 0.25), holds=False)
    assert words.sentence(missed) == (
        f"siren's psnr is 0.5 below relu's, 95{P} interval −0.2 to 1.2, 5 seeds; 3 above was claimed"
    )
    worse = row(h.NotWorse("error", "siren", "relu", 1.0, maximise=False), -2.5, (-3.1, -1.9), holds=None)
    assert words.sentence(worse) == (
        f"siren's error is 2.5 above relu's, 95{P} interval 1.9 to 3.1, 5 seeds; at most 1 above was claimed"
    )


def test_a_difference_of_nothing_is_neither_above_nor_below():
    said = words.sentence(row(h.Greater("psnr", "siren", "relu"), -0.004, (-1.1, 1.2)))
    assert said == f"siren's psnr is level with relu's, 95{P} interval −1.1 to 1.2, 5 seeds"
    same = words.sentence(row(h.Less("error", "siren", "relu"), 0.0, None))
    assert same == "siren's error is equal to relu's, 5 seeds"


def test_sentences_of_other_rows():
    beats = h.Greater("psnr", "siren", "relu")
    assert f"98.33{P} interval" in words.sentence(row(beats, 9.1), 1 / 60)
    assert words.sentence(row(beats, 9.1, sabotaged={"broken": "siren"})).startswith(
        "broken's psnr is 9.1 above relu's"
    )
    assert words.sentence(row(beats, None, None)) == "as the author says: no number"
    exact = row(h.Exact("bytes", "siren", 7.0), 7.0, None, n=1)
    assert words.sentence(exact) == "as the author says: 7, exact, 1 seed"
    assert words.sentence({"text": "t", "effect": -2.5, "interval": [-3.0, -2.0], "n": 4, "unit": "task"}) == (
        f"t: −2.50, 95{P} interval −3.00 to −2.00, 4 tasks".replace("2.50", "2.5").replace("3.00 to −2.00", "3 to −2")
    )


@pytest.mark.parametrize(
    ("hypothesis", "side"),
    [
        (h.Greater("m", "a", "b", by=3.0), (3.0, None)),
        (h.Less("m", "a", "b"), (0.0, None)),
        (h.NotWorse("m", "a", "b", 0.5), (-0.5, None)),
        (h.Equivalent("m", "a", "b", within=0.2), (-0.2, 0.2)),
        (h.Equivalent("m", "a", target=1.0, within=0.25), (0.75, 1.25)),
        (h.AtLeast("m", "a", 2.0), (2.0, None)),
        (h.AtMost("m", "a", 2.0), (None, 2.0)),
        (h.Between("m", "a", 1.0, 2.0), (1.0, 2.0)),
        (h.Trend("m", ("a", "b")), (0.0, None)),
        (h.Trend("m", ("a", "b"), falling=True, by=1.0), (None, -1.0)),
        (h.Trend("m", ("a", "b"), between=(1.0, 2.0)), (1.0, 2.0)),
        (h.Proportion("m", "a", at_most=0.1), (None, 0.1)),
        (h.Proportion("m", "a", "b"), (0.0, None)),
        (h.Spread("m", "a", "b"), (1.0, None)),
        (h.Differs("m", "a", "b", 0.1), None),
    ],
)
def test_the_claimed_side_is_where_the_hypothesis_holds(hypothesis, side):
    assert words.claimed_side(words.fields_of(hypothesis)) == side


def test_verdicts_headlines_and_scales():
    assert words.headline(entry()) == f"siren's psnr is 9.1 above relu's, 95{P} interval 8.3 to 9.9, 5 seeds"
    assert (
        words.headline(entry(verdict="inconclusive", reason="the baseline was not fitted"))
        == "the baseline was not fitted"
    )
    assert words.verdict_of(not_run()) == "not run"
    assert words.verdict_of(entry(verdict=None, profile="smoke")) == "no verdict"
    assert words.scale_words(entry()) == "quick (48×48, width 64, 300 steps, 5 seeds)"
    assert words.scale_words(not_run()) == "quick"
    own = words.scale_words(entry() | {"data": "photos/pets"})
    assert own == "quick (on pets, by the settings for: 48×48, width 64, 300 steps, 5 seeds)"


def test_a_sabotaged_row_speaks_for_the_claim_by_not_holding():
    beats = h.Greater("psnr", "siren", "relu")
    assert words.is_well(row(beats, -1.0, holds=False, sabotaged={"x": "siren"})) is True
    assert words.is_well(row(beats, 1.0, holds=True, sabotaged={"x": "siren"})) is False
    assert words.is_well(row(beats, 0.1, holds=None, sabotaged={"x": "siren"})) is None
    said = [words.held(row(beats, 1.0, holds=h, sabotaged={"x": "siren"})) for h in (True, False, None)]
    assert said == ["passed, and must not", "lost, as it must", "undecided: too little to tell"]


def test_fields_are_json_values():
    import json

    fields = words.fields_of(h.Statistic(lambda table: 0.0, at_least=1.0))
    assert json.loads(json.dumps(fields)) == fields and "fn" not in fields


def test_one_is_singular():
    assert [words.counted(n, "picture") for n in (0, 1, 2)] == ["0 pictures", "1 picture", "2 pictures"]
