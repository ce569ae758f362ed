"""What the numbers of invariance's runs mean, a line each, for the table in `report.md`."""

from precis.papers.contrastive_numbers import NUMBERS as CONTRASTIVE

CHANGES = ("occlusion", "viewpoint", "instance", "light_dir", "light_colour", "deformation")

NUMBERS = CONTRASTIVE | {change: "score for this change alone (%)" for change in CHANGES}
