import json
import random
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

from precis.lab.claim import Claim, Recorder
from precis.lab.recorder import POINTS, TrialRecord, plain
from precis.lab.shared import SharedPlace, code_digest
from precis.lab.trial import PURPOSES, seed_globals, streams
from precis.lab.worker import metrics_of


def draws(seed: int) -> dict[str, list[float]]:
    return {p: torch.rand(4, generator=g).tolist() for p, g in streams(seed).items()}


def test_streams_are_the_same_for_a_seed_and_differ_between_purposes_and_seeds():
    assert draws(3) == draws(3)
    assert tuple(draws(0)) == PURPOSES
    firsts = {values[0] for seed in range(200) for values in draws(seed).values()}
    assert len(firsts) == 200 * len(PURPOSES)


def test_a_draw_in_one_stream_shifts_no_other():
    mine = streams(1)
    torch.rand(100, generator=mine["init"])
    assert torch.rand(4, generator=mine["noise"]).tolist() == draws(1)["noise"]


def test_globals_are_seeded():
    seed_globals(5)
    first = random.random(), numpy.random.rand(), torch.rand(1).item()     # beartype draws from `random` in a check
    seed_globals(5)
    assert first == (random.random(), numpy.random.rand(), torch.rand(1).item())


def test_what_a_record_keeps(tmp_path: Path):
    told: list[tuple[int, int, dict[str, float]]] = []
    record = TrialRecord(tmp_path / "t", 0, tuned={"lr": 0.1}, emit=lambda *a: told.append(a))
    assert isinstance(record, Recorder) and record.tuned == {"lr": 0.1} and record.device == "cpu"
    record.log(1, 2, loss=torch.tensor(0.5), lr=1)
    record.log(2, 2, loss=float("inf"))
    record.note("nine survived")
    record.curve("path", torch.arange(3), numpy.array([1.0, float("nan"), 3.0]))
    record.table("rows", [{"name": "a", "value": numpy.float32(0.5)}])
    record.examples("test set", ["x", "y"], torch.tensor([True, False]))
    kept = json.loads(json.dumps(record.summary(), allow_nan=False))
    assert kept["scalars"]["loss"] == {"x": [1.0, 2.0], "y": [0.5, None]}
    assert kept["curves"]["path"] == {"x": [0.0, 1.0, 2.0], "y": [1.0, None, 3.0]}
    assert kept["tables"] == {"rows": [{"name": "a", "value": 0.5}]}
    assert kept["notes"] == ["nine survived"]
    found = json.loads((tmp_path / "t" / kept["examples"]["test set"]["file"]).read_text())
    assert found == {"ids": ["x", "y"], "outcomes": [1.0, 0.0]}
    assert told[0] == (1, 2, {"loss": 0.5, "lr": 1.0}) and told[1][:2] == (2, 2)


def test_an_unused_record_leaves_nothing(tmp_path: Path):
    record = TrialRecord(tmp_path / "t")
    assert record.summary() == {} and not (tmp_path / "t").exists()


