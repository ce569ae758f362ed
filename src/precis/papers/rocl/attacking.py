"""The job of RoCL: training, and what an attack does to a linear layer on the encoder, or to the encoder by itself."""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from precis.contrastive.ntxent import ProjectionHead
from precis.contrastive.robustness import AttackSpec, attacked, robust_accuracy, robust_correct, robust_linear
from precis.contrastive.rocl import RoCL, instance_attack
from precis.errors import InputError
from precis.lab.figures import contact_sheet, curves
from precis.nn.attacks import evaluating, parse_eps
from precis.nn.cost import count
from precis.papers.contrastive_maps import PLAIN, RIGHT, WRONG, framed, shortened
from precis.papers.contrastive_pictures import Pictures, read_pictures, write_skipped
from precis.papers.contrastive_run import Recipe, run_contrastive, shape_of, views_name
from precis.papers.job import Work
from precis.papers.work import save, save_table
from precis.train.augment import preset
from precis.train.checkpoint import load_model
from precis.train.classify import predict, to_input
from precis.train.probe import embed, nearest

SHARES = (0.0, 0.25, 0.5, 1.0, 1.5, 2.0)  # of the radius that was trained against
STEPS, RESTARTS, MANY_STEPS = 20, 5, 50
FITTED, LAYER_STEPS = 2000, 10  # pictures and steps of the layer that is fitted on attacked ones
MACS = 2e12  # multiply-adds of the attacks that judge: some minutes on two cores
PICTURED, BATCH = 6, 128


def run_rocl(job: Any, work: Work) -> dict[str, float | None]:
    """Train, embed or attack, as the job says; returns the metrics."""
    eps = parse_eps(job.eps)
    if eps == 0:
        raise InputError("--eps 0 is no attack: a radius above 0 is wanted, such as 8/255")
    if job.task == "attack":
        return _attack_encoder(job, work, eps)
    seen: dict[str, Any] = {}

    def make(
        job: Any, pictures: Pictures, encoder: nn.Module, head: ProjectionHead, batch: int, generator: torch.Generator
    ) -> Recipe:
        rocl = RoCL(encoder, head, eps, None, job.steps, job.temperature or 0.5)
        model = _Drawing(rocl, torch.Generator().manual_seed(1000 * job.seed + 4))
        seen.update(pictures=pictures, encoder=encoder)

        def loss(views: tuple[Tensor, ...], chosen: Tensor) -> dict[str, Tensor]:
            total, parts = rocl.loss(views[0], views[1], model.starts)
            return {"loss": total, "clean": parts.clean}

        return Recipe(model, loss, passes=10 + 2 * job.steps)

    metrics = run_contrastive(job, work, make)
    if not seen or not seen["pictures"].labelled:
        return metrics
    return _judge(job, work, seen["pictures"], seen["encoder"], eps) | metrics


class _Drawing(nn.Module):
    """RoCL with the generator of its random starts, whose state a checkpoint takes along."""

    def __init__(self, rocl: RoCL, starts: torch.Generator) -> None:
        super().__init__()
        self.rocl, self.starts = rocl, starts

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = self.rocl(x)
        return found

    def get_extra_state(self) -> Tensor:
        return self.starts.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        self.starts.set_state(state)


class _Test(NamedTuple):
    """Held-out pictures with labels, and the two classifiers that are attacked on them, by name."""

    x: Tensor
    y: Tensor
    nets: dict[str, nn.Module]


