"""A trained net to run: faster in torch, or without precis as a `torch.export` program or ONNX.

Batch norms are folded into convolutions first, where evaluation gives the same; the standardisation of pictures is a
part of the program, whose input is float [B,C,H,W] in [0,1].
"""

import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any, Literal

import jaxtyping
import torch
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.export import export as torch_export

from precis.errors import need
from precis.nn.norm import fold_batchnorm

AXES = {"batch": 0, "height": 2, "width": 3}


def for_inference(model: nn.Module) -> nn.Module:
    """A copy that evaluates faster: batch norms folded, ReLU6 in place, weights in channels-last order.

    Give it pictures in channels-last order too.  It overwrites its activations: hooks and gradients are not for it.
    """
    folded = fold_batchnorm(model).requires_grad_(False)
    for layer in folded.modules():
        if isinstance(layer, nn.ReLU6):
            layer.inplace = True
    return folded.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def export(
    model: nn.Module, shape: Sequence[int], *, format: Literal["pt2", "onnx"] = "pt2",
    dynamic: tuple[Literal["batch", "height", "width"], ...] = ("batch",),
) -> ExportedProgram | bytes:  # fmt: skip
    """The model in evaluation mode for pictures of `shape` [C,H,W]: an exported program, or the bytes of an ONNX file.

    dynamic: axes whose size stays open.  InputError if ONNX is asked for and the extra `onnx` is not installed.
    """
    if format not in ("pt2", "onnx") or len(shape) != 3 or not set(dynamic) <= set(AXES):
        raise ValueError(f"pt2 or onnx, a shape [C,H,W], and axes of {', '.join(AXES)}: got {format!r}, {list(shape)}, "
                         f"{dynamic}")  # fmt: skip
    if format == "onnx":
        need("onnx")
    folded = fold_batchnorm(model).requires_grad_(False).cpu()
    example = torch.zeros(2, *shape)
    axes: dict[int, Any] = {AXES[name]: Dim.AUTO if name != "batch" else Dim("batch") for name in dynamic}
    with _shapes_unchecked(), torch.no_grad():
        program = torch_export(_Pictures(folded).eval(), (example,), dynamic_shapes={"pictures": axes or None})
        if format == "pt2":
            return program
        with _quietly():
            made = torch.onnx.export(program, (), dynamo=True, input_names=["pictures"], output_names=["logits"])
    assert made is not None
    return bytes(made.model_proto.SerializeToString())


class _Pictures(nn.Module):
    """Names the input."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.net(pictures)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the exporter's progress, and its words on packages that are not installed and not needed."""
    logger = logging.getLogger("torch.onnx")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


@contextmanager
def _shapes_unchecked() -> Iterator[None]:
    """Sizes are symbols here; annotations cannot be checked against them (where they are checked: in tests)."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    try:
        yield
    finally:
        jaxtyping.config.update("jaxtyping_disable", before)
