"""What the jobs that prune share: whose model, and the files and figures of a pruned one."""

import copy
import csv
import io
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from precis.data.program import load_program
from precis.errors import InputError
from precis.lab.figures import bars
from precis.lab.statistics import mcnemar
from precis.lab.timing import Timing, interleaved
from precis.nn.backbones import backbone
from precis.nn.cost import count
from precis.nn.layers import Standardise
from precis.papers.exported import as_layers
from precis.papers.job import Work
from precis.papers.labelled import Labelled, Part
from precis.papers.work import writing
from precis.sparsity.compact import Compact, compact
from precis.sparsity.compress import compress, deflated, sizes
from precis.sparsity.csr import to_csr
from precis.sparsity.masks import Masks, density_of, layer_sparsity, prunable
from precis.train.checkpoint import save_model
from precis.train.classify import predict, to_input

FEW_LAYERS = 24
AGREEING = 1.25  # factor between the ratio of medians and that of times in turns, from which on both are told
WORDS = {"pruned": "the same layers with zeros", "compact": "compact.pt2", "csr": "sparse rows (CSR)"}
BUILT_IN = ("mlp", "conv", "lenet300", "lenet5", "resnet", "small_resnet")


class Net(NamedTuple):
    """The model to prune.  `trained`: it came with weights.

    config: how `precis.nn.backbones.backbone` builds it; None if a function of the user's does.
    """

    model: nn.Module
    config: dict[str, Any] | None
    trained: bool


def open_net(job: Any, work: Work, data: Labelled, generator: torch.Generator) -> tuple[Net, Labelled]:
    """--model with --weights, checked against the data; and the data as the model takes them.

    A first layer that standardises is fitted to the pictures; the preprocessing of a function of the user's is applied.
    """
    spec, weights, trained = str(job.model), job.weights, comes_trained(job)
    config = None
    if spec.partition(":")[0].startswith(BUILT_IN) and not spec.partition(":")[0].endswith(".py"):
        config = {"spec": spec, "in_shape": list(data.shape), "classes": len(data.classes)}
    program = load_program(spec, weights, builtin=lambda name: None if config is None else backbone(
        spec, data.shape, len(data.classes), generator=generator))  # fmt: skip
    if program.kind == "script" and not Path(spec).is_file():
        raise InputError(f"{spec} gives a scripted model, whose layers cannot be retrained: return the module itself")
    work.note(program.note) if program.note else None
    model = program.module
    if program.kind != "eager":
        model = as_layers(program.to(work.device), spec)
        work.note(f"The layers of {Path(spec).name} were made anew from its graph: batch norms and dropout train "
                  "again, whatever else the export fixed stays fixed.")  # fmt: skip
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise InputError(f"{name} holds values that are not finite", file=weights or (spec if trained else None))
    if not trained:
        for layer in model.modules():
            if isinstance(layer, Standardise) and len(layer.mean) in (1, data.train.x.shape[1]):
                layer.fit(data.train.x)
    if program.preprocess is not None:
        ready = [Part(program.preprocess(to_input(part.x)), part.y) for part in (data.train, data.val, data.test)]
        data = data._replace(train=ready[0], val=ready[1], test=ready[2])
    _check_output(model, spec, data)
    net = Net(model.to(work.device), config, trained)
    weights_of(net, job)
    return net, data


def comes_trained(job: Any) -> bool:
    """Whether the model brings weights: --weights, or --model is the file of a saved program."""
    spec = str(job.model)
    return job.weights is not None or Path(spec).is_file() and Path(spec).suffix != ".py"


def weights_of(net: Net, job: Any) -> dict[str, nn.Parameter]:
    """The prunable weights by --include and --exclude (patterns with commas)."""
    patterns = [tuple(filter(None, (given or "").split(","))) for given in (job.include, job.exclude)]
    found = prunable(net.model, *patterns)
    if not found:
        why = " that --include and --exclude leave" if any(patterns) else ""
        raise InputError(f"the model has no linear or convolutional weights{why}: there is nothing to prune")
    return found


@torch.no_grad()
def _check_output(model: nn.Module, spec: str, data: Labelled) -> None:
    some = to_input(data.train.x[:2])
    try:
        y = model.eval()(some)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
        raise InputError(f"{spec} takes no inputs {list(data.shape)} ({first})") from error
    if not isinstance(y, Tensor):
        raise InputError(f"{spec} returns no tensor but {type(y).__name__}: give a module that returns the logits")
    if y.ndim != 2 or len(y) != len(some):
        raise InputError(f"{spec} returns {list(y.shape)} for {len(some)} inputs: logits [B, classes] are wanted")
    if y.shape[1] != len(data.classes):
        raise InputError(f"{spec} has {y.shape[1]} outputs, and the data {len(data.classes)} classes")


