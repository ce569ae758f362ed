"""A ledger with the trials of one small claim, and the entry that a check of it would return."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from precis.lab.hypotheses import AtLeast, Greater
from precis.lab.ledger import Ledger, Trial
from precis.lab.words import fields_of

ARMS = {"siren": 31.0, "relu": 21.9, "relu_pe": 27.4, "siren_shuffled": 12.0}
BROKEN = {"siren_shuffled": "siren"}
SEEDS = range(5)
KEY = "{arm}-{seed}-key"


def picture(arm: str, seed: int, size: int = 48) -> bytes:
    y, x = np.mgrid[0 : 1 : size * 1j, 0 : 1 : size * 1j]
    pixels = 0.5 + 0.5 * np.sin(12 * x + seed) * np.cos({"siren": 14, "relu": 3}.get(arm, 8) * y)
    out = io.BytesIO()
    Image.fromarray((pixels * 255).astype(np.uint8)).save(out, "PNG")
    return out.getvalue()


def psnr(arm: str, seed: int) -> float:
    return ARMS[arm] + [0.0, 0.7, -0.4, 1.1, -0.8][seed] + 0.3 * ((seed * 7 + len(arm)) % 3 - 1)


def fill(home: Path, scratch: Path) -> list[str]:
    """Write the trials; return their keys."""
    keys = []
    with Ledger(home) as ledger:
        for arm in ARMS:
            for seed in SEEDS:
                folder = scratch / f"{arm}-{seed}"
                folder.mkdir(parents=True)
                (folder / "reconstruction.png").write_bytes(picture(arm, seed))
                (folder / "target.png").write_bytes(picture("target", seed))
                steps = list(range(0, 301, 30))
                record = {
                    "curves": {"psnr by step": {"x": steps, "y": [psnr(arm, seed) - 18 * 0.99**s for s in steps]}},
                    "scalars": {"loss": {"x": steps, "y": [10 ** (-s / 60) * (1 + seed) for s in steps]}},
                    "images": [
                        {"name": "reconstruction", "file": "reconstruction.png", "step": None},
                        {"name": "target", "file": "target.png", "step": None},
                    ],
                    "tables": {"by frequency": [{"band": "low", "error": 0.01}, {"band": "high", "error": 0.2}]},
                    "notes": ["aligned by mean before the PSNR"],
                }
                keys.append(KEY.format(arm=arm, seed=seed))
                ledger.add(
                    Trial(
                        keys[-1],
                        "siren",
                        "fits",
                        "fits",
                        arm,
                        seed,
                        "quick",
                        {"size": 48, "width": 64},
                        "datahash",
                        "sourcehash",
                        "cpu",
                        {"psnr": psnr(arm, seed)},
                        record,
                        2.5,
                        310.0,
                        {"python": "3.11", "torch": "2.13.0"},
                        "box: Linux, 2 cores",
                        "2026-01-02T03:04:05+00:00",
                    ),
                    folder,
                )
    return keys


def entry(keys: list[str] | None = None, **changes: Any) -> dict[str, Any]:
    metrics = {arm: {str(s): {"psnr": psnr(arm, s), "seconds": 2.5 + s / 10} for s in SEEDS} for arm in ARMS}
    beats = Greater("psnr", "siren", "relu", by=3.0)
    level = AtLeast("psnr", "siren", 25.0, counts=False)
    row = {"n": 5, "note": "", "unit": "seed", "counts": True, "sabotaged": None, "hypothesis": fields_of(beats)}
    found: dict[str, Any] = {
        "id": "siren/fits",
        "statement": "A sine network fits an image, with $\\omega = 30$, better than ReLU does.",
        "verdict": "supported",
        "reason": "all 1 hypotheses hold",
        "ran": True,
        "profile": "quick",
        "scale": "48×48, width 64, 300 steps",
        "n": 5,
        "alpha": 0.05,
        "hypotheses": [
            {**row, "text": "psnr of siren above relu by 3", "effect": 9.1, "interval": [8.31, 9.92], "holds": True},
            {
                **row,
                "text": "psnr of siren above relu by 3, with siren_shuffled in place of siren",
                "effect": -9.9,
                "interval": [-10.4, -9.4],
                "holds": False,
                "sabotaged": BROKEN,
            },
            {
                **row,
                "text": "psnr of siren at least 25",
                "effect": 31.0,
                "interval": [29.9, 32.1],
                "holds": True,
                "counts": False,
                "hypothesis": fields_of(level),
            },
        ],
        "preconditions": [
            {
                "text": "psnr of relu at least 15 in every seed",
                "effect": 21.0,
                "holds": True,
                "n": 5,
                "note": "",
                "why": "the baseline was not fitted",
            }
        ],
        "seconds": 50.0,
        "arms": ["siren", "relu", "relu_pe"],
        "sabotaged": BROKEN,
        "seeds": list(SEEDS),
        "metrics": metrics,
        "tuned": {"siren": {"lr": 1e-4}, "relu": {"lr": 1e-3}},
        "settings": {"size": 48, "width": 64, "steps": 300},
        "cuda_settings": False,
        "data": None,
        "device": "cpu",
        "versions": {"python": "3.11", "torch": "2.13.0"},
        "host": "box: Linux x86_64, 2 cores",
        "untried": "Only one photograph of $48^2$ pixels; the paper fits $512^2$.",
        "keys": keys or [],
        "tuning_keys": [],
        "source": "sourcehash",
        "finished": "2026-01-02T03:04:05+00:00",
        "command": "precis check siren/fits --profile quick --device cpu",
        "failures": [],
    }
    return {**found, **changes}


def not_run(**changes: Any) -> dict[str, Any]:
    return entry(
        **{
            "id": "siren/sdf",
            "verdict": None,
            "reason": "has no profile quick: full",
            "ran": False,
            "scale": "",
            "n": 0,
            "hypotheses": [],
            "preconditions": [],
            "seeds": [],
            "metrics": {},
            "tuned": {},
            "keys": [],
            "settings": None,
            "statement": "A sine network recovers a shape better.",
            "sabotaged": {},
            **changes,
        }
    )
