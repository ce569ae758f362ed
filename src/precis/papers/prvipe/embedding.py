"""Train or take an embedder, embed a user's keypoints, and say what is near to what."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from precis.contrastive.prvipe import (
    MatchingSigmoid,
    PoseEmbedder,
    PoseEmbedding,
    PrVIPE,
    cancelled,
    dtw_align,
    match_matrix,
)
from precis.contrastive.prvipe_keypoints import normalize_3d
from precis.contrastive.prvipe_loss import matching_distance
from precis.data.poses import procedural_skeleton
from precis.data.poses_amass import BESIDE, Performed
from precis.data.poses_mocap import read_mocap
from precis.errors import InputError
from precis.papers.job import Work
from precis.papers.work import save, save_table, writing
from precis.train.loop import Budget, fit, param_groups
from precis.train.schedule import cosine

from .kept import MADE, Pair, keep, load_pair, place_of, save_pair, seen_no_motion
from .pictures import draw_alignment, draw_ambiguity, draw_gallery
from .reading import People, read_people, write_skipped
from .recorded import as_clips
from .training import KAPPA, missing, views

TRAINING, POSES, BATCH = ".training", 3000, 128
SAMPLES = 20
UNSEEN = "the embedder was trained on made poses (24 key poses, 24 actions) and has never seen real motion"


def run_embedding(job: Any, work: Work) -> dict[str, float | None]:
    """Every file of a run; returns the metrics."""
    people = read_people(Path(job.input), job, work)
    other = None if job.index is None else read_people(job.index, job, work)
    if other is None and len(people.ids) < 2:
        raise InputError("one pose has no neighbours: two rows or more, or --index FILE, are wanted", file=job.input)
    if job.query is not None and job.query not in people.ids:
        raise InputError(f"--query: no row is called {job.query!r}; the first is {people.ids[0]!r}", file=job.input)
    pair = _load(job.model, work) if job.model is not None else None
    takes_masks = job.occlusion if pair is None else pair[0].mask_input
    lacking = sum(int((~p.mask).any(1).sum()) for p in (people, other) if p is not None)
    if lacking and not takes_masks:
        raise InputError(f"{lacking} rows lack points (no number, or a score below 0.1), and this embedder takes whole "
                         "poses only: train one with --occlusion", file=job.input)  # fmt: skip
    write_skipped(work, *(p for p in (people, other) if p is not None))
    embedder, sigmoid = pair or (_made if job.train is None else _captured)(job, work)
    with torch.no_grad():
        e = embedder(people.k, people.mask)
        found = e if other is None else embedder(other.k, other.mask)
        metrics = _neighbours(job, work, people, e, other or people, found, sigmoid)
    _save_arrays(work.folder, people, e)
    if job.align and other is not None:
        metrics = _align(work, people, e, other, found) | metrics
    return metrics | {"poses": float(len(people.ids)), "mean_std": float(_spread(e).mean())}


def _load(folder: Path, work: Work) -> Pair:
    if not folder.is_dir():
        raise InputError("--model is to be the folder of a run of prvipe", file=folder)
    pair = load_pair(folder)
    unseen = seen_no_motion(folder)
    if unseen:
        work.note(UNSEEN)
    elif unseen is None:
        work.note("the folder of --model does not say whether its embedder was trained on made poses or on real motion")
    return pair


def _made(job: Any, work: Work) -> Pair:
    """The embedder for made poses: of an earlier run of these settings, else trained, and kept for the next."""
    work.note(f"{UNSEEN}; --train FILE takes motion capture")
    settings = {name: getattr(job, name) for name in ("seed", "steps", "hidden", "dim", "occlusion")}
    place = place_of(settings | {"poses": POSES, "batch": BATCH, "device": work.device})
    if place.exists():
        try:
            pair = load_pair(place)
        except InputError:
            work.note("the embedder kept from an earlier run is damaged: it was trained anew")
        else:
            work.note(f"the embedder is that of an earlier run with these settings, kept in {place}")
            save_pair(work.folder, pair, config_of(job), MADE)
            return pair
    pair = _train(procedural_skeleton(POSES, seed=job.seed, performers=24).poses, job, work)
    save_pair(work.folder, pair, config_of(job), MADE)
    keep(place, pair, config_of(job))
    return pair


def _captured(job: Any, work: Work) -> Pair:
    """The embedder for the user's motion capture, trained."""
    poses = _recorded(job, work)
    work.note(f"trained on {len(poses)} poses of {job.train.name}")
    pair = _train(poses, job, work)
    save_pair(work.folder, pair, config_of(job), job.train.name)
    return pair


