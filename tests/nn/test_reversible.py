import copy
import gc
import os
import socket
import weakref
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers import check_component
from torch import Tensor, nn

from precis.nn.cost import saved_bytes
from precis.nn.reversible import AdditiveCoupling, ReversibleSequence, reconstruction_error


def smooth(d: int) -> nn.Module:
    return nn.Sequential(nn.Linear(d, d + 1), nn.Tanh(), nn.Linear(d + 1, d))


def conv(c: int, p: float = 0.0) -> nn.Module:
    return nn.Sequential(nn.BatchNorm2d(c), nn.ReLU(), nn.Conv2d(c, c, 3, padding=1, bias=False), nn.Dropout(p))


def chain(make, n: int = 4, **options: Any) -> ReversibleSequence:
    torch.manual_seed(0)
    return ReversibleSequence([AdditiveCoupling(make(), make()) for _ in range(n)], **options)


def with_save(seq: ReversibleSequence, save: str) -> ReversibleSequence:
    other = copy.deepcopy(seq)
    other.save = save
    return other


def pulled(seq: ReversibleSequence, *streams: Tensor, **kwargs: Any) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs, and gradients of inputs and parameters under a fixed random pull."""
    streams = tuple(s.detach().requires_grad_() for s in streams)
    torch.manual_seed(1)
    out = seq(*streams, **kwargs)
    draw = torch.Generator().manual_seed(2)
    loss = sum((y * torch.randn(y.shape, generator=draw).to(y.dtype)).sum() for y in out)
    return list(out), list(torch.autograd.grad(loss, [*streams, *seq.parameters()], allow_unused=True))


def apart(a: list[Tensor], b: list[Tensor]) -> float:
    flat = lambda tensors: torch.cat([t.double().flatten() for t in tensors])
    return float((flat(a) - flat(b)).norm() / flat(b).norm())


class ByHand(nn.Module):
    """The recurrences as one would write them, with ordinary autograd."""

    def __init__(self, seq: ReversibleSequence) -> None:
        super().__init__()
        self.pairs = [(b.f, b.g) for b in seq.blocks]

    def forward(self, x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor]:
        for f, g in self.pairs:
            x1 = x1 + f(x2)
            x2 = x2 + g(x1)
        return x1, x2


@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-4), (torch.float64, 1e-10)])
@pytest.mark.parametrize("every", [0, 1, 3])
def test_values_and_gradients_are_those_of_ordinary_autograd(dtype, tolerance, every):
    seq = chain(lambda: conv(4, 0.2), every=every).to(dtype)
    x = [torch.randn(6, 4, 5, 5, dtype=dtype) for _ in range(2)]
    plain = with_save(seq, "all")
    (out, grads), (wanted, wanted_grads) = pulled(seq, *x), pulled(plain, *x)
    state = torch.get_rng_state()
    assert all(torch.equal(a, b) for a, b in zip(out, wanted))  # dropout draws the same in both modes
    assert apart(grads, wanted_grads) < tolerance
    for (name, a), b in zip(seq.named_buffers(), plain.buffers()):
        assert torch.equal(a, b), name  # statistics of a step are counted once
    pulled(seq, *x)
    assert torch.equal(torch.get_rng_state(), state)  # the backward pass leaves the generator where the forward did


def test_the_recurrences_are_the_papers():
    seq = chain(lambda: smooth(3)).double()
    x = [torch.randn(5, 3, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    plain = ByHand(seq)
    assert all(torch.allclose(a, b, atol=1e-14) for a, b in zip(seq(*x), plain(*x)))
    weights = [*x, *seq.parameters()]
    ours = torch.autograd.grad(sum(y.pow(3).sum() for y in seq(*x)), weights)
    theirs = torch.autograd.grad(sum(y.pow(3).sum() for y in plain(*x)), weights)
    assert apart(list(ours), list(theirs)) < 1e-12


def test_gradients_by_differences():
    seq = chain(lambda: smooth(2), n=3).double()
    names = [name for name, _ in seq.named_parameters()]
    weights = [p.detach().clone().requires_grad_() for p in seq.parameters()]

    def run(x1, x2, *params):
        return torch.func.functional_call(seq, dict(zip(names, params)), (x1, x2))

    x = [torch.randn(3, 2, dtype=torch.float64, requires_grad=True) for _ in range(2)]
    assert torch.autograd.gradcheck(lambda *x: seq(*x), x)
    assert torch.autograd.gradcheck(run, (*x, *weights))  # parameters that are not the module's own


def test_linear_functions_have_a_unimodular_matrix():
    a, b = nn.Linear(3, 3, bias=False).double(), nn.Linear(3, 3, bias=False).double()
    block, eye = AdditiveCoupling(a, b), torch.eye(3, dtype=torch.float64)
    x = torch.eye(6, dtype=torch.float64)
    matrix = torch.cat(block(x[:, :3], x[:, 3:]), 1).T  # rows of x are unit vectors
    top, bottom = torch.cat((eye, a.weight), 1), torch.cat((b.weight, eye + b.weight @ a.weight), 1)
    assert torch.allclose(matrix, torch.cat((top, bottom)), atol=1e-14)
    assert torch.linalg.det(matrix).item() == pytest.approx(1, abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.integers(1, 4), st.booleans())
def test_inverse_undoes_forward(seed, n, training):
    torch.manual_seed(seed)
    seq = ReversibleSequence([AdditiveCoupling(conv(3), conv(3)) for _ in range(n)]).train(training)
    x = [torch.randn(4, 3, 4, 4) for _ in range(2)]
    buffers = [b.clone() for b in seq.buffers()]
    with torch.no_grad():
        y = seq(*x)
    after = [b.clone() for b in seq.buffers()]
    rebuilt = seq.reconstruct(*y)
    assert len(rebuilt) == n + 1 and all(torch.equal(a, b) for a, b in zip(rebuilt[-1], y))
    assert all((a - b).abs().max() < 1e-5 for a, b in zip(rebuilt[0], x))
    assert all(torch.equal(a, b) for a, b in zip(seq.buffers(), after))
    assert training == any(not torch.equal(a, b) for a, b in zip(buffers, after))
    errors = reconstruction_error(seq, *x)
    assert errors.shape == (n,) and float(errors.max()) < 1e-5
    assert all(torch.equal(a, b) for a, b in zip(seq.buffers(), after))


def test_what_is_kept_does_not_grow_with_depth():
    x = [torch.randn(4, 4, 6, 6, requires_grad=True) for _ in range(2)]
    one = 4 * x[0].numel()
    assert [saved_bytes(chain(lambda: conv(4), n), *x) for n in (1, 3, 9)] == [2 * one] * 3
    assert saved_bytes(chain(lambda: conv(4), 9, every=3), *x) == 2 * one * 3  # after blocks 3 and 6, and the output
    drawing = saved_bytes(chain(lambda: conv(4, 0.1), 3), *x)  # a generator's state for every function that draws
    assert drawing == 2 * one + 6 * torch.get_rng_state().numel()
    assert saved_bytes(chain(lambda: conv(4, 0.1), 3, preserve_rng=False), *x) == 2 * one


def test_dropout_without_its_state_gives_other_gradients():
    seq, x = chain(lambda: conv(4, 0.5)), [torch.randn(6, 4, 5, 5) for _ in range(2)]
    wanted = pulled(with_save(seq, "all"), *x)[1]
    seq.preserve_rng = False
    assert apart(pulled(seq, *x)[1], wanted) > 0.05


def test_inputs_that_need_no_gradient_still_give_parameters_theirs():
    seq, x = chain(lambda: conv(3)), [torch.randn(4, 3, 4, 4) for _ in range(2)]
    seq(*x)[0].square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in seq.blocks[0].parameters())
    assert seq.blocks[-1].g[2].weight.grad is None or not seq.blocks[-1].g[2].weight.grad.any()  # y2 was not used
    for p in seq.blocks[0].f.parameters():
        p.requires_grad_(False)
    seq.zero_grad(set_to_none=True)
    seq(*x)[1].sum().backward()
    assert all(p.grad is None for p in seq.blocks[0].f.parameters())
    assert all(p.grad is not None for p in seq.blocks[1].f.parameters())


def test_tied_blocks_and_a_second_backward_sum_up():
    tied, x = chain(lambda: smooth(3), 1).double(), [torch.randn(4, 3, dtype=torch.float64) for _ in range(2)]
    tied.blocks.extend([tied.blocks[0]] * 2)
    assert apart(pulled(tied, *x)[1], pulled(with_save(tied, "all"), *x)[1]) < 1e-12
    out = sum(y.sum() for y in tied(*x))
    out.backward(retain_graph=True)
    first = [p.grad.clone() for p in tied.parameters()]
    out.backward()
    assert all(torch.allclose(p.grad, 2 * g) for p, g in zip(tied.parameters(), first))
    with pytest.raises(RuntimeError, match="cannot be differentiated once more"):
        torch.autograd.grad(tied(*(s.requires_grad_() for s in x))[0].sum(), x[0], create_graph=True)


def test_changed_outputs_or_weights_are_noticed():
    seq, x = chain(lambda: smooth(3)), [torch.randn(4, 3) for _ in range(2)]
    y = seq(*x)
    loss = sum(v.sum() for v in y)
    with torch.no_grad():
        y[0].add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()
    loss = sum(v.sum() for v in seq(*x))
    with torch.no_grad():
        seq.blocks[0].f[0].weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_packed_tensors_come_back_through_hooks():
    seq, x = chain(lambda: conv(3)).double(), [torch.randn(4, 3, 4, 4, dtype=torch.float64) for _ in range(2)]
    wanted = pulled(with_save(seq, "all"), *x)[1]
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.detach().numpy().copy(), torch.from_numpy):
        out = seq(*x)
        draw = torch.Generator().manual_seed(2)
        loss = sum((y * torch.randn(y.shape, generator=draw).double()).sum() for y in out)
    loss.backward()
    assert apart([p.grad for p in seq.parameters()], wanted[2:]) < 1e-10
    assert int(seq.blocks[0].f[0].num_batches_tracked) == 1


class Conditioned(nn.Module):
    """Reads a mask by name, a nested condition, and leaves everything else alone."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.inner = nn.Linear(d, d)

    def forward(self, x: Tensor, scale: Tensor | None = None, more: dict | None = None) -> Tensor:
        y = self.inner(x).tanh()
        y = y if scale is None else y * scale
        return y if more is None else y + more["shift"] * more["times"]


