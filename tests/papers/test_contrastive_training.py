"""What the contrastive papers train alike: views, and the loop."""

from dataclasses import replace

import pytest
import torch
from tests.papers.runs import record
from torch import nn

from precis.papers.contrastive_sets import Setting
from precis.papers.contrastive_training import fit_arm, head_on, make_encoder, make_views, views_of

SMALL = Setting(batch=4, steps=20, lr=1e-2)


def test_the_two_parts_of_a_composition_add_up():
    both, crop, colour = (views_of("simclr", 16, kind) for kind in ("both", "crop", "colour"))
    assert (both.crop, both.jitter, both.grey_p, both.flip) == (crop.crop, colour.jitter, colour.grey_p, crop.flip)
    assert crop.jitter is None and crop.grey_p == 0 and colour.crop is None and both.blur_p == 0


def test_views_of_a_picture_stand_one_behind_the_other_and_are_drawn_in_one_go():
    x = torch.arange(3, dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 1, 8, 8) * 60
    seen = []
    a, b = make_views(x, lambda pictures, generator: seen.append(pictures) or pictures, torch.Generator())
    assert len(seen) == 1 and a.dtype == torch.float32 and torch.equal(a, b)
    torch.testing.assert_close(a[:, 0, 0, 0], torch.tensor([0, 60, 120]) / 255)
    views = views_of("glyph", 8)
    three = make_views(x, views, torch.Generator().manual_seed(0), 3)
    assert len(three) == 3 and three[0].shape == x.shape and not torch.equal(three[0], three[1])


def test_the_encoder_is_fitted_to_the_pictures_and_takes_those_of_the_setting_s_size():
    x = torch.randint(0, 256, (6, 3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    s = replace(SMALL, size=16, encoder="mlp:5")
    net = make_encoder(s, x, torch.Generator().manual_seed(0))
    assert net.features(x[:2, :, :16, :16]).shape == (2, 5)
    assert float(net.input.mean) == pytest.approx(float(x.float().mean() / 255), abs=1e-4)
    assert head_on(net, torch.Generator(), dim_out=7, layers=1)(torch.zeros(2, 5)).shape == (2, 7)


def line(s: Setting, tmp_path, arm: str, **options) -> tuple[dict, nn.Linear, list[torch.Tensor]]:
    """A line through two numbers, fitted by the loop."""
    kept, seen = record(tmp_path, arm, **options.pop("tuned", {})), []
    model = nn.Linear(1, 1)
    with torch.no_grad():
        model.weight.zero_()
        model.bias.zero_()

    def loss(chosen: torch.Tensor) -> dict[str, torch.Tensor]:
        seen.append(chosen)
        error = (model(chosen[:, None].float()) - 1).square().mean()
        return {"loss": error, "twice": 2 * error}

    fit_arm(s, model, loss, 10, kept, **options)
    return kept.summary()["curves"], model, seen


def test_an_arm_takes_batches_steps_and_rate_of_its_setting_and_keeps_its_curves(tmp_path):
    curves, _, seen = line(SMALL, tmp_path, "a", suffix=", here")
    assert len(seen) == 20 and {len(chosen) for chosen in seen} == {4} and len(seen[0].unique()) == 4
    assert set(curves) == {"loss, here", "twice, here"} and curves["loss, here"]["y"][-1] < curves["loss, here"]["y"][0]
    again, _, same = line(SMALL, tmp_path, "b")
    assert again["loss"]["y"] == curves["loss, here"]["y"] and all(torch.equal(p, q) for p, q in zip(seen, same))
    tuned, _, _ = line(SMALL, tmp_path, "c", tuned={"lr": 1e-12})
    assert tuned["loss"]["y"][-1] > 0.999
    other = line(SMALL, tmp_path, "d", order=torch.Generator().manual_seed(5))[2]
    assert not all(torch.equal(p, q) for p, q in zip(seen, other))


def test_the_rate_rises_over_the_share_that_is_asked_for(tmp_path):
    early, late = (line(SMALL, tmp_path, str(rise), rise=rise)[0]["loss"]["y"] for rise in (0.05, 0.9))
    assert early[0] == late[0] and all(a < b for a, b in zip(early[3:], late[3:]))
