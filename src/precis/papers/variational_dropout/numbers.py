"""What the numbers of variational dropout's runs mean, a line each, for the table in `report.md`."""

from precis.papers.pruning_numbers import NUMBERS as PRUNED

NUMBERS = PRUNED | {
    "kl_nats": "divergence of the noisy weights from their prior after training, summed, by the paper's approximation "
               "(nats)",
    "kl_weight": "weight of the divergence in the loss at the end (1: a variational bound)",
    "threshold": "log α from which on a weight was removed",
}  # fmt: skip
