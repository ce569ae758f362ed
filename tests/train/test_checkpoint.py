import json
import math

import pytest
import torch
from torch import nn

from precis.errors import InputError, RunFailed
from precis.nn.stacked import StackedMLP
from precis.train import checkpoint
from precis.train.checkpoint import load_model, load_state, save_model, save_state

CONFIG = {"copies": 2, "sizes": [3, 4, 1], "activation": "tanh", "layer_norm": True}


def saved(folder, **more):
    net = StackedMLP(**CONFIG, **more)
    for p in net.parameters():
        p.data += torch.randn(p.shape, generator=torch.Generator().manual_seed(0))
    save_model(folder, net, CONFIG)
    return net


def edit(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


class Tied(nn.Module):
    """Stands in for a component of precis."""

    def __init__(self, n: int = 3) -> None:
        super().__init__()
        self.embed, self.out = nn.Embedding(n, 2), nn.Linear(2, n)
        self.out.weight = self.embed.weight
        self.register_buffer("count", torch.zeros((), dtype=torch.long))


@pytest.fixture
def tied(monkeypatch):
    monkeypatch.setattr(Tied, "__module__", "precis.train.checkpoint")
    monkeypatch.setattr(checkpoint, "Tied", Tied, raising=False)
    return Tied


def test_a_model_comes_back(tmp_path):
    net = saved(tmp_path / "model")
    state = torch.get_rng_state()
    back = load_model(tmp_path / "model")
    assert torch.equal(torch.get_rng_state(), state)
    assert type(back) is StackedMLP and not back.training
    for (name, a), b in zip(net.state_dict().items(), back.state_dict().values(), strict=True):
        assert torch.equal(a, b), name
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"model.safetensors", "config.json"}
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["component"] == "precis.nn.stacked:StackedMLP" and config["arguments"] == CONFIG
    assert config["versions"]["torch"] == torch.__version__


def test_a_type_is_kept_and_two_models_share_a_folder(tmp_path):
    net = StackedMLP(**CONFIG).double()
    save_model(tmp_path, net, CONFIG, name="one")
    save_model(tmp_path, StackedMLP(**CONFIG).bfloat16(), CONFIG, name="two")
    x = torch.randn(5, 3, dtype=torch.float64)
    assert torch.equal(load_model(tmp_path, name="one")(x), net(x))
    assert load_model(tmp_path, name="two").layers[0].weight.dtype == torch.bfloat16


def test_tied_weights_stay_tied(tmp_path, tied):
    net = tied(5)
    net.count += 7
    save_model(tmp_path, net, {"n": 5})
    back = load_model(tmp_path)
    assert back.out.weight is back.embed.weight
    assert torch.equal(back.out.weight, net.out.weight) and int(back.count) == 7


def test_a_function_may_build_it(tmp_path, tied, monkeypatch):
    def make(n: int) -> nn.Module:
        return tied(n)

    make.__module__ = "precis.train.checkpoint"
    monkeypatch.setattr(checkpoint, "make", make, raising=False)
    save_model(tmp_path, tied(4), {"n": 4}, component="precis.train.checkpoint:make")
    assert load_model(tmp_path).embed.num_embeddings == 4


@pytest.mark.parametrize(
    "component",
    ["torch.nn:Linear", "os:system", "precis.nn.stacked:os.system", "precis.nn.stacked:nn", "precis.nn.stacked:F",
     "precis.nn.stacked:Elementwise.forward", "precis.train.checkpoint:_write", "precis.train.checkpoint:load_state",
     "precis.nn.stacked:Tensor", "precisely:Net", "precis.nowhere:Net", "precis.nn.stacked:Nothing", "StackedMLP", 3],
)  # fmt: skip
def test_only_modules_of_precis_are_built(tmp_path, component):
    saved(tmp_path)
    edit(tmp_path, component=component)
    with pytest.raises(InputError, match="component"):
        load_model(tmp_path)
    with pytest.raises(InputError, match="component"):
        save_model(tmp_path / "other", StackedMLP(**CONFIG), CONFIG, component=str(component))
    assert not (tmp_path / "other").exists()