def test_keyword_arguments_reach_the_functions_that_name_them_and_get_gradients():
    torch.manual_seed(0)
    seq = ReversibleSequence([AdditiveCoupling(Conditioned(3), smooth(3)) for _ in range(3)]).double()
    x = [torch.randn(4, 3, dtype=torch.float64) for _ in range(2)]
    shared = torch.randn(3, dtype=torch.float64)
    found = {}
    for save in ("output", "all"):
        seq.save = save
        scale = shared.clone().requires_grad_()
        shifts = [torch.randn(3, dtype=torch.float64, generator=torch.Generator().manual_seed(i)).requires_grad_()
                  for i in range(3)]  # fmt: skip
        given = [{"scale": scale, "more": {"shift": shift, "times": 2}} for shift in shifts]
        y = seq(*x, block_kwargs=given)
        found[save] = list(torch.autograd.grad(sum(v.pow(2).sum() for v in y), [scale, *shifts]))
    assert apart(found["output"], found["all"]) < 1e-12
    seq.save = "output"
    computed = (2 * shared.clone().requires_grad_()).tanh()
    watched = weakref.ref(computed)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.detach().clone(), lambda t: t):
        y = seq(*x, block_kwargs={"scale": computed})
    del computed
    gc.collect()
    assert watched() is None  # what a hook has put elsewhere is not held here as well
    sum(v.sum() for v in y).backward()
    y = seq(*x, block_kwargs={"scale": shared})
    assert all(torch.allclose(a, b) for a, b in zip(seq.reconstruct(*y, block_kwargs={"scale": shared})[0], x))
    with pytest.raises(TypeError, match="neither f nor g has an argument called 'mask'"):
        seq(*x, block_kwargs={"mask": shared})
    with pytest.raises(ValueError, match="2 sets of keyword arguments for 3 blocks"):
        seq(*x, block_kwargs=[{}, {}])


