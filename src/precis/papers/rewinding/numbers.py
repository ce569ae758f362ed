"""What the numbers of rewinding's runs mean, a line each, for the table in `report.md`."""

from precis.papers.pruning_numbers import NUMBERS as PRUNED

WAYS = {"lr_rewind": "learning-rate rewinding", "weight_rewind": "weight rewinding", "fine_tune": "fine-tuning"}

NUMBERS = PRUNED | {
    "accuracy_before_retraining": "accuracy between the last pruning and its retraining (0 to 1)",
    "retraining_epochs": "epochs of retraining that went into the exported network",
    "search_epochs": "epochs of retraining spent in all, on every density and way of retraining",
    **{f"search_epochs_{way}": f"of these, spent on {words}" for way, words in WAYS.items()},
    **{f"accuracy_{way}": f"accuracy at the lowest density that was asked for, by {words} (0 to 1)"
       for way, words in WAYS.items()},
}  # fmt: skip