def test_a_registered_package_counts_as_ours(tmp_path, monkeypatch):
    class Entry:
        value = "torch.nn"

    monkeypatch.setattr(checkpoint, "entry_points", lambda group: [Entry] if group == "precis.papers" else [])
    save_model(tmp_path, nn.Linear(2, 3), {"in_features": 2, "out_features": 3},
               component="torch.nn.modules.linear:Linear")  # fmt: skip
    assert load_model(tmp_path).out_features == 3
    monkeypatch.undo()
    with pytest.raises(InputError, match="component"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"copies": 2, "sizes": [3, 5, 1], "layer_norm": True}, "layers.0.bias is"),
        ({"copies": 2, "sizes": [3, 4, 4, 1], "layer_norm": True}, "lacks layers.2.bias"),
        ({"copies": 2, "sizes": [3, 4, 1]}, "holds unknown norms.0"),
        ({"copies": 2, "sizes": [3]}, "cannot be built"),
        ({"copies": 2, "width": 3}, "cannot be built"),
    ],
)
def test_arguments_that_do_not_fit(tmp_path, arguments, message):
    saved(tmp_path)
    edit(tmp_path, arguments=arguments)
    with pytest.raises(InputError, match=message):
        load_model(tmp_path)


@pytest.mark.parametrize(
    "file, content, message",
    [
        ("config.json", None, "cannot be read"),
        ("config.json", "{", "does not describe a model"),
        ("config.json", "[]", "does not describe a model"),
        ("config.json", '{"component": "a:b"}', "does not describe a model"),
        ("model.safetensors", None, "no such file"),
        ("model.safetensors", "", "not a whole safetensors file"),
        ("model.safetensors", "half", "not a whole safetensors file"),
        ("model.safetensors", "pickle", "not a whole safetensors file"),
    ],
)
def test_damaged_files(tmp_path, file, content, message):
    saved(tmp_path)
    path = tmp_path / file
    if content is None:
        path.unlink()
    elif content == "half":
        path.write_bytes(path.read_bytes()[:-7])
    elif content == "pickle":
        torch.save(nn.Linear(2, 2).state_dict(), path)
    else:
        path.write_text(content)
    with pytest.raises(InputError, match=message) as error:
        load_model(tmp_path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_arguments_must_be_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        save_model(tmp_path / "model", StackedMLP(**CONFIG), CONFIG | {"x": torch.zeros(1)})
    assert not (tmp_path / "model").exists()


def test_a_state_comes_back(tmp_path):
    base = torch.arange(6).view(2, 3)
    state = {
        "step": 3, 7: [1.5, -math.inf, None, True, "text"], "pair": (base.T, base[0]), "same": base[0],
        "rng": torch.get_rng_state(), "none": {}, "half": torch.ones(2, dtype=torch.bfloat16),
        "empty": torch.zeros(0, 3), "dict": {"tensor": {"dict": torch.tensor(2.5)}},
    }  # fmt: skip
    save_state(tmp_path / "state.safetensors", state)
    back = load_state(tmp_path / "state.safetensors")
    assert list(back) == list(state) and back[7] == state[7] and type(back["pair"]) is tuple
    assert torch.equal(back["pair"][0], base.T) and torch.equal(back["same"], base[0])
    assert back["half"].dtype == torch.bfloat16 and back["empty"].shape == (0, 3)
    assert torch.equal(back["rng"], state["rng"]) and float(back["dict"]["tensor"]["dict"]) == 2.5


def test_a_state_is_no_place_for_objects(tmp_path):
    with pytest.raises(TypeError, match="Linear"):
        save_state(tmp_path / "state", {"net": nn.Linear(1, 1)})
    saved(tmp_path)
    with pytest.raises(InputError, match="not a training state"):
        load_state(tmp_path / "model.safetensors")


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch, error):
    path = tmp_path / "state.safetensors"
    save_state(path, {"a": 1})

    def full(tensors, target, metadata):
        target.write_bytes(b"half")
        raise error

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(RunFailed if isinstance(error, OSError) else KeyboardInterrupt):
        save_state(path, {"a": 2})
    assert load_state(path) == {"a": 1} and list(tmp_path.iterdir()) == [path]
