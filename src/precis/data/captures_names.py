"""Names of files that are written for the photographs of a scene, and masks of photographs that share a name."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from precis.data.captures import SceneFiles, cut_out, subset
from precis.errors import InputError


def file_names(names: Sequence[str]) -> list[str]:
    """A path without suffix for each photograph, no two alike, none that leads out of a folder: its stem or, where
    stems repeat (cam0/0000.png, cam1/0000.png), its path below the folder that all have in common."""
    parts = [[p for p in PurePosixPath(n.replace("\\", "/")).parts if p not in ("/", "..", ".")] for n in names]
    folders = [p[:-1] for p in parts]
    shared = len(os.path.commonprefix(folders))
    below = ["/".join(f[shared:] + [""]) for f in folders]
    last = [p[-1] for p in parts]
    stems = [PurePosixPath(name).stem for name in last]
    numbered = [f"{i:04d}_{stem}" for i, stem in enumerate(stems)]
    with_suffix = [name.replace(".", "_") for name in last]
    ways = [stems, *([b + s for b, s in zip(below, some)] for some in (stems, with_suffix, numbered))]
    return next(way for way in ways if distinct(way))


def distinct(names: Sequence[str]) -> bool:
    """Whether they can lie in one folder, also where letters' case does not count."""
    return len({name.casefold() for name in names}) == len(names)


def share_stems(names: Sequence[str]) -> bool:
    """Whether different photographs have the same stem, by which masks are found; one may be listed twice."""
    return not distinct([Path(name).stem for name in dict.fromkeys(names)])


def cut_out_each(scene: SceneFiles, folder: str | Path) -> SceneFiles:
    """As `cut_out`; where photographs share a name, their masks lie in sub-folders as they do (cam0/, cam1/)."""
    if not share_stems(scene.names):
        return cut_out(scene, folder)
    once = list(dict.fromkeys(scene.names))
    written = {name: PurePosixPath(made) for name, made in zip(once, file_names(once), strict=True)}
    groups: dict[PurePosixPath, list[int]] = {}
    for v, name in enumerate(scene.names):
        groups.setdefault(written[name].parent, []).append(v)
    images = list(scene.images)
    for parent, rows in groups.items():
        some, own = subset(scene, rows), Path(folder) / parent
        if share_stems(some.names) or not own.is_dir():
            words = "photographs share names: their masks must lie in sub-folders as they do"
            raise InputError(f"{words}, as in {written[some.names[0]]}.png", file=folder)
        for v, image in zip(rows, cut_out(some, own).images):
            images[v] = image
    return replace(scene, images=images)
