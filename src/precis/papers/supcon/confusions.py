"""The pairs of classes that a classifier confuses most, with pictures."""

import numpy as np
import torch
from torch import Tensor

from precis.lab.figures import contact_sheet
from precis.papers.contrastive_maps import PLAIN, RIGHT, WRONG, framed, shortened
from precis.papers.contrastive_pictures import Pictures

ROWS, ERRORS, EACH = 6, 4, 2  # pairs, pictures taken for the other class, right ones of either class


def confused_pairs(pictures: Pictures, tested: Tensor, said: Tensor) -> bytes | None:
    """PNG: for each of the most confused pairs, in whichever direction, the errors between two right pictures of both.

    tested [T]: places of the pictures; said [T]: the classifier's answers.  None where there is no error.
    """
    truth = pictures.labels[tested]
    n = len(pictures.classes)
    counts = torch.bincount(truth * n + said, minlength=n * n).view(n, n)
    both = (counts + counts.T).triu(1)
    order = both.flatten().argsort(descending=True, stable=True)[:ROWS]
    worst = order[both.flatten()[order] > 0].tolist()
    if not worst:
        return None
    blank = np.full_like(framed(pictures.images[0], PLAIN), 255)
    tiles: list[np.ndarray] = []
    names: list[str] = []
    for pair in worst:
        a, b = divmod(pair, n)
        ways = [tested[(truth == c) & (said == d)] for c, d in ((a, b), (b, a))]
        wrong = torch.cat([way[: ERRORS // 2] for way in ways] + [way[ERRORS // 2 :] for way in ways])
        right = [tested[(truth == c) & (said == c)] for c in (a, b)]
        for some, colour, wanted in ((right[0], RIGHT, EACH), (wrong, WRONG, ERRORS), (right[1], RIGHT, EACH)):
            sights = [framed(pictures.images[i], colour) for i in some[:wanted].tolist()]
            tiles += [*sights, *[blank] * (wanted - len(sights))]
        first, second = (shortened(pictures.classes[c], 18) for c in (a, b))
        names.append(f"{first} as {second}: {int(counts[a, b])}, {second} as {first}: {int(counts[b, a])}")
    head = [*["first class"] * EACH, *["taken for the other"] * ERRORS, *["second class"] * EACH]
    return contact_sheet(tiles, columns=2 * EACH + ERRORS, header=head, rows=names, size=72, gap=6)