def test_lengths_that_differ_are_errors(tmp_path: Path):
    record = TrialRecord(tmp_path / "t")
    with pytest.raises(ValueError, match="3 x but 2 y"):
        record.curve("c", [1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="1 ids but 2 outcomes"):
        record.examples("e", ["a"], [1, 2])


@pytest.mark.parametrize("steps", [1, 7, POINTS, POINTS + 1, 5 * POINTS + 3])
def test_a_long_series_is_thinned_but_keeps_first_and_last(tmp_path: Path, steps: int):
    record = TrialRecord(tmp_path / "t")
    for step in range(steps):
        record.log(step, steps, loss=2.0 * step)
    x, y = record.summary()["scalars"]["loss"].values()
    assert x[0] == 0 and x[-1] == steps - 1 and len(x) <= POINTS + 2
    assert y == [2 * v for v in x] and x == sorted(set(x))
    assert steps > POINTS or len(x) == steps


def test_pictures(tmp_path: Path):
    record = TrialRecord(tmp_path / "t")
    grey = torch.tensor([[0.0, 1.0], [0.5, 2.0]], requires_grad=True)
    record.image("grey", grey)
    record.image("colour/../x", numpy.stack([numpy.full((2, 3), v) for v in (1.0, 0.0, numpy.nan)]), step=4)
    record.image("bytes", torch.full((1, 2, 2), 7, dtype=torch.uint8))
    record.image("half", torch.ones(2, 2, dtype=torch.bfloat16))
    files = {i["name"]: tmp_path / "t" / i["file"] for i in record.summary()["images"]}
    assert numpy.asarray(Image.open(files["grey"])).tolist() == [[0, 255], [128, 255]]
    assert numpy.asarray(Image.open(files["colour/../x"]))[0, 0].tolist() == [255, 0, 0]
    assert Image.open(files["colour/../x"]).size == (3, 2)
    assert numpy.asarray(Image.open(files["bytes"])).tolist() == [[7, 7], [7, 7]]
    assert numpy.asarray(Image.open(files["half"])).min() == 255
    assert all(f.parent == tmp_path / "t" for f in files.values())
    with pytest.raises(ValueError, match=r"got \[2, 4, 4\]"):
        record.image("two channels", torch.zeros(2, 4, 4))


def test_shared_is_made_once_and_leaves_the_streams_alone(tmp_path: Path):
    made = []

    def make(folder: Path) -> None:
        made.append(folder)
        (folder / "n").write_text(str(torch.rand(1, generator=first.streams["init"]).item()))
        torch.rand(1), random.random(), numpy.random.rand()

    place = SharedPlace(tmp_path / "shared", "source", "data", "cpu")
    first, second = (TrialRecord(tmp_path / name, 1, shared=place) for name in "ab")
    seed_globals(0)
    expected = torch.rand(1).item(), numpy.random.rand()
    seed_globals(0)
    torch.rand(3, generator=first.streams["init"])
    folder = first.shared("net", make, {"width": 3})
    assert second.shared("net", make, {"width": 3}) == folder and len(made) == 1
    assert (torch.rand(1).item(), numpy.random.rand()) == expected
    assert torch.rand(2, generator=first.streams["noise"]).tolist() == draws(1)["noise"][:2]
    assert torch.rand(1, generator=first.streams["init"]).item() == draws(1)["init"][3]
    assert sorted(p.name for p in place.folder.iterdir() if p.is_dir()) == [folder.name]
    assert first.summary()["shared"] == {"net": folder.name}


def test_shared_does_not_depend_on_what_was_drawn_before(tmp_path: Path):
    def value(name: str, before: int) -> str:
        record = TrialRecord(tmp_path / name, 1)
        torch.rand(before, generator=record.streams["init"])

        def make(folder: Path) -> None:
            number = torch.rand(1, generator=record.streams["init"]), torch.rand(1), numpy.random.rand()
            (folder / "n").write_text(repr(number))

        return (record.shared("net", make, {}) / "n").read_text()

    assert value("a", 0) == value("b", 9)


def test_shared_tells_apart_name_seed_settings_source_data_device_and_code(tmp_path: Path):
    def make(folder: Path) -> None:
        (folder / "n").write_text("1")

    def other(folder: Path) -> None:
        (folder / "n").write_text("2")

    def folder(seed=0, source="s", data="d", device="cpu", name="net", how=make, settings=3) -> Path:
        place = SharedPlace(tmp_path / "shared", source, data, device)
        return TrialRecord(tmp_path / "t", seed, shared=place).shared(name, how, settings)

    ways = [{}, {"seed": 1}, {"source": "t"}, {"data": "e"}, {"device": "cuda"}, {"name": "m"}, {"how": other},
            {"settings": 4}]
    assert len({folder(**way) for way in ways}) == len(ways)
    assert (folder(how=other) / "n").read_text() == "2"


def test_a_maker_that_raises_leaves_nothing(tmp_path: Path):
    def make(folder: Path) -> None:
        (folder / "half").write_text("")
        raise RuntimeError("diverged")

    record = TrialRecord(tmp_path / "t")
    with pytest.raises(RuntimeError, match="diverged"):
        record.shared("net", make, {})
    assert not [p for p in (tmp_path / "t.shared").iterdir() if p.is_dir()]
    assert "shared" not in record.summary()


def test_the_code_of_a_shared_training_includes_the_methods_it_calls():
    class One(Claim):
        def train(self, folder: Path) -> int:
            return self.depth()

        def depth(self) -> int:
            return 1

        def other(self) -> int:
            return 1

    class SameTraining(One):
        def other(self) -> int:
            return 2

    class OtherTraining(One):
        def depth(self) -> int:
            return 2

    def digest(claim: type[One]) -> str:
        return code_digest(lambda folder: claim().train(folder), claim)

    assert digest(One) == digest(SameTraining) != digest(OtherTraining)


def test_metrics():
    metrics, notes = metrics_of({"a": torch.tensor(1.5), "b": {3: numpy.float32(2), "x": float("inf")}, "c": True})
    assert metrics == {"a": 1.5, "b": {"3": 2.0, "x": float("inf")}, "c": 1.0}
    assert notes == ["b of x is not finite (inf)"]
    for bad in ({}, None, 3.0):
        with pytest.raises(TypeError, match="returns its metrics as a dict"):
            metrics_of(bad)


def test_plain():
    values = {"p": Path("a/b"), 3: (1, 2.5, None), "s": {"b", "a"}, "n": numpy.int64(4), "t": torch.eye(2)}
    assert plain(values) == {"p": "a/b", "3": [1, 2.5, None], "s": ["a", "b"], "n": 4, "t": [[1, 0], [0, 1]]}
    with pytest.raises(TypeError, match="object is not a JSON value"):
        plain(object())
