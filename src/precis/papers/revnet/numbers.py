"""What the numbers of RevNet's runs mean, a line each, for the table in `report.md`."""

NETS = {"resnet": "ResNet", "checkpoint": "checkpointed ResNet", "revnet": "RevNet"}
UNITS = (1, 2, 4, 8, 16)

NUMBERS = {
    "accuracy": "share of the held-out pictures that are told right (0 to 1)",
    "accuracy_low": "lower end of its 95 % interval",
    "accuracy_high": "upper end of its 95 % interval",
    "MiB_kept_for_backward": "activations of a step that are kept for the backward pass (MiB)",
    "MiB_of_a_step": "memory of a whole step, with weights, gradients and momentum, by measurements at few pictures "
                     "(MiB)",
    "batch": "pictures a step",
    "units": "blocks a stage",
    "seconds_per_step": "mean time of a training step on this machine (s)",
    "steps": "training steps made",
    "reconstruction_error": "largest relative error of a block's input as it is rebuilt from the output (0: exact; not "
                            "given: no block is reversible)",
    "parameters": "weights and biases of the net",
    # --plan
    **{f"MiB_kept_{kind}_{n}_units": f"activations kept for the backward pass at --batch (else 64) pictures: {net}, "
                                     f"units a stage: {n} (MiB)" for kind, net in NETS.items() for n in UNITS},
    **{f"pictures_that_fit_{kind}_{n}_units": f"most pictures a step within --memory: {net}, units a stage: {n}"
       for kind, net in NETS.items() for n in UNITS},
}  # fmt: skip