class Bucketed(nn.Module):
    """As a Reformer's attention: a random decision is taken once, returned, and obeyed when it is given."""

    def __init__(self, d: int) -> None:
        super().__init__()
        self.inner, self.decided = nn.Linear(d, d), 0

    def forward(self, x: Tensor, memo: Tensor | None = None) -> tuple[Tensor, Tensor]:
        if memo is None:
            self.decided += 1
            memo = torch.rand(x.shape[-1], generator=torch.Generator().manual_seed(self.decided)).argsort()
        return self.inner(x[..., memo]).tanh(), memo


def test_what_is_decided_once_is_kept():
    torch.manual_seed(0)
    blocks = [AdditiveCoupling(Bucketed(4), nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.3))) for _ in range(3)]
    seq = ReversibleSequence(blocks).double()
    x = [torch.randn(5, 4, dtype=torch.float64) for _ in range(2)]
    plain = with_save(seq, "all")
    ours, theirs = pulled(seq, *x), pulled(plain, *x)
    assert [b.f.decided for b in seq.blocks] == [1, 1, 1]
    assert all(torch.equal(a, b) for a, b in zip(ours[0], theirs[0])) and apart(ours[1], theirs[1]) < 1e-12
    assert float(reconstruction_error(seq, *x).max()) < 1e-12  # with the memo and the dropout of its own forward


