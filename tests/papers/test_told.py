import csv

import pytest
import torch

from precis.papers.told import Predicted, tell_guessing, write_predictions
from precis.train.classify import score


@pytest.mark.parametrize(("right", "told"), [(60, 1), (95, 0)])
def test_an_accuracy_that_guessing_has_too_is_told(right, told):
    """Of 100 pictures 60 are of class 0, the most common."""
    truth = torch.tensor([0] * 60 + [1] * 40)
    said = truth.clone()
    said[right:] = 1 - said[right:]
    notes: list[str] = []
    tell_guessing(notes.append, score(said, truth, 2))
    assert len(notes) == told
    assert not told or "naming the most common class (60.0 %)" in notes[0]


def test_predictions_of_several_sets_are_one_table(tmp_path):
    logits = torch.tensor([[0.0, 3.0], [2.0, 0.0]])
    parts = [Predicted("validation", ["a", "b"], ["cat", "dog"], logits), Predicted("predict", ["c"], [""], logits[:1])]
    write_predictions(tmp_path / "p.csv", parts, ["cat", "dog"])
    rows = [tuple(r.values()) for r in csv.DictReader((tmp_path / "p.csv").open())]
    assert rows == [
        ("validation", "a", "cat", "dog", "0.9526"), ("validation", "b", "dog", "cat", "0.8808"),
        ("predict", "c", "", "dog", "0.9526"),
    ]  # fmt: skip
