"""Exported programs as networks again, and pruned by the jobs."""

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from tests.papers.runs import halves, run_paper, saved
from torch import nn

from precis.data.program import load_program
from precis.errors import InputError
from precis.nn.backbones import backbone
from precis.papers.exported import as_layers
from precis.sparsity.masks import prunable

FREE = ({0: torch.export.Dim("batch")},)


class Odd(nn.Module):
    """A layer used twice, a bare matrix, a layer norm, dropout, a convolution padded by a word."""

    def __init__(self):
        super().__init__()
        self.first, self.twice, self.head = nn.Linear(64, 16), nn.Linear(16, 16, bias=False), nn.Linear(16, 2)
        self.free, self.norm, self.drop = nn.Parameter(torch.rand(16, 16)), nn.LayerNorm(16), nn.Dropout(0.3)
        self.conv = nn.Conv1d(1, 1, 3, padding="same")

    def forward(self, x):
        x = self.twice(self.twice(self.first(self.conv(x.flatten(1)[:, None])[:, 0]).relu()))
        return self.head(self.norm(self.drop(F.linear(x, self.free))))


def exported(path, net, batch=4, shapes=FREE):
    torch.export.save(torch.export.export(net.eval(), (torch.rand(batch, 1, 8, 8),), dynamic_shapes=shapes), str(path))
    return path


@pytest.mark.parametrize("build", [Odd, *(lambda s=s: backbone(s, (1, 8, 8), 2) for s in ("conv:8x2", "mlp:16"))])
def test_the_layers_come_back_with_their_names_and_compute_the_same(tmp_path, build):
    torch.manual_seed(0)
    net = build()
    if any(isinstance(m, nn.BatchNorm2d) for m in net.modules()):
        net.train()(torch.rand(50, 1, 8, 8))
    path = str(exported(tmp_path / "m.pt2", net))
    again, x = as_layers(load_program(path), path), torch.rand(7, 1, 8, 8)
    state = net.state_dict()
    assert again.state_dict().keys() == state.keys()
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())
    assert {n: p.shape for n, p in prunable(again).items()} == {n: p.shape for n, p in prunable(net).items()}
    assert torch.equal(again.eval()(x), net(x))
    for one in (net, again):  # in training too: batch statistics, and dropout at the same places
        torch.manual_seed(1)
        one.train()(x)
    for name, value in again.state_dict().items():
        torch.testing.assert_close(value, net.state_dict()[name])
    torch.manual_seed(2)
    out = net(x)
    torch.manual_seed(2)
    torch.testing.assert_close(again(x), out)


@pytest.fixture
def pictures(tmp_path):
    return saved(tmp_path / "halves.npz", *halves(200))


@pytest.mark.parametrize(("paper", "options"), [
    ("rewinding", {"epochs": 2, "lr": 0.05, "density": 0.3, "one_shot": True}),
    ("variational_dropout", {"epochs": 3, "threshold_sweep": False}),
])  # fmt: skip
def test_an_exported_network_is_pruned(pictures, tmp_path, paper, options):
    net = backbone("conv:8x2", (1, 8, 8), 2, generator=torch.Generator().manual_seed(0))
    path = exported(tmp_path / "m.pt2", net)
    done = run_paper(paper, tmp_path / "out", pictures, model=str(path), **options)
    state, masks = (load_file(done.folder / f"{name}.safetensors") for name in ("model", "masks"))
    assert state.keys() == net.state_dict().keys() and masks.keys() == prunable(net).keys()
    assert all((state[name][~mask] == 0).all() for name, mask in masks.items())
    notes = " ".join(done.result["notes"])
    assert "m.pt2 were made anew" in notes and "came trained" in notes
    assert done.metrics["macs_dense"] > 0


def test_what_of_saved_programs_cannot_be_pruned(pictures, tmp_path):
    net = backbone("mlp:16", (1, 8, 8), 2).eval()
    torch.jit.save(torch.jit.trace(net, torch.rand(2, 1, 8, 8)), str(tmp_path / "script.pt"))
    exported(tmp_path / "fixed.pt2", net, shapes=None)
    exported(tmp_path / "bare.pt2", nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.LayerNorm(4)))
    (tmp_path / "noise.pt2").write_bytes(b"noise")
    for name, words in (
        ("script.pt", "TorchScript archive cannot be pruned.*torch.export.*file.py:build"),
        ("fixed.pt2", "exported for 4 inputs at a time.*torch.export.Dim"),
        ("bare.pt2", "has 4 outputs, and the data 2 classes"), ("noise.pt2", "no exported program"),
    ):  # fmt: skip
        for paper, options in (("variational_dropout", {}), ("rewinding", {"epochs": 2, "lr": 0.1})):
            with pytest.raises(InputError, match=words) as told:
                run_paper(paper, tmp_path / "out", pictures, model=str(tmp_path / name), **options)
            assert "\n" not in str(told.value)
    with pytest.raises(InputError, match="--epochs and --lr of the training that made the weights"):
        run_paper("rewinding", tmp_path / "out", pictures, model=str(exported(tmp_path / "m.pt2", net)))
    with pytest.raises(InputError, match="holds its own weights"):
        run_paper("variational_dropout", tmp_path / "out", pictures, model=str(tmp_path / "m.pt2"),
                  weights=tmp_path / "fixed.pt2")  # fmt: skip
    assert not (tmp_path / "out").exists()
