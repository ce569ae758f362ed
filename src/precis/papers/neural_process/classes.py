"""Classes told apart from few examples: what a class is, and the network, as the claim and the job use them."""

import numpy as np
import torch
from torch import Tensor

from precis.data.imageset import ImageSet
from precis.fields.neural_process_few_shot import ConvEmbed, FewShotCNP


def make_few_shot(channels: int, size: int, ways: int, width: int, generator: torch.Generator) -> FewShotCNP:
    """Convolutions of `width` channels, a code of 2 × width, a head of two layers of 256."""
    return FewShotCNP(ConvEmbed(channels, size, width, generator), ways, (256, 256), generator)


def quarter_turns(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Pictures [N,C,S,S] turned by 0, 90, 180 and 270 degrees, each a class of its own."""
    turned = torch.cat([images.rot90(k, (2, 3)) for k in range(4)])
    classes = int(labels.max()) + 1
    return turned, torch.cat([torch.where(labels < 0, labels, labels + k * classes) for k in range(4)])


def class_labels(found: ImageSet) -> np.ndarray | None:
    """The class of each picture, −1 without one; in nested folders (alphabet/character/…) the innermost folder."""
    folders = [name.rpartition("/")[0] for name in found.names]
    if any("/" in folder for folder in folders) or (found.labels is None and len(set(folders)) > 1):
        return np.unique(folders, return_inverse=True)[1].astype(np.int64)
    return found.labels