class Step(nn.Module):
    """As a step of Glow: an actnorm, an invertible matrix and an affine coupling; streams (x [B,C,H,W], logdet [B])."""

    def __init__(self, c: int, p: float = 0.0) -> None:
        super().__init__()
        self.scale, self.shift = nn.Parameter(0.1 * torch.randn(c, 1, 1)), nn.Parameter(torch.randn(c, 1, 1))
        self.matrix = nn.Parameter(torch.linalg.qr(torch.randn(c, c))[0])
        self.net = nn.Sequential(nn.Conv2d(c // 2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(p),
                                 nn.Conv2d(6, c, 3, padding=1))  # fmt: skip

    def forward(self, x: Tensor, logdet: Tensor) -> tuple[Tensor, Tensor]:
        positions = x.shape[2] * x.shape[3]
        x = torch.einsum("dc,bchw->bdhw", self.matrix, (x + self.shift) * self.scale.exp())
        logdet = logdet + positions * (self.scale.sum() + torch.linalg.slogdet(self.matrix)[1])
        a, b = x.chunk(2, 1)
        log_s, t = self.net(a).chunk(2, 1)
        log_s = log_s.tanh()
        return torch.cat((a, (b + t) * log_s.exp()), 1), logdet + log_s.sum((1, 2, 3))

    def inverse(self, y: Tensor, logdet: Tensor) -> tuple[Tensor, Tensor]:
        a, b = y.chunk(2, 1)
        log_s, t = self.net(a).chunk(2, 1)
        log_s = log_s.tanh()
        x = torch.einsum("dc,bchw->bdhw", torch.linalg.inv(self.matrix), torch.cat((a, b * (-log_s).exp() - t), 1))
        logdet = logdet - log_s.sum((1, 2, 3))
        logdet = logdet - y.shape[2] * y.shape[3] * (self.scale.sum() + torch.linalg.slogdet(self.matrix)[1])
        return x * (-self.scale).exp() - self.shift, logdet


@pytest.mark.parametrize("p", [0.0, 0.2])
def test_any_invertible_block_will_do(p):
    torch.manual_seed(0)
    seq = ReversibleSequence([Step(4, p) for _ in range(5)]).double()
    streams = [torch.randn(3, 4, 4, 4, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)]
    plain = with_save(seq, "all")
    ours, theirs = pulled(seq, *streams), pulled(plain, *streams)
    assert all(torch.equal(a, b) for a, b in zip(ours[0], theirs[0])) and apart(ours[1], theirs[1]) < 1e-10
    assert all(torch.equal(a, b) for a, b in zip(seq.buffers(), plain.buffers()))
    if not p:
        back = seq.reconstruct(*seq(*streams))[0]
        assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(back, streams))
        two, five = (saved_bytes(ReversibleSequence(seq.blocks[:n]), *streams) for n in (2, 5))
        assert two == five == 8 * (streams[0].numel() + 3)
        names = [name for name, _ in seq.named_parameters()]
        twice = {name: (2 * p.detach()).requires_grad_() for name, p in zip(names, seq.parameters())}
        grads = [torch.autograd.grad(torch.func.functional_call(net, twice, tuple(streams))[1].sum(), twice.values(),
                                     allow_unused=True) for net in (seq, with_save(seq, "all"))]  # fmt: skip
        used = [(a, b) for a, b in zip(*grads) if b is not None]
        assert apart([a for a, _ in used], [b for _, b in used]) < 1e-9


