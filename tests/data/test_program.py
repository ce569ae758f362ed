import pickle
import sys

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from precis.data import kinds_of
from precis.data.program import load_callable, load_program, read_weights, tensor_of
from precis.errors import InputError

SOURCE = '''
import torch
from torch import nn
from dataclasses import dataclass

@dataclass
class Size:
    width: int = 4

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, Size().width, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(5))

def whole():
    net = build()
    net(torch.zeros(2, 3, 8, 8))
    return net

def with_preprocess():
    return whole(), lambda x: x / 2

def number():
    return 3

def broken():
    raise RuntimeError("no such size\\nsecond line")

constant = 7
'''


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "my_model.py"
    path.write_text(SOURCE)
    return path


@pytest.fixture
def net(source):
    return load_program(f"{source}:whole").module


def test_a_function_in_a_file(source):
    program = load_program(f"{source}:whole")
    assert program.kind == "eager" and program.batch is None and not program.module.training
    assert "my_model.py:whole ran" in program.note
    x = torch.rand(3, 3, 8, 8)
    assert torch.equal(program(x), program.module(x))
    assert load_program(f"{source}:with_preprocess").preprocess(torch.tensor(4.0)) == 2


def test_a_function_in_a_package_of_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "my_package_of_models").mkdir()
    (tmp_path / "my_package_of_models" / "__init__.py").write_text("")
    (tmp_path / "my_package_of_models" / "nets.py").write_text(SOURCE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    assert isinstance(load_program("my_package_of_models.nets:whole").module, nn.Sequential)
    assert load_callable("my_package_of_models.nets:Size")().width == 4
    assert load_callable("torch:Tensor.abs") is torch.Tensor.abs


def test_a_name_of_the_callers_comes_first():
    known = {"small:width=3": nn.Linear(3, 3)}
    program = load_program("small:width=3", builtin=known.get)
    assert program.module is known["small:width=3"] and program.note == ""


def test_scripted_and_traced_archives(tmp_path, net):
    x = torch.rand(2, 3, 8, 8)
    for name, made in (("a.bin", torch.jit.script(net)), ("b", torch.jit.trace(net, x))):
        torch.jit.save(made, str(tmp_path / name))
        program = load_program(str(tmp_path / name))
        assert program.kind == "script" and "program" in kinds_of(tmp_path / name)
        for _ in range(3):
            torch.testing.assert_close(program(x), net(x))
        y = x.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(program(y).sum(), y)
        assert gradient.abs().sum() > 0


@pytest.mark.parametrize("dynamic", [False, True])
def test_exported_programs_of_fixed_and_free_batch(tmp_path, net, dynamic):
    x = torch.rand(7, 3, 8, 8)
    shapes = ({0: torch.export.Dim("b")},) if dynamic else None
    torch.export.save(torch.export.export(net.eval(), (x[:4],), dynamic_shapes=shapes), str(tmp_path / "m.pt2"))
    program = load_program(str(tmp_path / "m.pt2"))
    assert program.kind == "export" and program.batch == (None if dynamic else 4)
    torch.testing.assert_close(program(x), net(x))
    y = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(program(y).square().sum(), y)
    other = x.clone().requires_grad_()
    torch.testing.assert_close(gradient, torch.autograd.grad(net(other).square().sum(), other)[0])
    with pytest.raises(InputError, match="--device cpu"):
        program.to("cuda")


@pytest.mark.parametrize("wrap", [
    lambda s: s, lambda s: {"state_dict": s, "epoch": 3}, lambda s: {f"module.{k}": v for k, v in s.items()},
    lambda s: {"model": {f"_orig_mod.model.{k}": v for k, v in s.items()}},
])  # fmt: skip
def test_weights_with_and_without_wrappers(tmp_path, source, wrap):
    net = load_program(f"{source}:whole").module
    state = {k: v + 1 for k, v in net.state_dict().items()}
    torch.save(wrap(state), tmp_path / "w.pth")
    loaded = load_program(f"{source}:whole", tmp_path / "w.pth").module.state_dict()
    assert all(torch.equal(loaded[k], state[k]) for k in state)


def test_safetensors_and_weights_that_do_not_fit(tmp_path, source, net):
    state = net.state_dict()
    save_file({k: v + 2 for k, v in state.items()}, tmp_path / "w.safetensors")
    loaded = load_program(f"{source}:whole", tmp_path / "w.safetensors").module
    assert torch.equal(loaded[0].bias, net[0].bias + 2)
    cases = {
        "lacks 0.bias": {k: v for k, v in state.items() if k != "0.bias"},
        "holds unknown extra": {**state, "extra": torch.zeros(1)},
        r"0.bias is \(9,\), the model's \(4,\)": {**state, "0.bias": torch.zeros(9)},
    }
    for words, wrong in cases.items():
        save_file(wrong, tmp_path / "wrong.safetensors")
        with pytest.raises(InputError, match=words):
            load_program(f"{source}:whole", tmp_path / "wrong.safetensors")
    save_file({f"{k}.other": v for k, v in state.items()}, tmp_path / "wrong.safetensors")
    with pytest.raises(InputError) as told:
        load_program(f"{source}:whole", tmp_path / "wrong.safetensors")
    assert str(told.value).endswith(f"lacks {', '.join(sorted(state)[:5])} and {len(state) - 5} more")
    save_file({k: torch.zeros(7, 7) for k in state}, tmp_path / "wrong.safetensors")
    with pytest.raises(InputError, match=f"0.bias is .*; .*; .*; .*; .* and {len(state) - 5} more$"):
        load_program(f"{source}:whole", tmp_path / "wrong.safetensors")


class Trap:
    """Says that it was unpickled by making a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_pickle_is_never_run(tmp_path, source):
    trap = tmp_path / "sprung"
    torch.save({"state_dict": Trap(trap)}, tmp_path / "zip.pth")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Trap(trap)))
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    (tmp_path / "damaged.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0{not json at all")
    (tmp_path / "noise.pth").write_bytes(bytes(range(256)))
    for name in ("zip.pth", "raw.pth", "module.pth", "damaged.safetensors", "noise.pth"):
        with pytest.raises(InputError, match="safetensors|weights.pt"):
            read_weights(tmp_path / name)
        with pytest.raises(InputError, match="build"):
            load_program(str(tmp_path / name))
    torch.save([torch.zeros(3)], tmp_path / "list.pth")
    with pytest.raises(InputError, match="no state dict"):
        load_program(f"{source}:whole", tmp_path / "list.pth")
    assert not trap.exists()


def test_a_whole_module_is_refused_with_the_lines_to_write_instead(tmp_path, source, net):
    torch.save(net, tmp_path / "zip.pt")
    torch.save({"epoch": 3, "model": net}, tmp_path / "inside.pt")
    torch.save(net, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    (tmp_path / "raw.pt").write_bytes(pickle.dumps(net))
    for name in ("zip", "inside", "old", "raw"):
        for ask in (lambda path: load_program(f"{source}:whole", path), lambda path: load_program(str(path))):
            with pytest.raises(InputError, match="pickles a whole module") as told:
                ask(tmp_path / f"{name}.pt")
            words = str(told.value)
            assert f'torch.save(torch.load("{name}.pt", weights_only=False).state_dict(), "weights.pt")' in words
            assert "def build(): from torch.nn.modules.container import Sequential; return Sequential(...)" in words
            assert "\n" not in words
    for old in (True, False):  # a state dict is none, however it is written
        torch.save(net.state_dict(), tmp_path / "state.pt", _use_new_zipfile_serialization=not old)
        assert set(read_weights(tmp_path / "state.pt")) == set(net.state_dict())
        with pytest.raises(InputError, match="Weights alone"):
            load_program(str(tmp_path / "state.pt"))


@pytest.mark.parametrize(("spec", "words"), [
    ("nothing", "names no function"), ("{source}:", "names no function"), ("{source}", "my_model.py:build"),
    ("{source}:biuld", "has no 'biuld'; it has Size, broken, build"), ("{source}:constant", "an int, not a function"),
    ("{source}:build", "returns lazy layers without shapes yet: call the net once"),
    ("{source}:number", "must return a torch.nn.Module"), ("{source}:broken", "failed: RuntimeError: no such size$"),
    ("absent.py:build", "no such file"), ("no_such_package_at_all.x:build", "no module 'no_such_package_at_all'"),
    ("{folder}/syntax.py:build", "syntax.py:2: cannot be imported: SyntaxError"),
    ("{folder}/needs.py:build", "cannot be imported: ModuleNotFoundError"),
])  # fmt: skip
def test_what_cannot_be_loaded(tmp_path, source, spec, words):
    (tmp_path / "syntax.py").write_text("import torch\ndef build(:\n")
    (tmp_path / "needs.py").write_text("import no_such_package_at_all\n")
    with pytest.raises(InputError, match=words):
        load_program(spec.format(source=source, folder=tmp_path))


def test_weights_belong_to_a_function(tmp_path, net):
    torch.jit.save(torch.jit.trace(net, torch.rand(1, 3, 8, 8)), str(tmp_path / "a.pt"))
    with pytest.raises(InputError, match="its own weights"):
        load_program(str(tmp_path / "a.pt"), tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="no such file"):
        read_weights(tmp_path / "w.safetensors")


def test_what_is_no_file_of_weights_is_told_with_the_one_to_give(tmp_path, net, recwarn):
    """A folder, an exported program, a pickle: one line each, and no warning of torch's beside it."""
    folder = tmp_path / "run"
    folder.mkdir()
    torch.export.save(torch.export.export(net, (torch.rand(1, 3, 8, 8),)), folder / "model.pt2")
    (folder / "model.onnx").write_bytes(b"\x08\x07")
    recwarn.clear()
    with pytest.raises(InputError, match="is a folder: the file of weights is wanted$"):
        read_weights(folder)
    for name in ("model.pt2", "model.onnx"):
        with pytest.raises(InputError, match=r"is an exported program, .* give those it was made of \(model.safe"):
            read_weights(folder / name)
    save_file({"w": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(InputError, match="is a folder; its weights are .*run/model.safetensors$"):
        read_weights(folder)
    for name in ("model.pt2", "model.onnx"):
        with pytest.raises(InputError, match=r"is an exported program, .* give .*run/model.safetensors, which lies"):
            read_weights(folder / name)
    (tmp_path / "p.pkl").write_bytes(pickle.dumps({"w": [1, 2]}, protocol=4))
    with pytest.raises(InputError, match="holds no state dict|neither safetensors nor"):
        read_weights(tmp_path / "p.pkl")
    assert not recwarn.list


def test_the_tensor_in_an_output():
    x = torch.rand(2, 3)
    holder = type("Output", (), {"logits": x})()
    for output in (x, holder, {"logits": x}, (x, 5), [x]):
        assert tensor_of(output) is x
    for output in (None, {}, (), "text", {"out": x}):
        with pytest.raises(InputError, match="the model returned"):
            tensor_of(output)