def right(model: nn.Module, part: Part) -> np.ndarray:
    """Which examples are answered correctly [N]."""
    return (predict(model, part.x).argmax(1).cpu() == part.y).numpy()


class Change(NamedTuple):
    """Accuracy in points after minus before on the same examples, its bootstrap interval, and McNemar's p."""

    points: float
    low: float
    high: float
    p: float


def change(before: np.ndarray, after: np.ndarray) -> Change:
    """The paired percentile bootstrap draws examples, so only how many changed in either direction matters."""
    tested, n = mcnemar(after.astype(float), before.astype(float)), len(before)
    shares = np.array([tested.only_a, tested.only_b, n - tested.only_a - tested.only_b]) / n
    draws = np.random.default_rng(0).multinomial(n, shares, 4000)
    low, high = np.quantile(100 * (draws[:, 0] - draws[:, 1]) / n, [0.025, 0.975])
    return Change(100 * (tested.only_a - tested.only_b) / n, float(low), float(high), tested.p)


def export(
    work: Work, net: Net, dense: nn.Module, pruned: nn.Module, masks: Masks, data: Labelled
) -> dict[str, float | None]:  # fmt: skip
    """Write the pruned model in every form, and measure it against `dense`; the figures, most wanted first."""
    before, after = right(dense, data.test), right(pruned, data.test)
    difference = change(before, after)
    state = {name: t.detach().cpu() for name, t in pruned.state_dict().items()}
    cpu = copy.deepcopy(pruned).cpu().eval()
    bytes_, dense_deflated = sizes(state, masks), deflated(dense.state_dict())
    _save(work, net, cpu, masks, state)
    example = to_input(data.test.x[:64])
    smaller = compact(cpu, masks, example)
    if smaller.program is not None:
        with writing(work.folder / "compact.pt2") as beside:
            torch.export.save(smaller.program, beside)
        with writing(work.folder / "compact.safetensors") as beside:
            save_file(_own(smaller.module.state_dict()), beside)
        units = ", ".join(f"{n} of {name}" for name, n in list(smaller.deleted.items())[:8])
        work.note(f"Units without a way in or out are deleted in compact.pt2: {units}; its outputs differ by "
                  f"{smaller.error:.0e} at most.")  # fmt: skip
    else:
        work.note(f"There is no compact.pt2: {smaller.reason}.")
    _layers(work, masks)
    metrics: dict[str, float | None] = {
        "accuracy": float(after.mean()), "accuracy_dense": float(before.mean()), "change_points": difference.points,
        "change_low": difference.low, "change_high": difference.high, "mcnemar_p": difference.p,
        "density": density_of(masks), "compression": bytes_.ratio, "bytes_dense": bytes_.dense,
        "bytes_dense_deflated": dense_deflated, "bytes_compressed": bytes_.compressed,
        "bytes_deflated": bytes_.deflated,
        "bytes_entropy_bound": bytes_.entropy_bound, "parameters_compact": smaller.parameters,
        "macs_dense": count(cpu, example[:1]).macs,
    }  # fmt: skip
    metrics["macs_compact"] = _graph_macs(smaller.module, example[:1]) if smaller.program is not None else None
    work.note(f"Papers call {bytes_.ratio:.3g} the compression: weights over surviving weights.  Stored with where "
              f"they are, the network takes {bytes_.dense / bytes_.compressed:.3g} times fewer bytes than the dense "
              f"one, and {dense_deflated / bytes_.deflated:.3g} times fewer where both are deflated.")  # fmt: skip
    work.note("The entropy bound on bytes counts 4 for a surviving weight and the least that the places of the "
              "survivors take.  Deflate may come below it, as the bits of weights are not all random.")  # fmt: skip
    metrics |= _latency(work, dense, cpu, masks, smaller, example)
    return {name: None if value is None else float(value) for name, value in metrics.items()}


def _save(work: Work, net: Net, model: nn.Module, masks: Masks, state: dict[str, Tensor]) -> None:
    if net.config is not None:
        save_model(work.folder, model, net.config, component="precis.nn.backbones:backbone")
    else:
        with writing(work.folder / "model.safetensors") as beside:
            save_file(_own(state), beside)
    with writing(work.folder / "masks.safetensors") as beside:
        save_file({name: mask.cpu().contiguous() for name, mask in masks.items()}, beside)
    with writing(work.folder / "compressed.safetensors") as beside:
        save_file(compress(state, masks), beside)