def _judge(job: Any, work: Work, p: Pictures, encoder: nn.Module, eps: float) -> dict[str, float | None]:
    """Accuracy over the radius of linear layers fitted as usual (LE) and on attacked pictures (r-LE)."""
    t = _prepared(job, work, p, encoder, eps)
    if t is None:
        return {}
    starts = torch.Generator().manual_seed(job.seed)
    radii = [share * eps for share in SHARES]
    specs = [AttackSpec("", r, steps=STEPS, alpha=r / 10) for r in radii]
    share = lambda net, spec: float(robust_correct(net, t.x, t.y, spec, batch=BATCH, generator=starts).float().mean())
    lines = {name: [share(net, spec) for spec in specs] for name, net in t.nets.items()}
    chart = curves({name: (255 * np.array(radii), 100 * np.array(line)) for name, line in lines.items()},
                   x_label="radius of the attack, in 255ths of the range", y_label="right answers (%)")  # fmt: skip
    save(work.folder / "robustness.png", chart.png())
    strong = AttackSpec("strong", eps, steps=MANY_STEPS, restarts=RESTARTS)
    rows = ([f"{r:.5f}", *(f"{line[i]:.4f}" for line in lines.values())] for i, r in enumerate(radii))
    save_table(work.folder / "robustness.csv", ("radius", *t.nets), rows)
    metrics: dict[str, float | None] = {}
    for (name, net), suffix in zip(t.nets.items(), ("", "_robust_layer")):
        found = robust_accuracy(net, t.x, t.y, attacks=[strong], worst_case=False, batch=BATCH, generator=starts)
        at = dict(zip(SHARES, lines[name]))
        metrics |= {f"robust_accuracy{suffix}": found["strong"], f"robust_20_steps{suffix}": at[1.0],
                    f"clean_accuracy{suffix}": found["clean"]}  # fmt: skip
        if found["strong"] > at[1.0] + 0.01:
            work.note(f"attack not converged: {name}, {MANY_STEPS} steps leave more right than {STEPS}")
    work.note(f"robust_accuracy is of {len(t.x)} held-out pictures, right as they are and after {RESTARTS} attacks of "
              f"{MANY_STEPS} steps at {255 * eps:.3g}/255 each; the curve is of {STEPS} steps; the robust layer "
              "is a linear layer fitted on attacked pictures (r-LE)")  # fmt: skip
    save(work.folder / "attacks.png", _sheet(p.classes, t, eps, starts))
    work.show("attacks.png")
    work.show("robustness.png")
    return metrics


def _prepared(job: Any, work: Work, p: Pictures, encoder: nn.Module, eps: float) -> _Test | None:
    labels = p.labels.numpy()
    train, test = np.flatnonzero((labels >= 0) & ~p.held & ~p.repeated), np.flatnonzero((labels >= 0) & p.held)
    if not len(test):
        work.note("no labelled picture is held out, so that robustness is not measured")
        return None
    rng, wanted = np.random.default_rng(job.seed), min(job.tested, len(test), _affordable(p, encoder))
    test, some = np.sort(rng.permutation(test)[:wanted]), np.sort(rng.permutation(train)[:FITTED])
    x, y, device = p.images, p.labels, next(encoder.parameters()).device
    encoder.eval()
    starts = torch.Generator().manual_seed(job.seed + 1)
    nets: dict[str, nn.Module] = {}
    for name, chosen, adversarial in (("linear layer", train, False), ("robust layer", some, True)):
        data = (x[chosen].to(device), y[chosen].to(device))
        layer = robust_linear(encoder, data, adversarial=adversarial, eps=eps, alpha=None, steps=LAYER_STEPS,
                              epochs=5, classes=len(p.classes), generator=starts)  # fmt: skip
        nets[name] = nn.Sequential(encoder, layer).eval()
    return _Test(x[test].to(device), y[test].to(device), nets)


def _affordable(p: Pictures, encoder: nn.Module) -> int:
    """How many pictures `MACS` allow: three passes a step, of all radii, twice."""
    if next(encoder.parameters()).is_cuda:
        return len(p.images)
    steps = 2 * (len(SHARES) * STEPS + MANY_STEPS * RESTARTS)
    return max(32, int(MACS / (3 * steps * count(encoder, torch.zeros(1, *p.images.shape[1:])).macs)))


def _sheet(classes: tuple[str, ...], t: _Test, eps: float, starts: torch.Generator) -> bytes:
    """A few pictures that are told right: as they are, and for both layers the change, enlarged, and attacked."""
    nets = list(t.nets.values())
    x = to_input(t.x)
    right = torch.stack([predict(net, x).argmax(1) == t.y for net in nets]).all(0).nonzero()[:, 0]
    chosen = right[:PICTURED] if len(right) >= 2 else torch.arange(min(PICTURED, len(x)), device=x.device)
    tiles, words, factor = [], [], _enlarged(eps)
    moved = [attacked(net, x[chosen], t.y[chosen], AttackSpec("", eps, steps=STEPS), starts) for net in nets]
    said = [predict(net, m).argmax(1).tolist() for net, m in zip(nets, moved)]
    before = predict(nets[0], x[chosen]).argmax(1).tolist()
    for i, at in enumerate(chosen.tolist()):
        tiles.append(framed(_bytes(x[at]), PLAIN))
        words.append(f"as it is: {shortened(classes[before[i]], 12)}")
        for m, answers in zip(moved, said):
            change = 0.5 + factor * (m[i] - x[at])
            good = answers[i] == int(t.y[at])
            tiles += [framed(_bytes(change), PLAIN), framed(_bytes(m[i]), RIGHT if good else WRONG)]
            words += ["", f"attacked: {shortened(classes[answers[i]], 12)}"]
    header = ["picture", f"change ×{factor:.3g}", "linear layer", f"change ×{factor:.3g}", "robust layer"]
    return contact_sheet(tiles, words, columns=5, header=header, size=112)


