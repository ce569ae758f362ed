"""What the numbers of group normalisation's runs mean, a line each, for the table in `report.md`."""

NORMS = {"bn": "batch norm", "gn": "group norm", "ln": "layer norm", "in": "instance norm"}

NUMBERS = {
    "best_error": "lowest of the errors below (%); as the least of several it flatters",
    # The batch size follows, as in error_gn_4.
    **{f"error_{norm}": f"wrong answers on held-out pictures with {words} at that batch size, mean of the trainings (%)"
       for norm, words in NORMS.items()},
    "group_norm_inference_slowdown": "time to evaluate with group norm over that with batch norm folded away, measured "
                                     "here (1: as fast)",
    # --convert
    "accuracy_before": "share of held-out pictures that the net gets right as it was (0 to 1)",
    "accuracy_converted": "the same once converted, before any fine-tuning",
    "accuracy_batch_norm_tuned_at": "the same of the net as it was, fine-tuned at that batch size",
    "accuracy_group_norm_tuned_at": "the same of the converted net, fine-tuned at that batch size",
    "layers": "batch norms that were replaced",
    "foldable": "of them, those that could be folded into the layer before at inference",
    "parameters": "parameters of the converted net",
    "same_answer_held_out": "share of held-out pictures with the same answer before and after converting (0 to 1)",
    "relative_change_held_out": "size of the change of the outputs on them over that of the outputs before (0: none)",
}  # fmt: skip
