"""What jobs that train a classifier leave behind and say alike: predictions, and whether they beat guessing."""

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from precis.papers.work import writing
from precis.train.classify import Accuracy


class Predicted(NamedTuple):
    """Pictures of one set: names, true classes ("" where unknown) and logits [N,K]."""

    set: str
    names: Sequence[str]
    labels: Sequence[str]
    logits: Tensor


def write_predictions(path: Path, parts: Iterable[Predicted], classes: Sequence[str]) -> None:
    """A CSV: set, name, label, predicted class and its probability."""
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(["set", "name", "label", "predicted", "probability"])
    for part in parts:
        for name, label, p in zip(part.names, part.labels, part.logits.softmax(1)):
            rows.writerow([part.set, name, label, classes[int(p.argmax())], f"{float(p.max()):.4f}"])
    with writing(path) as beside:
        beside.write_text(text.getvalue(), encoding="utf-8")


def tell_guessing(tell: Callable[[str], None], found: Accuracy) -> None:
    """Tells where the accuracy's interval reaches down to that of always naming the most common class."""
    counts = found.confusion.sum(1)
    share = float(counts.max() / counts.sum())
    if found.interval[0] <= share:
        tell(f"The accuracy is not clearly above that of always naming the most common class ({100 * share:.1f} %): "
             "give more --epochs, another --lr, or more pictures.")  # fmt: skip