def config_of(job: Any) -> dict[str, Any]:
    """The arguments that build the embedder again."""
    return {"dim": job.dim, "hidden": job.hidden, "dropout": 0.0, "mask_input": job.occlusion}


def _train(poses: np.ndarray, job: Any, work: Work) -> Pair:
    """On poses [N,1,16,3], by the four cameras of the claims and made ones."""
    pool = normalize_3d(torch.from_numpy(poses[:, 0])).to(work.device)
    generators = [torch.Generator().manual_seed(1000 * job.seed + i) for i in range(2)]
    model = PrVIPE(PoseEmbedder(generator=generators[0], **config_of(job))).to(work.device).train()
    batch = min(BATCH, len(pool))
    match = match_matrix(pool, KAPPA)

    def step(_: int) -> dict[str, Tensor]:
        g = generators[1]
        chosen = torch.randperm(len(pool), generator=g)[:batch].to(pool.device)
        mask = _hidden(2 * batch, g, pool) if job.occlusion else None
        k, _seen = views(pool[chosen].repeat(2, 1, 1), True, 0.01, g, mask)
        noise = torch.randn(2, batch, SAMPLES, job.dim, generator=g).to(pool.device)
        return model.loss(
            k.unflatten(0, (2, batch)), ~match[chosen][:, chosen],
            None if mask is None else mask.unflatten(0, (2, batch)), samples=SAMPLES, noise=noise,
        )  # fmt: skip

    for name, p in model.named_parameters():
        p.requires_grad_(not cancelled(name))
    solver = torch.optim.AdamW(param_groups(model, 1e-4), lr=3e-3, foreach=True)
    fit(
        step, [0], budget=Budget(steps=job.steps), optimizer=solver, schedule=cosine(), log=work.log,
        folder=work.folder / TRAINING, resume=work.resume, keep={"model": model, "generator": generators[1]},
    )  # fmt: skip
    model.eval().cpu()
    embedder, sigmoid = model.embedder, model.sigmoid
    assert isinstance(embedder, PoseEmbedder) and isinstance(sigmoid, MatchingSigmoid)
    return embedder, sigmoid


def _recorded(job: Any, work: Work) -> np.ndarray:
    """Poses [N,1,16,3] of the user's motion capture, evenly thinned to `POSES`."""
    found = read_mocap(job.train, job.smpl)
    if isinstance(found, Performed) and found.note:
        taken = "" if job.smpl is not None else f" --smpl FILE takes one, or {BESIDE} beside the recording."
        work.note(f"{job.train.name}: {found.note}{taken}")
    return as_clips(found, job.train, most=POSES)


def _hidden(n: int, generator: torch.Generator, like: Tensor) -> Tensor:
    """Half of the samples whole; of the others half lack single points, half limbs."""
    random, groups = (missing(kind, n, generator, like.device) for kind in ("random", "groups"))
    first = torch.rand(n, 1, generator=generator).to(like.device) < 0.5
    return torch.where(first, random, groups)  # type: ignore[arg-type]


def _spread(e: PoseEmbedding) -> Tensor:
    assert e.std is not None
    return e.std.clamp(min=1e-6).log().mean(-1).exp()


