import pytest
import torch

from precis.contrastive.lars import LARS


def test_two_steps_are_the_algorithm_s():
    w = torch.tensor([[3.0, 4.0]], dtype=torch.float64, requires_grad=True)
    b = torch.tensor([2.0], dtype=torch.float64, requires_grad=True)
    solver = LARS([w, b], lr=0.5, momentum=0.9, weight_decay=0.1, trust=0.01)
    v = torch.zeros_like(w)
    expected, bias, speed = w.detach().clone(), 2.0, 0.0
    for g in (torch.tensor([[1.0, 0.0]], dtype=torch.float64), torch.tensor([[0.0, -2.0]], dtype=torch.float64)):
        w.grad, b.grad = g.clone(), torch.ones_like(b)
        d = g + 0.1 * expected
        v = 0.9 * v + 0.5 * 0.01 * expected.norm() / d.norm() * d
        expected = expected - v
        speed = 0.9 * speed + 0.5
        bias -= speed
        solver.step()
    torch.testing.assert_close(w.detach(), expected)
    assert float(b.detach()) == pytest.approx(bias)


def test_a_layer_s_step_does_not_depend_on_the_scale_of_its_gradient():
    moves = []
    for factor in (1.0, 1000.0):
        w = torch.ones(2, 3, requires_grad=True)
        w.grad = factor * torch.ones(2, 3)
        LARS([w], lr=1.0, weight_decay=0.0).step()
        moves.append(1 - w.detach())
    torch.testing.assert_close(moves[0], moves[1])
    still = torch.zeros(2, 2, requires_grad=True)
    still.grad = torch.ones(2, 2)
    LARS([still], lr=0.1, weight_decay=0.0).step()
    torch.testing.assert_close(still.detach(), torch.full((2, 2), -0.1))


def test_what_is_out_of_range_is_told():
    with pytest.raises(ValueError, match="out of range"):
        LARS([torch.zeros(1, requires_grad=True)], lr=0.1, momentum=1.0)
