"""NeRF's benchmark: both sides of the race are looked at alike, and a side that never arrives has no ratio."""

from contextlib import suppress
from types import SimpleNamespace

import pytest
from benchmarks import nerf
from benchmarks.nerf import Over, Race, raced_row


@pytest.mark.parametrize("pace", [0.01, 0.3])
def test_both_are_looked_at_after_as_many_seconds_of_training(monkeypatch, pace):
    """However long a step takes; looks, of 100 s each, are not counted."""
    clock, looks = [0.0], []

    def score(render):
        looks.append(race.seconds)
        clock[0] += 100
        return 10.0

    monkeypatch.setattr(nerf, "score", score)
    monkeypatch.setattr(nerf, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    race = Race(22.0, 10.0, every=1.0)
    with suppress(Over):
        while True:
            clock[0] += pace
            race(lambda rays: None)
    assert len(looks) in (9, 10) and race.seconds == pytest.approx(10, abs=pace) and not race.arrived
    assert all(at == pytest.approx(k + 1, abs=pace + 1e-6) for k, at in enumerate(looks))


def test_a_side_that_never_arrives_has_no_ratio():
    made = [Race(22.0, 90.0) for _ in range(2)]
    plain, ours = made
    for race, seconds, best in ((plain, 30.0, 22.5), (ours, 12.0, 22.1)):
        race.seconds, race.best = seconds, best
    assert raced_row(22.0, plain, ours)["ratio"] == "2.5"
    plain.best = 21.0
    assert raced_row(22.0, plain, ours)["ratio"] == "more than 2.5"
    ours.best = 21.9
    found = raced_row(22.0, plain, ours)
    assert found["ratio"] == "none: ours did not reach 22 dB" and found["ours dB"] == 21.9


def test_both_sides_are_scored_by_what_they_were_trained_with():
    """A few steps and a look of each, on a small scene; the plain network's two passes are those of its training."""
    for make in (nerf.Plain, nerf.Ours):
        racer = make(nerf.SMALL)
        race = Race(-1e9, 1e9, every=1e-9)
        with pytest.raises(Over):
            racer.run(3, race)
        assert 0 < race.best < 60 and race.looks > 0
