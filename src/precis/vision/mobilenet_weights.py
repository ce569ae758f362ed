"""Published weights of MobileNetV2 under our names: those of torchvision, of transformers (Hugging Face), and of slim.

    found = published(state)
    net = MobileNetV2(**found.arguments)
    net.load_state_dict(found.state)

A layout is told by its names.  What differs between them comes along in `arguments`: slim's weights, which are also
those of transformers, were trained with TensorFlow's padding and a batch norm ε of 1e-3, and standardise pictures
otherwise than torchvision's.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from precis.vision.mobilenet import channels_of

WIDTHS = (1.0, 1.4, 0.75, 0.5, 0.35, 1.3, *(k / 100 for k in range(10, 300)))
TENSORFLOW = {"padding": "tf", "eps": 1e-3}
HALF = ((0.5,) * 3, (0.5,) * 3)
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
PARTS = {"first_conv": "stem", "conv_3x3": "blocks.0.depthwise", "reduce_1x1": "blocks.0.project",
         "expand_1x1": "expand"}  # fmt: skip
SLIM_NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
AVERAGE = "/ExponentialMovingAverage"


class Published(NamedTuple):
    """`layout`: ours, torchvision, transformers or slim; `arguments` of the `MobileNetV2` that `state` fits."""

    layout: str
    arguments: dict[str, Any]
    state: dict[str, Tensor]


def published(state: Mapping[str, Any]) -> Published:
    """What a state dict of tensors (of slim's checkpoints: arrays by variable name) is, in our names.

    ValueError for one that is no MobileNetV2 of a known layout, or of a width that none of 0.1 … 3 gives.
    """
    state = _without_prefix(state)
    extra: dict[str, Any] = {}
    if "stem.conv.weight" in state:
        layout, made = "ours", {name: torch.as_tensor(value) for name, value in state.items()}
    elif "features.0.0.weight" in state:
        layout, made = "torchvision", load_torchvision(state)
    elif any(name.startswith(("mobilenet_v2.conv_stem", "conv_stem", "MobilenetV2/Conv/")) for name in state):
        layout, extra = ("slim" if any("/" in name for name in state) else "transformers"), TENSORFLOW
        made = load_slim(state)
    else:
        raise ValueError(
            "these are no weights of a MobileNetV2: the names are neither ours nor those of torchvision, transformers "
            f"or slim, but {', '.join(sorted(state)[:3])}, …"
        )
    classes = len(made["head.weight"]) if "head.weight" in made else None
    return Published(layout, {"classes": classes, "width": width_of(made), **extra}, made)


def load_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict from torchvision's names: features.0 … features.18, classifier.1."""
    last = max(int(name.split(".")[1]) for name in state if name.startswith("features."))

    def rename(name: str) -> str | None:
        if found := re.fullmatch(r"classifier\.1\.(weight|bias)", name):
            return f"head.{found[1]}"
        if found := re.fullmatch(r"features\.(\d+)\.([01])\.(\w+)", name):
            place = {0: "stem", last: "last"}.get(int(found[1]))
            return None if place is None else f"{place}.{('conv', 'norm')[int(found[2])]}.{found[3]}"
        found = re.fullmatch(r"features\.(\d+)\.conv\.(\d)(?:\.([01]))?\.(\w+)", name)
        if found is None:
            return None
        pairs = 1 if int(found[1]) == 1 else 2  # nested pairs of convolution and norm, before the projection's two
        step = int(found[2])
        if (found[3] is None) != (step >= pairs) or step > pairs + 1:
            return None
        part = ("expand", "depthwise")[step + 2 - pairs] if step < pairs else "project"
        kind = ("conv", "norm")[int(found[3] if found[3] is not None else step - pairs)]
        return f"blocks.{int(found[1]) - 1}.{part}.{kind}.{found[4]}"

    return _completed({name: torch.as_tensor(value) for name, value in state.items()}, rename, IMAGENET)


def load_slim(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Our state dict from the names of slim (arrays, [h,w,in,out]; the average of weights where there is one) or of
    transformers.  The first of 1,001 classes is the background."""
    if any("/" in name for name in state):
        return _completed(_slim_tensors(state), _slim_name, HALF)

    def rename(name: str) -> str | None:
        name = name.removeprefix("mobilenet_v2.")
        if found := re.fullmatch(r"classifier\.(weight|bias)", name):
            return f"head.{found[1]}"
        found = re.fullmatch(r"(conv_stem|conv_1x1|layer\.(\d+))(?:\.(\w+))?\.(convolution|normalization)\.(\w+)", name)
        if found is None:
            return None
        kind = f"{'conv' if found[4] == 'convolution' else 'norm'}.{found[5]}"
        if found[1] == "conv_1x1":
            return f"last.{kind}"
        part = PARTS.get(found[3] or "")
        if part is None:
            return None
        if found[1] == "conv_stem":
            return f"{part}.{kind}"
        return f"blocks.{int(found[2]) + 1}.{part.rpartition('.')[2]}.{kind}"

    return _completed({name: torch.as_tensor(value) for name, value in state.items()}, rename, HALF)


def width_of(state: Mapping[str, Tensor]) -> float:
    """The width multiplier of a state dict in our names."""
    thin = {int(found[1]): len(value) for name, value in state.items()
            if (found := re.fullmatch(r"blocks\.(\d+)\.project\.conv\.weight", name))}  # fmt: skip
    first = [thin[i] for i in (0, 1, 3, 6, 10, 13, 16)] if len(thin) == 17 else []
    there = (len(state["stem.conv.weight"]), tuple(first), len(state["last.conv.weight"]))
    for width in WIDTHS:
        if channels_of(width) == there:
            return width
    raise ValueError(f"no width multiplier gives blocks of {list(thin.values())} channels after a stem of {there[0]}")


def _slim_name(name: str) -> str | None:
    found = re.fullmatch(r"MobilenetV2/(Conv|Conv_1|expanded_conv(?:_\d+)?/(?:expand|depthwise|project))/(.*)", name)
    if found is None:
        ends = {"MobilenetV2/Logits/Conv2d_1c_1x1/weights": "weight", "MobilenetV2/Logits/Conv2d_1c_1x1/biases": "bias"}
        return f"head.{ends[name]}" if name in ends else None
    place, leaf = {"Conv": "stem", "Conv_1": "last"}.get(found[1]), found[2]
    if place is None:
        block, part = found[1].split("/")
        place = f"blocks.{block.removeprefix('expanded_conv').lstrip('_') or 0}.{part}"
    if leaf in ("weights", "depthwise_weights"):
        return f"{place}.conv.weight"
    norm = SLIM_NORM.get(leaf.removeprefix("BatchNorm/"))
    return None if norm is None else f"{place}.norm.{norm}"


def _slim_tensors(state: Mapping[str, Any]) -> dict[str, Tensor]:
    """Variables that the network has, averaged ones in place of the last ones, in torch's order of axes."""
    made = {}
    for name, value in state.items():
        if not name.startswith("MobilenetV2/") or name.endswith(AVERAGE) or _slim_name(name) is None:
            continue
        tensor = torch.as_tensor(state.get(name + AVERAGE, value))
        if name.endswith("depthwise_weights"):
            tensor = tensor.permute(2, 3, 0, 1)
        elif name.endswith("Conv2d_1c_1x1/weights"):
            tensor = tensor.permute(3, 2, 0, 1).flatten(1)
        elif name.endswith("weights"):
            tensor = tensor.permute(3, 2, 0, 1)
        made[name] = tensor.contiguous()
    return made


def _completed(
    state: Mapping[str, Tensor], rename: Callable[[str], str | None], standard: tuple[tuple[float, ...], ...]
) -> dict[str, Tensor]:
    """Renamed, with what our net has beside: the standardisation of pictures, and counters of batches."""
    made: dict[str, Tensor] = {"input.mean": torch.tensor(standard[0]), "input.std": torch.tensor(standard[1])}
    for name, value in state.items():
        ours = rename(name)
        if ours is None:
            raise ValueError(f"{name} belongs to no MobileNetV2 of this layout")
        made[ours] = value
    for name in [n for n in made if n.endswith("norm.running_mean")]:
        made.setdefault(name.replace("running_mean", "num_batches_tracked"), torch.tensor(0))
    return made


def _without_prefix(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """Names without what wrappers (data parallel, compile) have put before all of them."""
    for prefix in ("module.", "_orig_mod.", "model."):
        if state and all(name.startswith(prefix) for name in state):
            return _without_prefix({name.removeprefix(prefix): value for name, value in state.items()})
    return state
