"""Pictures of an embedding: a gallery of neighbours, a map of dots, and a map of the pictures themselves."""

import io

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from precis.lab.figures import Chart, contact_sheet
from precis.papers.contrastive_pictures import Pictures

SHOWN, ACROSS, ABREAST = 24, 8, 2  # queries of the gallery, neighbours of each, queries in a row
TSNE_LIMIT = 20_000
GRID = (24, 15)  # cells of the map of pictures
PANEL = (440.0, 330.0)  # points that the map of dots measures
RIGHT, WRONG, PLAIN = (0, 158, 115), (204, 79, 10), (200, 203, 208)
ASKED = (20, 20, 20)  # the frame of a picture whose neighbours follow


def gallery(p: Pictures, index: np.ndarray, rng: np.random.Generator) -> bytes:
    """Some pictures, held-out ones if there are any, and the nearest of each [N,k]; frames: same class or another."""
    pool = np.flatnonzero(p.held) if p.held.any() else np.arange(len(index))
    chosen = np.sort(rng.permutation(pool)[:SHOWN])
    across, abreast = min(ACROSS, index.shape[1]), min(ABREAST, len(chosen))
    labels, tiles = p.labels.numpy(), []
    for i in chosen[: len(chosen) // abreast * abreast]:
        tiles.append(framed(p.images[i], ASKED))
        for j in index[i, :across]:
            known = labels[i] >= 0 and labels[j] >= 0
            tiles.append(framed(p.images[j], PLAIN if not known else RIGHT if labels[i] == labels[j] else WRONG))
    marks = ["picture", *[f"{r + 1}." for r in range(across)]]
    return contact_sheet(tiles, columns=abreast * (across + 1), header=abreast * marks, size=72, gap=6)


def framed(image: Tensor, colour: tuple[int, int, int]) -> np.ndarray:
    """uint8 [C,S,S] in colour, enlarged by a whole factor to about 64 pixels, in a frame of 4."""
    x = image.expand(3, -1, -1).numpy()
    factor = max(1, round(64 / x.shape[1]))
    x = x.repeat(factor, 1).repeat(factor, 2)
    out = np.empty((3, x.shape[1] + 8, x.shape[2] + 8), np.uint8)
    out[:] = np.array(colour, np.uint8)[:, None, None]
    out[:, 4:-4, 4:-4] = x
    return out


def shortened(name: str, most: int) -> str:
    """At most so many characters, the last of them … if some are missing."""
    return name if len(name) <= most else name[: most - 1] + "…"


def places(h: Tensor, seed: int) -> tuple[np.ndarray, str]:
    """Places in a plane [N,2], and how they were found: t-SNE of the first 50 principal components of the directions,
    begun at the first two; above 20,000 pictures (or below 10) these two themselves."""
    from sklearn.manifold import TSNE

    x = F.normalize(h.double().cpu(), dim=1)
    x = x - x.mean(0)
    u, s, _ = torch.linalg.svd(x, full_matrices=False)
    scores = (u * s)[:, : min(50, len(s))].numpy()
    scores = np.pad(scores, ((0, 0), (0, max(0, 2 - scores.shape[1]))))
    n, width = len(scores), scores[:, 0].std()
    if n > TSNE_LIMIT or n < 10 or width < 1e-9:
        return scores[:, :2], "two principal components"
    found = TSNE(2, perplexity=min(30, (n - 1) / 3), init=scores[:, :2] / width * 1e-4, random_state=seed)
    return np.asarray(found.fit_transform(scores)), "t-SNE"


def dots(p: Pictures, place: np.ndarray, how: str) -> bytes:
    """The map as dots, coloured by class where there are up to twenty, whose names stand at their middles."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure
    from matplotlib.patheffects import withStroke

    figure = Figure(figsize=(6.4, 5), layout="constrained")
    axes = figure.add_subplot()
    labels, few = p.labels.numpy(), 1 < len(p.classes) <= 20
    groups = {c: labels == c for c in range(len(p.classes))} if few else {}
    rest = labels < 0 if few else np.ones(len(place), bool)
    if rest.any():
        axes.scatter(place[rest, 0], place[rest, 1], s=7, color="#8a8a8a", alpha=0.6, linewidths=0)
    colours = colormaps["tab10" if len(p.classes) <= 10 else "tab20"]
    shown = {c: inside for c, inside in groups.items() if inside.any()}
    for c, inside in shown.items():
        axes.scatter(place[inside, 0], place[inside, 1], s=7, color=colours(c), alpha=0.8, linewidths=0)
    if shown:
        corner = np.array([axes.get_xlim()[0], axes.get_ylim()[0]])
        unit = (np.array([axes.get_xlim()[1], axes.get_ylim()[1]]) - corner) / PANEL  # of the data a point
        names = [shortened(p.classes[c], 20) for c in shown]
        middles = np.stack([np.median(place[inside], 0) for inside in shown.values()])
        moved = pushed_apart((middles - corner) / unit, [(7.0 * len(name) + 2, 13.0) for name in names]) * unit + corner
        for c, name, at, middle in zip(shown, names, moved, middles):
            if np.linalg.norm((at - middle) / unit) > 12:  # a line leads back to where the class is
                axes.plot(*np.stack([at, middle]).T, color=colours(c), linewidth=0.8)
            axes.text(at[0], at[1], name, ha="center", va="center", fontsize=10, weight="bold", color=colours(c),
                      path_effects=[withStroke(linewidth=2.5, foreground="white")])  # fmt: skip
        axes.set_xlim(corner[0], corner[0] + PANEL[0] * unit[0])
        axes.set_ylim(corner[1], corner[1] + PANEL[1] * unit[1])
    axes.set_xticks([])
    axes.set_yticks([])
    axes.set_title(f"{how} of the embedding: near is alike", fontsize=10)
    return Chart(figure, f"map of {len(place)} pictures by {how}").png()


def pushed_apart(middles: np.ndarray, sizes: list[tuple[float, float]], rounds: int = 300) -> np.ndarray:
    """Middles [N,2] of boxes, moved as little as it takes for none to cover another, and into the panel (points)."""
    at, size = middles.astype(float).copy(), np.array(sizes)
    low = np.minimum(size / 2, np.array(PANEL) / 2)
    for _ in range(rounds):
        still = True
        for i in range(len(at)):
            for j in range(i):
                lap = (size[i] + size[j]) / 2 - np.abs(at[i] - at[j])
                if (lap > 0.01).all():
                    axis = int(lap.argmin())
                    way = 1.0 if at[i, axis] >= at[j, axis] else -1.0
                    at[i, axis] += way * (lap[axis] / 2 + 0.1)
                    at[j, axis] -= way * (lap[axis] / 2 + 0.1)
                    still = False
        at = np.clip(at, low, np.array(PANEL) - low)
        if still:
            break
    return at


def mosaic(images: Tensor, place: np.ndarray) -> bytes:
    """The map with pictures: in each cell of a grid the one nearest to its middle, and white where there is none."""
    from PIL import Image

    columns, rows = GRID
    low, high = np.percentile(place, 0.5, axis=0), np.percentile(place, 99.5, axis=0)
    at = (place - low) / np.maximum(high - low, 1e-12) * (columns, rows)
    cell = np.floor(at).astype(int)
    side = max(40, min(64, images.shape[2]))
    sheet = Image.new("RGB", (columns * (side + 2), rows * (side + 2)), "white")
    done: set[tuple[int, int]] = set()
    for i in np.argsort(np.linalg.norm(at - cell - 0.5, axis=1)):
        x, y = int(cell[i, 0]), int(cell[i, 1])
        if (x, y) in done or not (0 <= x < columns and 0 <= y < rows):
            continue
        done.add((x, y))
        tile = Image.fromarray(images[i].expand(3, -1, -1).permute(1, 2, 0).numpy())
        grown = Image.Resampling.NEAREST if tile.width < side else Image.Resampling.BOX
        sheet.paste(tile.resize((side, side), grown), (x * (side + 2) + 1, (rows - 1 - y) * (side + 2) + 1))
    out = io.BytesIO()
    sheet.save(out, "PNG")
    return out.getvalue()
