"""What the numbers of the contrastive papers' runs mean, a line each, for the table in `report.md`."""

HELD = "share of labelled held-out pictures"
ENDS = "end of the 95 % interval"

NUMBERS = {
    # With classes.
    "knn_accuracy": f"{HELD} whose class the vote of the k nearest training pictures gives (0 to 1)",
    "knn_low": f"of knn accuracy: lower {ENDS}",
    "knn_high": f"of knn accuracy: upper {ENDS}",
    "linear_accuracy": f"{HELD} told by a linear layer on the frozen features, its ridge chosen on training pictures "
                       "(0 to 1): the number to quote for clean pictures",
    "linear_low": f"of linear accuracy: lower {ENDS}",
    "linear_high": f"of linear accuracy: upper {ENDS}",
    "most_frequent": "share that always saying the most frequent class would get right: what to beat (0 to 1)",
    "predicted": "pictures without a label, for which predictions.csv gives one",
    # Without.
    "alignment": "mean squared distance of two views' projections on the unit sphere (0 to 4; low: near)",
    "uniformity": "log of the mean of exp(−2 d²) over pairs of features on the unit sphere (nats, at most 0; low: "
                  "spread out)",
    "uniformity_z": "the same of the projections that the loss sees",
    "effective_rank": "how many directions the features fill: exp of the entropy of their singular values (1 to the "
                      "width)",
    "spread_z": "deviation of normalised projections' coordinates × √width (1: even spread; below 0.05: collapsed)",
    "pictures": "pictures embedded, or attacked",
    "loss": "the loss at the last step (nats)",
    "steps": "training steps made",
    "batch": "pictures a step",
    # RoCL.
    "clean_accuracy": "share told right as they are, of the held-out pictures that are attacked, by the linear layer "
                      "whose robustness is measured: fixed ridge, so it may differ from linear accuracy (0 to 1)",
    "robust_accuracy": "of the same pictures and layer, share still right after the strongest attack (0 to 1)",
    "robust_20_steps": "the same after one attack of 20 steps, as in robustness.png (0 to 1)",
    "clean_accuracy_robust_layer": "as clean accuracy, of the robust layer: a linear layer fitted on attacked pictures",
    "robust_accuracy_robust_layer": "as robust accuracy, of the robust layer",
    "robust_20_steps_robust_layer": "as robust 20 steps, of the robust layer",
    "found_clean": "share of views whose nearest is the other view of their own picture (0 to 1)",
    "found_attacked": "the same when the view is attacked, at the full radius (0 to 1)",
    "eps": "radius of the attack in each value, of a range of 1",
    # CLAE.
    "negatives_cosine": "mean cosine of clean views of different pictures, at the end (−1 to 1; high: hard negatives)",
    "negatives_cosine_adversarial": "the same with views of the adversary",
    "clean_accuracy_attacked_layer": "share told right as they are, of at most 500 held-out pictures, by the layer "
                                     "that is attacked: fixed ridge, so it may differ from linear accuracy (0 to 1)",
    "attacked_accuracy": "of the same pictures and layer, share still right after 20 steps of an attack (0 to 1); the "
                         "method does not aim at it",
    # Debiased.
    "tau_plus": "τ⁺ of the loss: the chance that a random negative is of the anchor's own class (0 to 1)",
    "at_floor": "share of anchors whose corrected negatives are cut off at the least possible value and teach nothing "
                "(0 to 1)",
    "closest_same_class": "share of each picture's five closest negatives that are of its own class (0 to 1)",
    "class_prior": "share that would be if negatives were drawn at random: Σ of the squared class frequencies (0 to 1)",
    # SupCon.
    "ce_accuracy": f"{HELD} told by the network that cross-entropy trained on the same views, by its own last layer "
                   "(0 to 1)",
    "ce_low": f"of ce accuracy: lower {ENDS}",
    "ce_high": f"of ce accuracy: upper {ENDS}",
    "ce_linear_accuracy": f"{HELD} told by a layer fitted on that network's frozen features, as for linear accuracy "
                          "(0 to 1)",
    "ce_linear_low": f"of ce linear accuracy: lower {ENDS}",
    "ce_linear_high": f"of ce linear accuracy: upper {ENDS}",
    "ce_steps": "training steps of cross-entropy: as many, and those that show what the fitted layer was shown",
    "classified": "pictures that classified.csv names a class for",
    "mean_probability": "mean probability that the classifier gives its own answers (0 to 1)",
}  # fmt: skip
# The firing score of --measure.
NUMBERS |= {
    "score": "firing score of the first encoder, mean of all changes (%: how often the best units fire on the target)",
    "untrained": "the same of that network with its layers drawn anew (%)",
    "shuffled": "the same with targets permuted among base pictures, the mean of up to ten ways: chance (%)",
    "encoders": "encoders that were scored",
}