def _own(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.detach().clone().contiguous() for name, t in state.items()}


def _layers(work: Work, masks: Masks) -> None:
    rows = layer_sparsity(masks)
    text = io.StringIO()
    table = csv.writer(text)
    table.writerow(["layer", "shape", "weights", "surviving", "density"])
    for row in rows:
        table.writerow([row.name, "x".join(map(str, row.shape)), row.total, row.kept, f"{row.kept / row.total:.6f}"])
    with writing(work.folder / "layers.csv") as beside:
        beside.write_text(text.getvalue())
    work.table("layers", [
        {"layer": row.name, "shape": row.shape, "weights": row.total, "surviving": row.kept,
         "density": row.kept / row.total} for row in rows
    ])  # fmt: skip
    shown = rows if len(rows) <= FEW_LAYERS else sorted(rows, key=lambda r: -r.total)[:FEW_LAYERS]
    with writing(work.folder / "layers.png") as beside:
        shares = {r.name.removesuffix(".weight"): 100 * r.kept / r.total for r in shown}
        chart = bars(shares, label="surviving weights (%)", order=("all in one colour",))
        beside.write_bytes(chart.png())
    if empty := [row.name for row in rows if row.kept == 0]:
        work.note(f"Layer collapse: no weight is left in {', '.join(empty)}.")


def _latency(
    work: Work, dense: nn.Module, pruned: nn.Module, masks: Masks, smaller: Compact, example: Tensor
) -> dict[str, float | None]:
    """Medians in ms of a batch of 1 and of 64 on the CPU, in turns, and a plain word on what is faster."""
    nets = {"pruned": pruned, "dense": copy.deepcopy(dense).cpu().eval()}
    if smaller.program is not None:
        nets["compact"] = smaller.module
    csr = to_csr(pruned, masks)
    if any(type(a) is not type(b) for a, b in zip(csr.modules(), pruned.modules())):
        nets["csr"] = csr
    metrics: dict[str, float | None] = {}
    for batch in (1, 64):
        x = example[:1] if batch == 1 else example[torch.arange(64) % len(example)]
        timed = interleaved({name: _run(model, x) for name, model in nets.items()}, repeats=30, warmup=3)
        metrics |= {f"ms_{name}_{batch}": 1e3 * timed.medians[name] for name in nets}
        said = [f"{WORDS[name]} {metrics[f'ms_{name}_{batch}']:.3g} ms, {_compared(timed, name)}"
                for name in nets if name != "dense"]  # fmt: skip
        work.note(f"Measured on this CPU, {torch.get_num_threads()} threads, batch of {batch} "
                  f"({metrics[f'ms_dense_{batch}']:.3g} ms dense): {'; '.join(said)}.")  # fmt: skip
    return metrics


def _compared(timed: Timing, name: str) -> str:
    """How a network's time compares with the dense one's, in words, by two estimates: medians, and times in turns.

    Slower or faster where both say so, the interval of the second without 1.  On a busy machine they may differ by more
    than `AGREEING`: then both are told.  Else, and where the medians are equal to the hundredth, nothing is told apart.
    """
    paired, (low, high) = timed.against("dense", name)
    level = timed.medians["dense"] / timed.medians[name]
    factors = sorted(max(ratio, 1 / ratio) for ratio in (level, paired))
    if not (min(low, level) > 1 or max(high, level) < 1) or f"{max(level, 1 / level):.2f}" == "1.00":
        return "not told apart from dense"
    factor = f"{max(level, 1 / level):.2f}"
    if factors[1] > AGREEING * factors[0]:
        factor = f"{factors[0]:.2g} to {factors[1]:.2g}"
    return f"{factor} times {'faster' if level > 1 else 'slower'} than dense"


def _run(model: nn.Module, x: Tensor) -> Any:
    def call() -> None:
        with torch.inference_mode():
            model(x)

    return call


def _graph_macs(module: Any, x: Tensor) -> float:
    """Multiply–accumulates of the linear maps and convolutions of a graph, for one input."""
    total = 0
    for node in module.graph.nodes:
        weight: Any = node.args[1] if node.op == "call_function" and len(node.args) > 1 else None
        name = str(node.target)
        if getattr(weight, "op", "") != "get_attr" or not name.startswith(("aten.linear", "aten.conv")):
            continue
        shape = module.get_parameter(weight.target).shape
        positions = math.prod(int(n) for n in node.meta["val"].shape[2:]) if "conv" in name else math.prod(
            int(n) for n in node.meta["val"].shape[1:-1])  # fmt: skip
        total += math.prod(shape) * positions
    return float(total)
