"""Clips for the contrastive job: their frames or regions as pictures, and the partner of each."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from precis.contrastive.moco import MoCo
from precis.contrastive.tracks import crop_boxes
from precis.data.imageset import ImageSet
from precis.data.stack import square
from precis.errors import InputError
from precis.papers.contrastive_pictures import LEAST, SIZES, Pictures, _hold_out, as_channels
from precis.papers.contrastive_run import Recipe, queue_size, views_name
from precis.papers.job import Work
from precis.train.augment import preset
from precis.train.classify import to_input

from .clips import Clip, classes_of, find_clips, gap_of, open_clip, too_short
from .cutting import pieces
from .regions import Boxes, read_boxes, regions_of


class ClipTraining:
    """`read` and `make` of a run of the contrastive job on clips; the partners of pictures are kept in between."""

    partner: Tensor

    def read(self, job: Any, work: Work, channels: int | None, size: int | None) -> Pictures:
        """Frames (or, with --boxes, regions) of all clips that are long enough, and the partner of each."""
        found = find_clips(job.input)
        clips = [open_clip(clip, job, work) for clip in found]
        lengths = [pieces(clip.frames, job.cuts) for clip in clips]
        if cut := sum(len(some) - 1 for some in lengths):
            how = "by how far they stand out" if job.cuts is None else f"by a change above {job.cuts:g}"
            work.note(f"{cut} cuts were found, {how}; --cuts SHARE sets another limit, --cuts 1 splits nothing")
        gap = gap_of(job, clips, lengths, work)
        boxes = None if job.boxes is None else read_boxes(job.boxes, clips)
        size = size or job.size or _natural_size(clips)
        runs: list[tuple[Tensor, tuple[int, int], list[str]]] = []  # pictures of a thing in order, clip and shot, names
        skipped: list[tuple[str, str]] = []
        for number, clip in enumerate(clips):
            mine = _runs(clip, lengths[number], gap, boxes, size)
            runs += [(x, (number, shot), names) for x, shot, names in mine]
            if not mine:
                what = too_short(lengths[number], gap)
                if max(lengths[number]) > gap:
                    what = f"no region stays for {gap + 1} frames"
                skipped.append((clip.name, what))
        if not runs:
            words = "; ".join(f"{name}: {why}" for name, why in skipped[:5])
            what = "uncut piece" if cut else "clip"
            raise InputError(f"no {what} is long enough for a gap of {gap}: {words}", file=job.input)
        if skipped:
            work.note(f"{len(skipped)} of {len(clips)} clips are left out: see skipped.csv")
        wide = max(x.shape[1] for x, _, _ in runs)
        images = torch.cat([x.expand(-1, wide, -1, -1) for x, _, _ in runs])
        if len(images) < LEAST:
            words = f"contrastive training needs negatives: {LEAST} pictures or more are wanted, {len(images)} found"
            raise InputError(words, file=job.input)
        self.partner = partners([len(x) for x, _, _ in runs], gap)
        names = tuple(name for _, _, some in runs for name in some)
        of = np.concatenate([np.repeat([where], len(x), 0) for x, where, _ in runs])
        _, unit = np.unique(of, axis=0, return_inverse=True)
        labels, classes = classes_of(clips, job)
        y = labels[of[:, 0]]
        held, lone = _hold_out(y, unit, job.val_fraction, job.seed)
        if unit.max() < 1:
            raise InputError(_only_one(lengths, gap), file=job.input)
        near = float(((self.partner - torch.arange(len(images))).abs() < gap).float().mean())
        nearer = f" ({near:.0%} nearer, in the middle of clips shorter than twice that)" if near > 0 else ""
        work.note(f"{len(images)} {'frames' if boxes is None else 'regions'} of {unit.max() + 1} uncut clips, partners "
                  f"{gap} frames apart{nearer}; neighbours are of other clips")  # fmt: skip
        source = ImageSet(images.numpy(), y, classes, names, unit.astype(np.str_), skipped=tuple(skipped))
        known = torch.from_numpy(y.astype(np.int64))
        return Pictures(as_channels(images, channels), known, classes, names, held, np.zeros(len(y), bool),
                        tuple(classes[c] for c in lone), source, unit)  # fmt: skip

    def make(self, job: Any, pictures: Pictures, encoder: Any, head: Any, batch: int, generator: Any) -> Recipe:
        """MoCo whose keys are views of the partners; their noise follows from how many keys there were, so that a
        resumed run draws the same."""
        trained = torch.from_numpy(pictures.trained)
        size = queue_size(len(trained), batch)
        model = MoCo(encoder, head, size, 0.99, job.temperature or 0.2, generator=generator)
        views = preset(views_name(job, pictures), int(pictures.images.shape[-1]))

        def loss(made: tuple[Tensor, ...], chosen: Tensor) -> Tensor:
            x = pictures.images[self.partner[trained[chosen.cpu()]]].to(made[0].device)
            noise = torch.Generator().manual_seed(1000 * job.seed + 7 + int(model.queue.pushed))
            return model.loss(made[0], to_input(views(x, noise)))

        return Recipe(model, loss, views=1, settled=-(-size // batch))


def partners(lengths: list[int], gap: int) -> Tensor:
    """For every picture of runs that are longer than the gap: the one `gap` later, else `gap` earlier, else the end of
    its run that is further away."""
    found, start = [], 0
    for length in lengths:
        i = torch.arange(length)
        far = torch.where(i < length - 1 - i, length - 1, 0)
        found.append(torch.where(i + gap < length, i + gap, torch.where(i >= gap, i - gap, far)) + start)
        start += length
    return torch.cat(found)


def _only_one(lengths: list[list[int]], gap: int) -> str:
    count = sum(map(len, lengths))
    if count == 1:
        return ("two clips or more are wanted, as neighbours are looked for in others; in this one no cut was found "
                "(--cuts SHARE finds more where it is smaller)")  # fmt: skip
    return (f"two uncut pieces or more are wanted, as neighbours are looked for in others; of {count} only one holds "
            f"frames {gap} apart: a smaller --gap, or fewer cuts by --cuts")  # fmt: skip


def _runs(
    clip: Clip, lengths: list[int], gap: int, boxes: Boxes | None, size: int
) -> list[tuple[Tensor, int, list[str]]]:
    """Uncut pieces of a clip longer than the gap, or its regions that are seen so long, as uint8 [T,C,S,S]; where the
    piece begins; and names."""
    found, start = [], 0
    for length in lengths:
        inside, start = range(start, start + length), start + length
        if length <= gap:
            continue
        if boxes is None:
            x = torch.from_numpy(np.stack([square(clip.frames[i].numpy(), size) for i in inside]))
            found.append((x, inside[0], [f"{clip.name}/{clip.names[i]}" for i in inside]))
            continue
        for number, track in enumerate(regions_of(clip, inside, boxes, gap)):
            x = crop_boxes(clip.frames, track.frames, track.boxes, size)
            names = [f"{clip.name}/{clip.names[i]}#{number}" for i in track.frames.tolist()]
            found.append((x, inside[0], names))
    return found


def _natural_size(clips: list[Clip]) -> int:
    side = int(np.median([min(clip.frames.shape[2:]) for clip in clips]))
    return max([s for s in SIZES if s <= side], default=SIZES[0])