def _neighbours(
    job: Any, work: Work, people: People, e: PoseEmbedding, other: People, found: PoseEmbedding,
    sigmoid: MatchingSigmoid,
) -> dict[str, float | None]:  # fmt: skip
    """`neighbours.csv`, `gallery.png` and `ambiguity.png`; with poses named in a column, Hit@1 and Hit@10."""
    distance = torch.cdist(e.mean, found.mean)
    itself = other is people
    across = people.views is not None and other.views is not None
    if not across and itself:
        work.note("no views are known, so the nearest are of all rows, in a sequence mostly the frames beside; to look "
                  "across views, give a column 'view' (CSV), an array 'views' (.npz), a field 'camera' of each COCO "
                  "image or annotation, or another view's file by --index")  # fmt: skip
    if across:
        distance[torch.from_numpy(people.views[:, None] == other.views[None])] = torch.inf  # type: ignore[index]
    if itself:
        distance.fill_diagonal_(torch.inf)
    if not distance.isfinite().any(1).all():
        raise InputError("column 'view': a row has no other view to look in", file=job.input)
    k = min(job.neighbours, distance.shape[1] - itself)
    near, place = distance.topk(max(k, min(10, distance.shape[1])), largest=False)
    generator = torch.Generator().manual_seed(job.seed)
    z = e.sample(SAMPLES, generator)[:, None].expand(-1, k, -1, -1)
    probability = (-matching_distance(z, found.sample(SAMPLES, generator)[place[:, :k]], sigmoid)).exp()
    rows = ([name, r + 1, other.ids[int(place[i, r])], f"{float(near[i, r]):.4f}", f"{float(probability[i, r]):.4f}"]
            for i, name in enumerate(people.ids) for r in range(k) if near[i, r].isfinite())  # fmt: skip
    save_table(work.folder / "neighbours.csv", ("id", "rank", "neighbour", "distance", "probability"), rows)
    first = [people.ids.index(job.query)] if job.query is not None else []
    shown = list(dict.fromkeys([*first, *np.linspace(0, len(people.ids) - 1, 6).astype(int).tolist()]))[:6]
    lists = [[int(j) for j, d in zip(place[i, :8], near[i, :8]) if d.isfinite()] for i in shown]
    spreads = _spread(e), _spread(found)
    save(work.folder / "ambiguity.png", draw_ambiguity(people, spreads[0].numpy()))
    work.show("ambiguity.png")
    where = "other views" if across else ""
    save(work.folder / "gallery.png", draw_gallery(people, shown, other, lists, spreads, near, where))
    work.show("gallery.png")
    if people.poses is None or other.poses is None:
        return {}
    right = torch.from_numpy(people.poses[:, None] == other.poses[None])
    able = (right & distance.isfinite()).any(1)
    if not able.any():
        return {}
    hit = right.gather(1, place)[able]
    work.note(f"of {int(able.sum())} rows whose pose (column 'pose') is in another row, the nearest shows that pose in "
              f"{100 * float(hit[:, 0].float().mean()):.0f} %")  # fmt: skip
    return {"hit1": 100 * float(hit[:, 0].float().mean()), "hit10": 100 * float(hit[:, :10].any(1).float().mean())}


def _align(work: Work, a: People, e: PoseEmbedding, b: People, f: PoseEmbedding) -> dict[str, float | None]:
    """`alignment.csv` and `alignment.png`: the path of least summed distance through both sequences."""
    warp = dtw_align(e.mean, f.mean)
    distance = torch.cdist(e.mean, f.mean)
    rows = ([a.ids[i], b.ids[j], f"{float(distance[i, j]):.4f}"] for i, j in warp.path.tolist())
    save_table(work.folder / "alignment.csv", ("first", "second", "distance"), rows)
    save(work.folder / "alignment.png", draw_alignment(a, b, distance.numpy(), warp.path.numpy()))
    work.show("alignment.png")
    return {"alignment_cost": warp.cost / len(warp.path)}


def _save_arrays(folder: Path, people: People, e: PoseEmbedding) -> None:
    assert e.std is not None
    with writing(folder / "embeddings.npz") as beside:
        np.savez_compressed(beside, ids=np.array(people.ids), mean=e.mean.numpy(), std=e.std.numpy(),
                            mask=people.mask.numpy())  # fmt: skip