def _attack_encoder(job: Any, work: Work, eps: float) -> dict[str, float | None]:
    """Is a view still found by another view of its picture, when it is attacked?  Shares over the radius."""
    folder = Path(job.model)
    if not folder.is_dir():
        raise InputError("the encoder to attack is the folder of a run that trained", file=folder)
    channels, size = shape_of(folder)
    encoder = load_model(folder, device=work.device)
    head = load_model(folder, name="head", device=work.device) if (folder / "head.json").exists() else nn.Identity()
    net = nn.Sequential(encoder, head)
    p = read_pictures(job, work, channels, size)
    write_skipped(p, work)
    wanted = min(job.tested, _affordable(p, encoder))
    chosen = np.sort(np.random.default_rng(job.seed).permutation(np.flatnonzero(~p.repeated))[:wanted])
    if len(chosen) < 2:
        raise InputError("two different pictures at the least are wanted", file=job.input)
    views, noise = preset(views_name(job, p), size), torch.Generator().manual_seed(job.seed)
    x = p.images[torch.from_numpy(chosen)].to(work.device)
    a, b = (to_input(views(x, noise)) for _ in range(2))
    with evaluating(net):
        bank = embed(net, b)
        shares, taken, worst = {}, None, a
        for share in SHARES:
            moved = _against(net, a, bank, share * eps, noise) if share else a
            found = nearest(bank, embed(net, moved), 1)[1][:, 0]
            shares[share] = float((found == torch.arange(len(a), device=found.device)).float().mean())
            worst, taken = (moved, found) if share == 1 else (worst, taken)
            work.log(SHARES.index(share) + 1, len(SHARES), found=shares[share])
    assert taken is not None
    line = (255 * eps * np.array(SHARES), 100 * np.array(list(shares.values())))
    chart = curves({"views": line}, x_label="radius of the attack, in 255ths", y_label="views found again (%)")
    save(work.folder / "robustness.png", chart.png())
    rows = ([f"{share * eps:.5f}", f"{found:.4f}"] for share, found in shares.items())
    save_table(work.folder / "robustness.csv", ("radius", "found"), rows)
    save(work.folder / "attacks.png", _mistaken(a, worst, b, taken, _enlarged(eps)))
    work.show("attacks.png")
    work.show("robustness.png")
    work.note(f"a view of each of {len(a)} pictures is looked for among other views of them, at {255 * eps:.3g}/255, "
              f"{STEPS} steps; one in {len(a)} is found by chance")  # fmt: skip
    return {"found_attacked": shares[1.0], "found_clean": shares[0.0], "pictures": float(len(a)), "eps": eps}


def _against(net: nn.Module, a: Tensor, bank: Tensor, eps: float, generator: torch.Generator) -> Tensor:
    parts = [slice(at, at + BATCH) for at in range(0, len(a), BATCH)]
    if len(parts) > 1 and len(a) % BATCH == 1:  # no batch of one: it would have no negatives
        parts[-2:] = [slice(parts[-2].start, len(a))]
    return torch.cat([instance_attack(net, a[s], bank[s], eps=eps, steps=STEPS, alpha=eps / 10, generator=generator)
                      for s in parts])  # fmt: skip


def _mistaken(a: Tensor, moved: Tensor, b: Tensor, taken: Tensor, factor: float) -> bytes:
    """Views before and after the attack, and the view that each is then taken for."""
    wrong = (taken != torch.arange(len(taken), device=taken.device)).nonzero()[:, 0]
    chosen = (wrong if len(wrong) else torch.arange(len(a)))[:PICTURED].tolist()
    tiles = []
    for i in chosen:
        same = int(taken[i]) == i
        tiles += [framed(_bytes(a[i]), PLAIN), framed(_bytes(0.5 + factor * (moved[i] - a[i])), PLAIN),
                  framed(_bytes(moved[i]), PLAIN), framed(_bytes(b[taken[i]]), RIGHT if same else WRONG)]  # fmt: skip
    return contact_sheet(tiles, columns=4, header=["view", f"change ×{factor:.3g}", "attacked", "taken for"], size=112)


def _enlarged(eps: float) -> float:
    """Tenfold, or as far as changes of that size can be shown."""
    return min(10.0, 0.5 / eps)


def _bytes(x: Tensor) -> Tensor:
    return (x.detach().cpu().clamp(0, 1) * 255).round().to(torch.uint8)
