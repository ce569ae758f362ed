import copy
import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers import check_component

from precis.contrastive.moco import SplitBatchNorm2d, split_batch_norms
from precis.contrastive.ntxent import (
    MoCo,
    MomentumQueue,
    MomentumTwin,
    ProjectionHead,
    SimCLR,
    alignment,
    info_nce,
    nt_xent,
    uniformity,
)
from precis.nn.backbones import backbone


def pair(n=5, d=3, seed=0, dtype=torch.float64):
    g = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(n, d, generator=g, dtype=dtype) for _ in range(2))


def by_loops(z1, z2, temperature):
    """The equation, term by term."""
    z = F.normalize(torch.cat([z1, z2]), dim=1)
    n, total = len(z1), 0.0
    for i in range(2 * n):
        s = [float(z[i] @ z[k]) / temperature for k in range(2 * n)]
        total += -s[(i + n) % (2 * n)] + math.log(sum(math.exp(s[k]) for k in range(2 * n) if k != i))
    return total / (2 * n)


@pytest.mark.parametrize("temperature", [0.07, 0.5, 1])
def test_it_is_the_definition(temperature):
    z1, z2 = pair()
    assert float(nt_xent(z1, z2, temperature)) == pytest.approx(by_loops(z1, z2, temperature), abs=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("chunk", [None, 5])
def test_value_and_gradients_are_those_of_pytorch_metric_learning(dtype, tolerance, chunk):
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    mine, theirs = ([z.clone().requires_grad_() for z in pair(7, 6, dtype=dtype)] for _ in range(2))
    ours = nt_xent(*mine, 0.3, chunk=chunk)
    other = losses.NTXentLoss(temperature=0.3)(torch.cat(theirs), torch.arange(7).repeat(2))
    torch.testing.assert_close(ours, other, atol=tolerance, rtol=tolerance)
    ours.backward(), other.backward()
    for a, b in zip(mine, theirs):
        torch.testing.assert_close(a.grad, b.grad, atol=tolerance, rtol=tolerance)


@given(st.integers(1, 12), st.integers(2, 5), st.sampled_from([0.05, 0.5]), st.booleans())
@settings(max_examples=25, deadline=None)
def test_chunks_change_neither_value_nor_gradients(chunk, n, temperature, normalize):
    whole, parts = ([z.clone().requires_grad_() for z in pair(n, 4, seed=n)] for _ in range(2))
    a = nt_xent(*whole, temperature, normalize=normalize)
    b = nt_xent(*parts, temperature, normalize=normalize, chunk=chunk)
    torch.testing.assert_close(a, b)
    a.backward(), b.backward()
    for x, y in zip(whole, parts):
        torch.testing.assert_close(x.grad, y.grad, atol=1e-9, rtol=1e-6)


def test_gradcheck():
    z1, z2 = (z.requires_grad_() for z in pair(4, 3))
    queue = torch.randn(6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, 0.4), (z1, z2))
    assert torch.autograd.gradcheck(lambda a, b: nt_xent(a, b, 0.4, chunk=3), (z1, z2))
    assert torch.autograd.gradcheck(lambda a, b, q: info_nce(a, b, q, 0.4), (z1, z2, queue))
    assert torch.autograd.gradcheck(uniformity, (z1,))
    assert torch.autograd.gradcheck(alignment, (z1, z2))


def test_what_the_loss_does_not_depend_on():
    z1, z2 = pair(6, 4)
    value = nt_xent(z1, z2)
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)))[0]
    for a, b in ((z1[order], z2[order]), (z1 @ turn, z2 @ turn), (3 * z1, 0.2 * z2), (z2, z1)):
        torch.testing.assert_close(nt_xent(a, b), value)
    assert abs(float(nt_xent(z1, z2[order]) - value)) > 1e-3  # pairs matter
    assert abs(float(nt_xent(3 * z1, z2, normalize=False) - nt_xent(z1, z2, normalize=False))) > 1e-3


def test_the_gradient_is_orthogonal_to_each_embedding():
    z1, z2 = (z.requires_grad_() for z in pair(6, 4))
    nt_xent(z1, z2).backward()
    for z in (z1, z2):
        assert float((z.grad * z.detach()).sum(1).abs().max()) < 1e-12 < float(z.grad.abs().max())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("chunk", [None, 3])
def test_degenerate_embeddings_have_finite_losses_and_gradients(dtype, chunk):
    for z in (torch.ones(4, 3), torch.zeros(4, 3), torch.eye(4)[:, :3] * 100):
        z1, z2 = (z.clone().to(dtype).requires_grad_() for _ in range(2))
        loss = nt_xent(z1, z2, 0.01, chunk=chunk)
        loss.backward()
        assert loss.dtype == dtype and loss.isfinite()
        assert z1.grad.dtype == dtype and (z1.grad.isfinite().all() or dtype == torch.float16)  # 1/‖0‖ leaves its range
    same = torch.ones(4, 3, dtype=torch.float64)
    assert float(nt_xent(same, same)) == pytest.approx(math.log(7))


