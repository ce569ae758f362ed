"""What the numbers of Pr-VIPE's runs mean, a line each, for the table in `report.md`."""

NUMBERS = {
    "alignment_cost": "mean distance of embeddings along the path that aligns the two sequences (in units of the "
                      "embedding)",
    "hit1": "rows whose nearest shows the same pose, of those whose pose is in another row that is searched (%)",
    "hit10": "rows with one such among the ten nearest (%)",
    "poses": "rows of INPUT that were embedded",
    "mean_std": "mean spread that the embedder gives a pose: geometric mean of its dimensions (in units of the "
                "embedding; high: unsure)",
}  # fmt: skip
