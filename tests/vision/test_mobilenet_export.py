import io
import logging

import pytest
import torch
from tests.vision.test_mobilenet import lived_in
from torch import nn

from precis.errors import InputError
from precis.vision import mobilenet_export
from precis.vision.mobilenet import MobileNetV2
from precis.vision.mobilenet_export import export, for_inference


@pytest.fixture(scope="module")
def net() -> nn.Module:
    made = lived_in(MobileNetV2(5, 1.0, padding="tf", stages=((1, 8, 1, 1), (6, 8, 2, 2)), stem=8, last=16))
    made.input.mean.fill_(0.4)
    made.input.std.fill_(0.3)
    return made


def test_a_program_gives_the_same_at_any_batch_and_size(net):
    program = export(net, (3, 48, 48), dynamic=("batch", "height", "width"))
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for shape in ((1, 48, 48), (3, 64, 80)):
        x = torch.rand(shape[0], 3, *shape[1:])
        with torch.no_grad():
            assert torch.allclose(loaded(x), net(x), atol=1e-5)
    names = [node.target for node in program.graph.nodes if node.op == "call_function"]
    assert not any("batch_norm" in str(name) for name in names)  # folded


def test_the_copy_for_inference_gives_the_same_and_leaves_the_net_alone(net):
    x, before = torch.rand(2, 3, 48, 40), {k: v.clone() for k, v in net.state_dict().items()}
    fast = for_inference(net)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fast.modules())
    assert all(m.inplace for m in fast.modules() if isinstance(m, nn.ReLU6))
    with torch.no_grad():
        assert torch.allclose(fast(x.contiguous(memory_format=torch.channels_last)), net(x), atol=1e-5)
    assert not any(m.inplace for m in net.modules() if isinstance(m, nn.ReLU6))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def test_onnx_runtime_gives_the_same(net):
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    level = logging.getLogger("torch.onnx").level
    made = export(net, (3, 48, 48), format="onnx")
    assert isinstance(made, bytes) and logging.getLogger("torch.onnx").level == level
    session = onnxruntime.InferenceSession(made, providers=["CPUExecutionProvider"])
    assert [i.name for i in session.get_inputs()] == ["pictures"] and session.get_outputs()[0].name == "logits"
    for n in (1, 5):
        x = torch.rand(n, 3, 48, 48)
        with torch.no_grad():
            wanted = net(x)
        assert torch.allclose(torch.from_numpy(session.run(None, {"pictures": x.numpy()})[0]), wanted, atol=1e-5)


def test_what_cannot_be_exported_is_told(net, monkeypatch):
    with pytest.raises(ValueError, match=r"a shape \[C,H,W\]"):
        export(net, (1, 3, 48, 48))

    def missing(extra):
        raise InputError(f"this needs {extra}")

    monkeypatch.setattr(mobilenet_export, "need", missing)
    with pytest.raises(InputError, match="this needs onnx"):
        export(net, (3, 48, 48), format="onnx")
