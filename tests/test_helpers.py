"""The common check must pass what is sound and catch each kind of fault."""

import pytest
import torch
from tests.helpers import check_component
from torch import nn

from precis.nn.stacked import StackedMLP, generators

X = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))


class Sound(nn.Module):
    def __init__(self, generator):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 2, generator=generator))
        self.register_buffer("offset", torch.ones(2))

    def forward(self, x):
        return x @ self.weight + self.offset


class Mixes(Sound):
    def forward(self, x):
        return super().forward(x - x.mean(0))


class Ordered(Sound):
    def forward(self, x):
        return super().forward(x) + torch.arange(len(x)).to(x)[:, None]


class Narrows(Sound):
    def forward(self, x):
        return super().forward(x).float()


class Modifies(Sound):
    def forward(self, x):
        return super().forward(x.mul_(2))


class Forgets(Sound):
    def __init__(self, generator):
        super().__init__(generator)
        self.hidden = torch.randn(3, 2, generator=generator)

    def forward(self, x):
        return x @ self.hidden.to(x) + super().forward(x)


class Global(Sound):
    def __init__(self, generator):
        super().__init__(generator)
        nn.init.normal_(self.weight)


class Constant(Sound):
    def __init__(self, generator):
        super().__init__(torch.Generator().manual_seed(0))


class Random(Sound):
    def forward(self, x):
        return nn.functional.dropout(super().forward(x), 0.5, training=True)


class Counts(Sound):
    def forward(self, x):
        self.offset += 1
        return super().forward(x) - self.offset


class Cut(Sound):
    def forward(self, x):
        return super().forward(x.detach()).detach()


class Breaks(Sound):
    def forward(self, x):
        return (super().forward(x) * 0).sqrt() + super().forward(x)


def test_a_sound_component_passes(tmp_path):
    check_component(Sound, X, tmp_path=tmp_path)
    stack = lambda g: StackedMLP(2, [3, 4, 1], layer_norm=True, generators=[g, g])
    check_component(stack, X.expand(2, 5, 3), batch_dim=1)
    shared = lambda g: StackedMLP(2, [3, 4, 1], generators=generators([g.initial_seed(), 9]))
    check_component(shared, X, call=lambda net, x: {"y": net(x).transpose(0, 1)})


@pytest.mark.parametrize(
    "fault, message, switch",
    [
        (Mixes, "alone give other", ("subset",)),
        (Ordered, "order of the batch|alone give other", ("subset", "order")),
        (Narrows, "gives torch.float32", ("dtype",)),
        (Modifies, "inputs were", ("unmodified", "deterministic", "subset", "order", "dtype", "seeded", "state")),
        (Forgets, "loaded into a fresh", ("state",)),
        (Global, "global random generator|same seed", ("seeded", "state")),
        (Constant, "another seed", ("seeded",)),
        (Random, "twice", ("deterministic", "subset", "order", "dtype", "seeded", "state")),
        (Counts, "buffer|twice", ("deterministic", "subset", "order", "dtype", "seeded", "state")),
        (Cut, "no output depends", ("gradient",)),
        (Breaks, "not finite", ("gradient",)),
    ],
)  # fmt: skip
def test_each_fault_is_caught_and_can_be_excused(fault, message, switch):
    with pytest.raises(AssertionError, match=message):
        check_component(fault, X.clone())
    check_component(fault, X.clone(), **dict.fromkeys(switch, False))
