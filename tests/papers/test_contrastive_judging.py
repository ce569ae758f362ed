"""What a representation is judged by: few labels, all labels, neighbours."""

import torch
from torch import nn

from precis.papers.contrastive_judging import judge, judge_encoder
from precis.papers.contrastive_sets import Setting, load_pool

SMALL = Setting(train=120, test=60, batch=32, steps=2, encoder="conv:4x2")
POOL = load_pool(SMALL, None)


def test_judging_is_of_the_few_labels_that_it_says():
    g = torch.Generator().manual_seed(0)
    h = 3 * torch.eye(10)[POOL.labels] + 0.1 * torch.randn(120, 10, generator=g)
    test = 3 * torch.eye(10)[POOL.test_labels] + 0.1 * torch.randn(60, 10, generator=g)
    assert judge(SMALL, POOL, h, test) == {"accuracy": 100.0, "accuracy_all": 100.0, "knn": 100.0}
    noise = torch.randn(60, 10, generator=g)
    assert judge(SMALL, POOL, h, noise)["accuracy"] < 40


def test_h_is_the_encoder_s_and_z_is_what_the_head_makes_of_it():
    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = nn.Flatten()

        def forward(self, x):
            h = self.encoder(x)
            return h, torch.zeros(len(h), 2) + torch.arange(2)

    flat = lambda x: x.flatten(1).float() / 255
    assert judge_encoder(SMALL, POOL, Model()) == judge(SMALL, POOL, flat(POOL.images), flat(POOL.test_images))
    assert judge_encoder(SMALL, POOL, Model(), layer="z")["accuracy_all"] < 30
