import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers import check_component

from precis.contrastive.ntxent import ProjectionHead, nt_xent
from precis.contrastive.supcon import LinearHead, SupConModel, positive_weights, sup_con
from precis.errors import InputError
from precis.nn.backbones import backbone
from precis.nn.cost import saved_bytes
from precis.train.probe import LinearProbe

LABELS = {
    "several": [0, 1, 0, 2, 1, 0], "singletons": [3, 0, 1, 0, 2, 5], "one class": [4] * 6, "none": [-1] * 6,
    "partly": [0, -1, 0, -1, 2, 2], "all different": [5, 4, 3, 2, 1, 0],
}  # fmt: skip
FORMS = ("out", "in")


def made(b=6, v=2, d=4, seed=0, dtype=torch.float64):
    return torch.randn(b, v, d, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def by_loops(features, positive, temperature, form, empty="skip", first_only=False):
    """The two equations term by term, also where libraries give 0 (one class alone) or NaN (no positive).

    positive(i, j): whether picture j is a positive of picture i.
    """
    views = features if features.ndim == 3 else features[:, None]
    b, v = views.shape[:2]
    z = [(i, k, (views[i, k] / views[i, k].norm()).tolist()) for i in range(b) for k in range(v)]
    similar = lambda a, c: sum(x * y for x, y in zip(a[2], c[2])) / temperature
    total, anchors = 0.0, 0
    for i in z:
        if first_only and i[1]:
            continue
        others = [a for a in z if a[:2] != i[:2]]
        chosen = [p for p in others if positive(i[0], p[0])]
        anchors += bool(chosen) or empty == "zero"
        if not chosen:
            continue
        norm = math.log(sum(math.exp(similar(i, a)) for a in others))
        terms = [similar(i, p) - norm for p in chosen]
        if form == "out":
            total += -sum(terms) / len(terms)
        else:
            total += -math.log(sum(map(math.exp, terms)) / len(terms))
    return total / max(anchors, 1)


def of_labels(labels):
    return lambda i, j: i == j or (labels[i] == labels[j] and labels[i] != -1)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", LABELS)
@pytest.mark.parametrize("views", [1, 2, 3])
@pytest.mark.parametrize("chunk", [None, 4])
def test_both_forms_are_their_definitions(form, case, views, chunk):
    z, labels = made(v=views), LABELS[case]
    for empty in ("skip", "zero"):
        options = {"temperature": 0.2, "reduction_form": form, "empty": empty, "chunk": chunk}
        expected = by_loops(z, of_labels(labels), 0.2, form, empty)
        assert float(sup_con(z, torch.tensor(labels), **options)) == pytest.approx(expected, abs=1e-12)
        if views == 1:
            assert float(sup_con(z[:, 0], torch.tensor(labels), **options)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("chunk", [None, 5])
def test_a_mask_says_the_same_as_labels_and_more(form, chunk):
    z = made(v=2)
    options = {"temperature": 0.3, "reduction_form": form, "chunk": chunk}
    labels = torch.tensor(LABELS["singletons"])
    torch.testing.assert_close(sup_con(z, mask=labels[:, None] == labels, **options), sup_con(z, labels, **options))
    torch.testing.assert_close(sup_con(z, mask=torch.eye(6), **options), nt_xent(z[:, 0], z[:, 1], 0.3))
    uneven = (torch.rand(6, 6, generator=torch.Generator().manual_seed(1)) < 0.4).float()  # diagonal mixed as well
    uneven[2] = 0
    expected = by_loops(z, lambda i, j: bool(uneven[i, j]), 0.3, form)
    assert float(sup_con(z, mask=uneven, **options)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("form", FORMS)
def test_anchors_may_be_the_first_views_alone(form):
    z, labels = made(v=3), torch.tensor(LABELS["several"])
    expected = by_loops(z, of_labels(labels.tolist()), 0.2, form, first_only=True)
    found = sup_con(z, labels, temperature=0.2, reduction_form=form, contrast="one")
    assert float(found) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("case", ["several", "singletons"])
@pytest.mark.parametrize("views", [1, 2])
def test_value_and_gradients_are_those_of_pytorch_metric_learning(dtype, tolerance, case, views):
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    mine, theirs = (made(v=views, dtype=dtype).requires_grad_() for _ in range(2))
    labels = torch.tensor(LABELS[case])
    ours = sup_con(mine, labels, temperature=0.2)
    other = losses.SupConLoss(temperature=0.2)(theirs.flatten(0, 1), labels.repeat_interleave(views))
    torch.testing.assert_close(ours, other, atol=tolerance, rtol=tolerance)
    ours.backward(), other.backward()
    torch.testing.assert_close(mine.grad, theirs.grad, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("form", FORMS)
def test_without_labels_it_is_nt_xent(form):
    z = made(b=5)
    for labels in (None, torch.arange(5), torch.full((5,), -1)):
        found = sup_con(z, labels, temperature=0.5, reduction_form=form)
        torch.testing.assert_close(found, nt_xent(z[:, 0], z[:, 1], 0.5), atol=1e-12, rtol=0)
    assert float(sup_con(z, torch.full((5,), -1), unlabelled=None)) != pytest.approx(float(sup_con(z)))


@given(st.integers(2, 9), st.integers(1, 3), st.integers(1, 4), st.sampled_from([0.05, 0.5]), st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_the_mean_inside_the_logarithm_is_never_the_larger(b, views, classes, temperature, seed):
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(-1, classes, (b,), generator=g)
    z = made(b, views, seed=seed)
    out, inside = (float(sup_con(z, labels, temperature=temperature, reduction_form=f)) for f in FORMS)
    assert inside <= out + 1e-12


def test_they_are_equal_where_all_positives_are_equally_near():
    z = torch.eye(3, dtype=torch.float64)[torch.tensor([0, 0, 0, 1, 1, 1])]
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    out, inside = (float(sup_con(z, labels, reduction_form=f)) for f in FORMS)
    assert out == pytest.approx(inside, abs=1e-12) and out == pytest.approx(math.log(2 + 3 * math.exp(-10)), abs=1e-12)


@given(st.integers(1, 14), st.integers(2, 5), st.sampled_from(FORMS), st.booleans())
@settings(max_examples=25, deadline=None)
def test_chunks_change_neither_value_nor_gradients(chunk, b, form, normalize):
    whole, parts = (made(b, seed=b).requires_grad_() for _ in range(2))
    labels = torch.arange(b) % 2
    options = {"temperature": 0.3, "reduction_form": form, "normalize": normalize}
    a, c = sup_con(whole, labels, **options), sup_con(parts, labels, chunk=chunk, **options)
    torch.testing.assert_close(a, c)
    a.backward(), c.backward()
    torch.testing.assert_close(whole.grad, parts.grad, atol=1e-9, rtol=1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("case", ["several", "singletons", "one class"])
def test_the_gradient_is_the_paper_s(form, case):
    """∂L/∂z_i for rows of length 1, by weights X_ip; every row is anchor, positive and negative at once."""
    z = F.normalize(made(v=1)[:, 0], dim=1).requires_grad_()
    labels, tau = torch.tensor(LABELS[case]), 0.3
    sup_con(z, labels, temperature=tau, reduction_form=form, normalize=False).backward()
    with torch.no_grad():
        x = positive_weights(z, labels, tau, form)
        has = (x.sum(1) > 0).double()
        p = (z @ z.T / tau).fill_diagonal_(-torch.inf).softmax(1)
        g = (p - x) * has[:, None] / has.sum().clamp(min=1) / tau
    torch.testing.assert_close(z.grad, (g + g.T) @ z.detach(), atol=1e-12, rtol=1e-8)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("chunk", [None, 3])
def test_gradcheck(form, chunk):
    z, labels = made(4, 2, 3).requires_grad_(), torch.tensor([0, 1, 0, -1])
    assert torch.autograd.gradcheck(lambda x: sup_con(x, labels, reduction_form=form, chunk=chunk), (z,))


def test_weights_of_positives():
    z, labels = made(5, 2), torch.tensor([0, 0, 1, -1, 0])
    for form in FORMS:
        x = positive_weights(z, labels, 0.2, form)
        torch.testing.assert_close(x.sum(1), torch.ones(10, dtype=torch.float64))
        assert float(x.diagonal().abs().max()) == 0 and float(x[0, 4]) == 0 < float(x[0, 2])
    out, inside = (positive_weights(z, labels, 0.2, form) for form in FORMS)
    assert set(out[0].tolist()) == {0, 0.2}
    unit = F.normalize(z.flatten(0, 1), dim=1)
    near = (unit[0] @ unit[[1, 2, 3, 8, 9]].T / 0.2).softmax(0)
    torch.testing.assert_close(inside[0, [1, 2, 3, 8, 9]], near)
    assert float(positive_weights(made(3, 1), torch.arange(3)).abs().max()) == 0


def test_what_the_loss_does_not_depend_on():
    z, labels = made(6, 3), torch.tensor(LABELS["several"])
    turn = torch.linalg.qr(made(4, 1, 4)[:, 0])[0]
    order = torch.randperm(6, generator=torch.Generator().manual_seed(0))
    for form in FORMS:
        value = sup_con(z, labels, reduction_form=form)
        for x, y in ((z[order], labels[order]), (z.flip(1), labels), (z @ turn, labels), (3 * z, labels),
                     (z, 7 - 3 * labels)):  # fmt: skip
            torch.testing.assert_close(sup_con(x, y, reduction_form=form), value)
        assert abs(float(sup_con(z, labels[order], reduction_form=form) - value)) > 1e-3


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("chunk", [None, 3])
@pytest.mark.parametrize("case", ["several", "singletons", "one class", "none", "all different"])
def test_degenerate_embeddings_have_finite_losses_and_gradients(form, dtype, chunk, case):
    for rows in (torch.ones(6, 2, 3), torch.zeros(6, 2, 3), torch.eye(6)[:, None, :3].repeat(1, 2, 1) * 100):
        for z in (rows, rows[:, :1]):
            z = z.clone().to(dtype).requires_grad_()
            loss = sup_con(z, torch.tensor(LABELS[case]), temperature=0.01, reduction_form=form, chunk=chunk)
            loss.backward()
            assert loss.dtype == dtype and loss.isfinite()
            long = z.detach().any(-1) | (dtype != torch.float16)  # 1/‖0‖ leaves its range
            assert z.grad[long].isfinite().all()


def test_equal_embeddings_have_the_loss_of_guessing_whatever_the_temperature():
    z, labels = torch.ones(5, 2, 3, dtype=torch.float64), torch.tensor([0, 0, 1, 1, -1])
    for form in FORMS:
        for tau in (0.01, 0.07, 1):
            assert float(sup_con(z, labels, temperature=tau, reduction_form=form)) == pytest.approx(math.log(9))
    scaled = sup_con(z, labels, temperature=0.1, base_temperature=0.07)
    assert float(scaled) == pytest.approx(math.log(9) * 0.1 / 0.07)


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_and_autocast_compute_the_similarities_in_float32(form):
    z, labels = made(32, 2, 16, dtype=torch.float32), torch.arange(32) % 3
    options = {"temperature": 0.02, "reduction_form": form}
    exact = float(sup_con(z, labels, **options))
    for dtype in (torch.float16, torch.bfloat16):
        narrow = z.to(dtype)
        assert float(sup_con(narrow, labels, **options)) == float(sup_con(narrow.float(), labels, **options).to(dtype))
    with torch.autocast("cpu", torch.bfloat16):
        assert float(sup_con(z, labels, **options)) == exact


def test_what_cannot_be_is_told():
    z, labels = made(4), torch.zeros(4, dtype=torch.long)
    for options, words in (({"temperature": 0}, "temperature"), ({"chunk": 0}, "chunk"),
                           ({"mask": torch.eye(4)}, "give one of them")):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            sup_con(z, labels, **options)
    with pytest.raises(ValueError, match="no negatives"):
        sup_con(z[:1], labels[:1])


def test_no_mask_of_pairs_is_kept():
    """Beside NT-Xent's similarities nothing of the size of all pairs; in chunks not even these."""
    z, labels = made(256, 2, 16, dtype=torch.float32).requires_grad_(), torch.arange(256) % 10
    pairs = 512 * 512
    plain = saved_bytes(lambda: nt_xent(z[:, 0], z[:, 1]))
    assert plain > 4 * pairs
    assert saved_bytes(lambda: sup_con(z, labels)) < plain + 0.5 * pairs
    for form in FORMS:
        assert saved_bytes(lambda f=form: sup_con(z, labels, reduction_form=f, chunk=64)) < 0.7 * pairs


def model(generator):
    encoder = backbone("conv:4x2", (1, 8, 8), generator=generator)
    return SupConModel(encoder, ProjectionHead(encoder.out_dim, dim_out=6, generator=generator))


def test_components(tmp_path):
    x = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    check_component(model, x, tmp_path=tmp_path)
    h = made(5, 1, 4, dtype=torch.float32)[:, 0]
    fitted = lambda g: LinearHead(4, 2, 0.1).fit(torch.randn(8, 4, generator=g), torch.arange(8) % 2)
    check_component(fitted, h, tmp_path=tmp_path)


def test_the_model_s_loss_is_that_of_all_views_in_one_pass():
    net = model(torch.Generator().manual_seed(0))
    views = [torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(i)) for i in range(3)]
    labels = torch.tensor([0, 1, 0, 1])
    z = net(torch.cat(views))[1]
    torch.testing.assert_close(net.loss(views, labels), sup_con(torch.stack(z.split(4), 1), labels))
    inside = SupConModel(net.encoder, net.head, 0.5, reduction_form="in")
    expected = sup_con(torch.stack(z.split(4), 1), labels, temperature=0.5, reduction_form="in")
    torch.testing.assert_close(inside.loss(views, labels), expected)


def test_training_gathers_classes_that_look_different():
    """Two pictures of a class have nothing in common but the label."""
    g = torch.Generator().manual_seed(1)
    x, labels = torch.rand(12, 1, 8, 8, generator=g), torch.arange(12) % 3
    net = model(torch.Generator().manual_seed(0))
    solver = torch.optim.AdamW(net.parameters(), 1e-2)
    for _ in range(60):
        views = [x + 0.02 * torch.randn(x.shape, generator=g) for _ in range(2)]
        loss = net.loss(views, labels)
        solver.zero_grad(), loss.backward(), solver.step()
    assert float(loss.detach()) < math.log(8) + 0.4  # 7 positives at one point, the others far away: log 7


def test_the_linear_head_is_the_probe_on_raw_representations():
    g = torch.Generator().manual_seed(0)
    y = torch.arange(60) % 3
    h = 5 + torch.tensor([100.0, 1, 0.01, 0]) * (torch.eye(4)[y] + 0.3 * torch.randn(60, 4, generator=g))
    probe, head = LinearProbe(1e-3).fit(h, y), LinearHead(4, 3, 1e-3).fit(h, y)
    torch.testing.assert_close(head(h), probe.logits(h).float(), atol=1e-2, rtol=1e-3)
    assert torch.equal(head(h).argmax(1), probe.predict(h)) and float((head(h).argmax(1) == y).float().mean()) > 0.9
    assert head.weight.dtype == torch.float32
    with pytest.raises(InputError, match="two classes"):
        LinearHead(4, 3).fit(h, torch.zeros_like(y))