def test_half_precision_and_autocast_compute_the_similarities_in_float32():
    z1, z2 = pair(32, 16, dtype=torch.float32)
    exact = float(nt_xent(z1, z2, 0.02))
    with torch.autocast("cpu", torch.bfloat16):
        assert float(nt_xent(z1, z2, 0.02)) == exact
        assert float(info_nce(z1, z2, z2, 0.02)) == float(info_nce(z1, z2, z2, 0.02))
    narrow = float(nt_xent(z1.bfloat16(), z2.bfloat16(), 0.02))
    assert narrow == pytest.approx(exact, rel=0.02)


def test_what_cannot_be_is_told():
    z1, z2 = pair(1)
    with pytest.raises(ValueError, match="no negatives"):
        nt_xent(z1, z2)
    z1, z2 = pair(3)
    with pytest.raises(ValueError, match="temperature"):
        nt_xent(z1, z2, 0)
    with pytest.raises(ValueError, match="temperature"):
        info_nce(z1, z2, z1, -1)
    with pytest.raises(ValueError, match="queue is empty"):
        info_nce(z1, z2, z1[:0])
    with pytest.raises(ValueError, match="chunk"):
        nt_xent(z1, z2, chunk=0)
    with pytest.raises(ValueError, match="torch.distributed"):
        nt_xent(z1, z2, gather=True)
    with pytest.raises(ValueError, match="two rows"):
        uniformity(z1[:1])


def test_info_nce_is_the_cross_entropy_of_the_positive():
    q, k = pair(5, 4)
    queue = F.normalize(torch.randn(9, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2)), dim=1)
    a, b = F.normalize(q, dim=1), F.normalize(k, dim=1)
    logits = torch.cat([(a * b).sum(1, keepdim=True), a @ queue.T], 1) / 0.2
    expected = F.cross_entropy(logits, torch.zeros(5, dtype=torch.long))
    torch.testing.assert_close(info_nce(q, k, queue, 0.2), expected, atol=1e-12, rtol=1e-12)


def test_alignment_and_uniformity_are_their_definitions():
    z1, z2 = pair(6, 4)
    a, b = F.normalize(z1, dim=1), F.normalize(z2, dim=1)
    assert float(alignment(z1, z2)) == pytest.approx(float((a - b).square().sum(1).mean()))
    assert float(alignment(z1, z2, alpha=1)) == pytest.approx(float((a - b).norm(dim=1).mean()))
    expected = torch.pdist(a).square().mul(-2).exp().mean().log()
    torch.testing.assert_close(uniformity(z1), expected)
    torch.testing.assert_close(uniformity(z1, chunk=4), expected)
    assert float(uniformity(torch.ones(5, 3, dtype=torch.float64))) == pytest.approx(0)


def test_the_queue_wraps_round_and_takes_batches_of_any_size():
    queue = MomentumQueue(5, 2, torch.Generator().manual_seed(0))
    assert queue.filled == 0 and torch.allclose(queue.keys.norm(dim=1), torch.ones(5))
    rows = lambda *numbers: torch.tensor([[float(n), 0.0] for n in numbers])
    held = lambda: set(queue.keys[:, 0].tolist())
    queue.push(rows(1, 2, 3))
    assert queue.filled == 3 and {1.0, 2.0, 3.0} <= held()
    queue.push(rows(4, 5, 6))
    assert queue.filled == 5 and held() == {2.0, 3.0, 4.0, 5.0, 6.0}
    queue.push(rows(*range(10, 22)))
    assert held() == {17.0, 18.0, 19.0, 20.0, 21.0}
    queue.push(rows(30))
    assert held() == {18.0, 19.0, 20.0, 21.0, 30.0}
    copied = MomentumQueue(5, 2)
    copied.load_state_dict(queue.state_dict())
    copied.push(rows(31))
    assert set(copied.keys[:, 0].tolist()) == {19.0, 20.0, 21.0, 30.0, 31.0}
    with pytest.raises(ValueError, match="at least one key"):
        MomentumQueue(0, 2)


def test_the_twin_averages_parameters_and_keeps_its_own_buffers():
    online = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    twin = MomentumTwin(online, 0.9)
    before = [p.clone() for p in twin.parameters()]
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    twin(x + 5)
    with torch.no_grad():
        for p in online.parameters():
            p += 1
    twin.update()
    for old, p in zip(before, twin.parameters()):
        torch.testing.assert_close(p, old + 0.1)
        assert not p.requires_grad
    assert not torch.equal(twin.twin[1].running_mean, online[1].running_mean)
    assert all("online" not in name for name in twin.state_dict())
    with pytest.raises(ValueError, match="momentum"):
        MomentumTwin(online, 1.1)


def build_moco(generator, **options):
    encoder = backbone("conv:4x2", (1, 8, 8), generator=generator)
    head = ProjectionHead(encoder.out_dim, dim_out=6, generator=generator)
    return MoCo(encoder, head, 16, 0.9, 0.2, generator=generator, **options)


