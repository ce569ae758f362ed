"""Claims about clips: the partner of a frame is a later frame."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from precis.contrastive.invariance import frame_pairs
from precis.lab.claim import Claim, Metrics, Profile, Recorder
from precis.lab.hypotheses import Equivalent, Greater
from precis.papers.contrastive_training import make_encoder

from .arms import change_set, made_clips, scores, train_moco
from .claims_factors import FULL, FULL_GPU, FULL_SCALE, PROFILES, SMOKE

JUDGED = ("viewpoint", "deformation", "light_dir", "occlusion")
CLIPS_SCALE = "24×24, 100 clips of 20 frames, 24 to 192 channels, 60 steps of 2×128"


class _Clips(Claim):
    """The same frames in every arm, half of the pairs turned round: which is the query, the earlier or the later."""

    runs = "clips"

    def load(self, settings: Any, source: Path | None) -> Any:
        frames = torch.from_numpy(made_clips(settings).frames).flatten(0, 1)
        return frames, [change_set(settings, factor) for factor in JUDGED]

    def trial(self, arm: str, seed: int, settings: Any, data: Any, record: Recorder) -> Metrics:
        s, frames = settings, data[0]
        if arm == "random":
            return scores(s, make_encoder(s, frames, record.streams["init"]), JUDGED, record)
        pairs = frame_pairs([s.frames] * s.clips, s.gap)
        turned = torch.rand(len(pairs), generator=record.streams["data"]) < 0.5
        pairs = torch.where(turned[:, None], pairs.flip(1), pairs)
        partner = pairs[:, 0] if arm == "same" else pairs[:, 1]
        if arm == "crossed":  # pairs stand clip after clip: whole clips on, so that none keeps its own
            partner = partner.roll((s.frames - s.gap) * (1 + seed % (s.clips - 1)))
        net, loss = train_moco(s, frames[pairs[:, 0]], frames[partner], record, fitted=frames)
        return scores(s, net, JUDGED, record) | {"loss": loss}


class FrameTemporal(_Clips):
    """Score for changes of the view, as in `other_factors`, after training on clips of one object around which camera
    and light go, and which bends (`deform=0.5`); the partner is the frame eight later (of 20), or the frame itself.

    No margin.  In the broken arm the later frame is one of another clip.
    """

    name = "fti"
    statement = "Pairs of frames give more invariance to viewpoint than pairs of views of the same frame."
    arms = ("frames", "same", "random")
    sabotaged = {"crossed": "frames"}
    profiles = {**PROFILES, "quick": Profile(PROFILES["quick"].settings, seeds=3, scale=CLIPS_SCALE)}
    hypotheses = (
        Greater("viewpoint", "frames", "same"),
        Greater("viewpoint_more", "frames", "same", counts=False),
        Greater("light_dir", "frames", "same", counts=False),
        Greater("occlusion", "frames", "same", counts=False),
        Greater("viewpoint", "frames", "random", counts=False),
    )
    untried = "TrackingNet's videos with 60 frames between partners, other gaps, and cuts inside of clips."


class Deformation(_Clips):
    """The nets of `fti`, scored on objects bent in other ways (by 0.5: an eighth of their size on the mean).

    No margin.  In the broken arm the later frame is one of another clip.
    """

    name = "fti_deformation"
    statement = "Pairs of frames give more invariance to deformation than pairs of views of the same frame."
    arms = ("frames", "same", "random")
    sabotaged = {"crossed": "frames"}
    profiles = FrameTemporal.profiles
    hypotheses = (
        Greater("deformation", "frames", "same"),
        Greater("deformation_more", "frames", "same", counts=False),
        Greater("deformation", "frames", "random", counts=False),
    )
    untried = "Real things that bend: animals, people, cloth."


class Still(_Clips):
    """The control of `fti` and `fti_deformation`: clips in which nothing moves or bends.  Within 3 points.

    The pairs are then the same pictures, so that a difference would be one of the arms' making.
    """

    name = "still"
    statement = "Where nothing moves, pairs of frames give the invariances of pairs of the same frame."
    runs = "still"
    arms = ("frames", "same")
    profiles = {
        "smoke": Profile(replace(SMOKE, moving=False), seeds=2, scale="8 clips of 6 frames"),
        "full": Profile(
            replace(FULL, moving=False), seeds=3, scale=FULL_SCALE, cuda=replace(FULL_GPU, moving=False),
        ),
    }  # fmt: skip
    hypotheses = (
        Equivalent("viewpoint", "frames", "same", within=3), Equivalent("deformation", "frames", "same", within=3),
    )  # fmt: skip
    untried = "Clips with noise that changes from frame to frame."