def test_a_block_with_its_own_inverse_is_undone_by_it():
    class Broken(AdditiveCoupling):
        def inverse(self, y1: Tensor, y2: Tensor, **kwargs: Any) -> tuple[Tensor, Tensor]:
            return y1, y2

    torch.manual_seed(0)
    x = [torch.randn(4, 3, dtype=torch.float64) for _ in range(2)]
    seq = ReversibleSequence([Broken(smooth(3), smooth(3)) for _ in range(3)]).double()
    assert apart(pulled(seq, *x)[1], pulled(with_save(seq, "all"), *x)[1]) > 1e-3
    assert float(reconstruction_error(seq, *x)[0]) > 1e-2


def test_under_autocast_functions_are_bfloat16_and_streams_are_not():
    seen = []

    class Watch(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            y = self.inner(x)
            seen.append(y.dtype)
            return y.tanh()

    seq, x = chain(Watch, 3), [torch.randn(4, 4, 5, 5) for _ in range(2)]
    grads = {}
    for save in ("output", "all"):
        net = with_save(seq, save)
        with torch.autocast("cpu", torch.bfloat16):
            y = net(*x)
            reused = net.blocks[0].f.inner(x[0]).float().sum()  # a weight cast in the Function must not be reused here
            loss = sum(v.square().sum() for v in y) + reused
        loss.backward()
        assert all(v.dtype == torch.float32 for v in y)
        grads[save] = [p.grad for p in net.parameters()]
    assert set(seen) == {torch.bfloat16}
    assert apart(grads["output"], grads["all"]) < 1e-2
    assert float(reconstruction_error(seq, *x).max()) < 1e-6


def test_half_precision_streams_drift_and_every_bounds_it():
    seq, x = chain(lambda: smooth(8), 12), [torch.randn(16, 8) for _ in range(2)]
    low = copy.deepcopy(seq).bfloat16()
    rebuilt = reconstruction_error(low, *(s.bfloat16() for s in x))
    assert float(rebuilt[0]) > float(rebuilt[-1]) and float(rebuilt[0]) > 1e3 * float(reconstruction_error(seq, *x)[0])
    wanted = pulled(with_save(low, "all"), *(s.bfloat16() for s in x))[1]
    gaps = []
    for every in (0, 1):
        low.every = every
        gaps.append(apart(pulled(low, *(s.bfloat16() for s in x))[1], wanted))
    assert gaps[1] < gaps[0]


@pytest.mark.parametrize("call, error, words", [
    (lambda: chain(lambda: smooth(2), every=-1), ValueError, "every at least 0"),
    (lambda: ReversibleSequence([nn.Linear(2, 2)]), TypeError, "block 0, a Linear, has no inverse"),
    (lambda: chain(lambda: nn.Linear(3, 4), 1)(torch.randn(2, 3), torch.randn(2, 3)), ValueError, "keep the shape"),
    (lambda: chain(lambda: nn.ReLU(inplace=True), 1)(torch.randn(2, 3), torch.randn(2, 3)), ValueError,
     "ReLU in block 0 changes its input in place"),
])  # fmt: skip
def test_errors_teach(call, error, words):
    with pytest.raises(error, match=words):
        call()


def test_it_is_a_component(tmp_path):
    def build(generator):
        seq = ReversibleSequence([AdditiveCoupling(smooth(3), smooth(3)) for _ in range(2)])
        for p in seq.parameters():
            nn.init.normal_(p, generator=generator)
        return seq

    draw = torch.Generator().manual_seed(0)
    with torch.random.fork_rng(devices=[]):
        check_component(build, *(torch.randn(5, 3, generator=draw) for _ in range(2)), tmp_path=tmp_path, seeded=False)
    x = torch.randn(2, 3)
    assert ReversibleSequence([])(x, x) == (x, x)
    with torch.inference_mode():
        assert build(draw)(x, x)[0].shape == (2, 3)


def _worker(rank: int, port: int, folder: str) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", rank=rank, world_size=2)
    seq = chain(lambda: conv(3), 3).double()
    for m in seq.modules():
        if isinstance(m, nn.BatchNorm2d):
            m.eval()
    net = nn.parallel.DistributedDataParallel(seq)
    x = torch.randn(8, 6, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = net(*x[4 * rank : 4 * rank + 4].chunk(2, 1))
    (y[0].square() + y[1]).mean().backward()
    torch.save([p.grad for p in seq.parameters()], f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_two_processes_see_the_mean_of_their_gradients(tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    mp.spawn(_worker, (port, str(tmp_path)), nprocs=2)
    ranks = [torch.load(tmp_path / f"{r}.pt") for r in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*ranks))
    seq = with_save(chain(lambda: conv(3), 3).double(), "all").eval()
    x = torch.randn(8, 6, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = seq(*x.chunk(2, 1))
    (y[0].square() + y[1]).mean().backward()
    assert apart(ranks[0], [p.grad for p in seq.parameters()]) < 1e-10


def test_one_block_is_transformers_reversible_layer():
    reformer = pytest.importorskip("transformers.models.reformer.modeling_reformer")
    f, g = smooth(4).double(), smooth(4).double()

    class Attention(nn.Module):
        def forward(self, hidden_states, **_):
            return reformer.AttentionOutput(hidden_states=f(hidden_states), attention_probs=None, buckets=None)

    layer = reformer.ReformerLayer.__new__(reformer.ReformerLayer)
    nn.Module.__init__(layer)
    layer.attention, layer.feed_forward, layer.attention_seed, layer.feed_forward_seed = Attention(), g, None, None
    layer.train()
    block = AdditiveCoupling(f, g)
    x1, x2 = (torch.randn(2, 5, 4, dtype=torch.float64) for _ in range(2))
    theirs = layer(x1, x2)
    ours = ReversibleSequence([block])(x1.requires_grad_(), x2.requires_grad_())
    assert torch.allclose(ours[0], theirs.attn_output) and torch.allclose(ours[1], theirs.hidden_states)
    pulls = [torch.randn_like(x1) for _ in range(2)]
    wanted = list(torch.autograd.grad(ours, [x1, x2, *block.parameters()], pulls))
    block.zero_grad()
    back = layer.backward_pass(theirs.attn_output.detach(), theirs.hidden_states.detach(), pulls[0], pulls[1])
    assert torch.allclose(back.attn_output, x1) and torch.allclose(back.hidden_states, x2)
    found = [back.grad_attn_output, back.grad_hidden_states, *(p.grad for p in block.parameters())]
    assert apart(found, wanted) < 1e-12


def test_cross_entropy_over_a_sequence_learns():
    seq, head = chain(lambda: smooth(4), 3), nn.Linear(8, 2)
    x = torch.randn(64, 8)
    y = (x[:, 0] > 0).long()
    solver = torch.optim.Adam([*seq.parameters(), *head.parameters()], 0.02)
    for _ in range(60):
        loss = F.cross_entropy(head(torch.cat(seq(*x.chunk(2, 1)), 1)), y)
        solver.zero_grad()
        loss.backward()
        solver.step()
    assert loss.item() < 0.2