def test_a_step_of_moco_is_the_paper_s():
    """Copy first, then keys, then the loss against the old queue, then the queue."""
    model = build_moco(torch.Generator().manual_seed(0), symmetric=False)
    reference = copy.deepcopy(model)
    g = torch.Generator().manual_seed(1)
    v1, v2 = torch.rand(4, 1, 8, 8, generator=g), torch.rand(4, 1, 8, 8, generator=g)
    with torch.no_grad():
        for p in model.encoder.parameters():
            p.mul_(1.1)
        for p in reference.encoder.parameters():
            p.mul_(1.1)
    loss = model.loss(v1, v2)
    reference.twin.update()
    q = reference(v1)[1]
    k = F.normalize(reference.twin(v2), dim=1)
    expected = info_nce(q, k, reference.queue.keys, 0.2)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(model.queue.keys[:4], k)
    assert torch.equal(model.queue.keys[4:], reference.queue.keys[4:]) and model.queue.filled == 4
    loss.backward()
    assert all(p.grad is None for p in model.twin.parameters())
    assert all(p.grad is not None for p in [*model.encoder.parameters(), *model.head.parameters()])


def test_symmetric_moco_asks_for_both_views():
    model = build_moco(torch.Generator().manual_seed(0))
    v = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    model.loss(v, v.flip(3)).backward()
    assert model.queue.filled == 8


def test_split_batch_norm_is_batch_norm_of_each_part():
    x = torch.randn(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    split, whole = SplitBatchNorm2d(3, 4), torch.nn.BatchNorm2d(3)
    torch.testing.assert_close(split(x), torch.cat([whole(part) for part in x.split(2)]))
    with pytest.raises(ValueError, match="no 4 parts of two"):
        split(x[:7])
    torch.testing.assert_close(split.eval()(x), whole.eval()(x))
    net = split_batch_norms(backbone("conv:4x2", (1, 8, 8)), 2)
    assert sum(isinstance(m, SplitBatchNorm2d) for m in net.modules()) == 2


def test_shuffled_keys_come_back_in_order():
    """In evaluation the split has no effect, so the keys are those of the unshuffled batch."""
    model = build_moco(torch.Generator().manual_seed(0), split_bn=2).eval()
    v = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(model._keys(v), F.normalize(model.twin(v), dim=1))
    model.train().loss(v, v).backward()
    assert model.encoder.blocks[0][0].weight.grad.isfinite().all()


def test_moco_needs_to_know_the_embedding_s_size():
    encoder = backbone("conv:4x2", (1, 8, 8))
    with pytest.raises(ValueError, match="dim"):
        MoCo(encoder, torch.nn.Identity(), 8)
    assert MoCo(encoder, torch.nn.Identity(), 8, dim=8).queue.keys.shape == (8, 8)


def test_heads():
    head = ProjectionHead(6, dim_out=4, layers=3, batch_norm=True)
    kinds = [type(m).__name__ for m in head.layers]
    assert kinds == ["Linear", "BatchNorm1d", "ReLU", "Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert [m.weight.shape for m in head.layers if isinstance(m, torch.nn.Linear)] == [(6, 6), (6, 6), (4, 6)]
    assert len(ProjectionHead(6, layers=1).layers) == 1
    with pytest.raises(ValueError, match="at least one layer"):
        ProjectionHead(6, layers=0)


def simclr(generator):
    encoder = backbone("conv:4x2", (1, 8, 8), generator=generator)
    return SimCLR(encoder, ProjectionHead(encoder.out_dim, dim_out=6, generator=generator))


@pytest.mark.parametrize("build", [simclr, build_moco])
def test_components(build, tmp_path):
    x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    check_component(build, x, tmp_path=tmp_path)


def test_simclr_passes_both_views_together():
    model = simclr(torch.Generator().manual_seed(0))
    g = torch.Generator().manual_seed(1)
    v1, v2 = torch.rand(4, 1, 8, 8, generator=g), torch.rand(4, 1, 8, 8, generator=g)
    reference = copy.deepcopy(model)
    z = reference(torch.cat([v1, v2]))[1]
    torch.testing.assert_close(model.loss(v1, v2), nt_xent(z[:4], z[4:], 0.5))
    torch.testing.assert_close(model.encoder.blocks[0][1].running_mean, reference.encoder.blocks[0][1].running_mean)


def test_training_recognises_pairs():
    """A few steps on noise pictures with small changes bring the loss far below that of chance."""
    model = simclr(torch.Generator().manual_seed(0))
    g = torch.Generator().manual_seed(1)
    x = torch.rand(16, 1, 8, 8, generator=g)
    solver = torch.optim.AdamW(model.parameters(), 1e-2)
    for _ in range(25):
        v1, v2 = (x + 0.02 * torch.randn(x.shape, generator=g) for _ in range(2))
        loss = model.loss(v1, v2)
        solver.zero_grad(), loss.backward(), solver.step()
    assert float(loss.detach()) < math.log(31) - 0.8
