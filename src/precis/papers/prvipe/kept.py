"""Embedders that were trained on made poses, kept in the home folder for the next run of the same settings.

A folder each, `$PRECIS_HOME/prvipe/<key>`: the key is a digest of the settings, of the source that trains, and of
torch's version, so that no embedder is taken for another.  A folder is written whole or not at all.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from precis.contrastive.prvipe import MatchingSigmoid, PoseEmbedder
from precis.errors import InputError, RunFailed
from precis.lab.ledger import home
from precis.papers.work import write_json, writing
from precis.train.checkpoint import load_model, save_model

TRAINED_ON = "trained_on.json"
MADE = "made poses"
# What decides the weights: of precis, by path.
SOURCES = (
    "papers/prvipe/embedding.py", "papers/prvipe/training.py", "contrastive/prvipe.py", "contrastive/prvipe_loss.py",
    "contrastive/prvipe_keypoints.py", "contrastive/prvipe_alignment.py", "data/poses.py", "train/loop.py",
    "train/schedule.py",
)  # fmt: skip

Pair = tuple[PoseEmbedder, MatchingSigmoid]


def place_of(settings: Mapping[str, Any]) -> Path:
    """The folder of the embedder of these settings, whether it is there or not."""
    root = Path(__file__).parents[2]
    code = [hashlib.sha256((root / name).read_bytes()).hexdigest() for name in SOURCES]
    whole = json.dumps([dict(settings), code, torch.__version__], sort_keys=True)
    return home() / "prvipe" / hashlib.sha256(whole.encode()).hexdigest()[:24]


def save_pair(folder: Path, pair: Pair, config: Mapping[str, Any], trained_on: str) -> None:
    """An embedder and its sigmoid, and what they were trained on."""
    save_model(folder, pair[0], config)
    save_model(folder, pair[1], {}, name="sigmoid")
    write_json(folder / TRAINED_ON, {"trained_on": trained_on})


def load_pair(folder: Path) -> Pair:
    """InputError where it is none, damaged, or holds numbers that are not finite."""
    embedder, sigmoid = load_model(folder), load_model(folder, name="sigmoid")
    if not isinstance(embedder, PoseEmbedder) or not isinstance(sigmoid, MatchingSigmoid):
        raise InputError("this folder holds no pose embedder", file=folder)
    if not all(bool(p.isfinite().all()) for net in (embedder, sigmoid) for p in _floats(net)):
        raise InputError("its weights are not finite", file=folder)
    return embedder, sigmoid


def keep(folder: Path, pair: Pair, config: Mapping[str, Any]) -> None:
    """Put the pair there for later runs, in place of what is there.  A folder that cannot be written is no matter."""
    try:
        with writing(folder) as beside:
            beside.mkdir()
            save_pair(beside, pair, config, MADE)
            if folder.exists():
                shutil.rmtree(folder)
    except (OSError, RunFailed):
        return


def seen_no_motion(folder: Path) -> bool | None:
    """Whether the embedder of a run was trained on made poses; None where nothing says so."""
    try:
        found = json.loads((folder / TRAINED_ON).read_text(encoding="utf-8"))
        return bool(found["trained_on"] == MADE)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    try:  # a run from before that file was written: its options say it
        settings = json.loads((folder / "result.json").read_text(encoding="utf-8"))["settings"]
        return settings["train"] is None and settings["model"] is None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _floats(net: nn.Module) -> list[torch.Tensor]:
    return [t for t in net.state_dict().values() if t.is_floating_point()]
