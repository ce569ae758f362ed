"""What the numbers of a pruned network mean, a line each: those that every job which exports one has."""

NETS = {
    "pruned": "the pruned network with its zeros in place", "dense": "the dense network",
    "compact": "the network of compact.pt2", "csr": "the pruned network as sparse rows (CSR)",
}  # fmt: skip

NUMBERS = {
    "accuracy": "share of the test examples that the pruned network gets right (0 to 1)",
    "accuracy_dense": "share that the dense network gets right (0 to 1)",
    "change_points": "accuracy less accuracy dense (percentage points)",
    "change_low": "lower end of its 95 % interval, by drawing examples anew (percentage points)",
    "change_high": "upper end of its 95 % interval (percentage points)",
    "mcnemar_p": "chance of at least such a difference if both were equally good, by McNemar's exact test (0 to 1)",
    "density": "share that is left of the weights that could be removed (0 to 1)",
    "compression": "weights that could be removed over those that are left, as papers quote it: without their places",
    "bytes_dense": "the network's tensors without any compression (bytes)",
    "bytes_dense_deflated": "those of the dense network deflated (bytes)",
    "bytes_compressed": "tensors of compressed.safetensors: a bit for each weight, those that are left, all others "
                        "(bytes)",
    "bytes_deflated": "the same deflated (bytes)",
    "bytes_entropy_bound": "4 for each weight that is left, the least that their places take, and all other tensors "
                           "(bytes)",
    "parameters_compact": "parameters of compact.pt2; without that file, of the whole network, zeros counted",
    "macs_dense": "multiply–accumulates of the dense network for one example",
    "macs_compact": "the same of compact.pt2 (not given: there is none)",
    **{f"ms_{name}_{batch}": f"median time for a batch of {batch} on this CPU, {words} (ms)"
       for batch in (1, 64) for name, words in NETS.items()},
}  # fmt: skip
