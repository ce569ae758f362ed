from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from precis.errors import InputError
from precis.train.loop import Budget, index_batches
from precis.train.many import ManyAdam, ManySGD, clip_each_, fit_many
from precis.train.schedule import cosine

G = lambda seed: torch.Generator().manual_seed(seed)
X = torch.randn(22, 1, 6, 6, generator=G(0))
LABELS = torch.randint(0, 3, (22,), generator=G(1))
SEEDS = [3, 4, 8]


class Net(nn.Module):
    def __init__(self, norm=True):
        super().__init__()
        # A bias before batch norm has no gradient but rounding, which Adam would blow up.
        self.conv, self.norm = nn.Conv2d(1, 4, 3, bias=not norm), nn.BatchNorm2d(4) if norm else nn.GroupNorm(2, 4)
        self.head = nn.Linear(4, 3)

    def features(self, x):
        return self.norm(self.conv(x)).relu().mean((2, 3))

    def forward(self, x):
        return self.head(self.features(x))


def step(model, batch):
    x, y = batch
    return F.cross_entropy(model(x), y)


def alone(seed, make, *, rate, steps, size=5, labels=LABELS, clip=None, schedule=None, freeze=()):
    """One copy by torch's own optimiser, written out."""
    torch.manual_seed(seed)
    net = Net()
    trained = [p for name, p in net.named_parameters() if not name.startswith(tuple(freeze))] if freeze else None
    optimizer = make(trained or list(net.parameters()), lr=rate)
    order = index_batches(len(X), size, G(seed)) if size else None
    batches = (i for _ in range(99) for i in order) if order else iter([slice(None)] * 99)
    losses = []
    for k in range(steps):
        i = next(batches)
        optimizer.param_groups[0]["lr"] = rate * (schedule(k / steps) if schedule else 1)
        optimizer.zero_grad()
        loss = step(net, (X[i], labels[i]))
        loss.backward()
        if clip:
            nn.utils.clip_grad_norm_(net.parameters(), clip)
        optimizer.step()
        losses.append(loss.detach())
    return net.eval(), torch.stack(losses)


PAIRS = {
    "adam": (ManyAdam, torch.optim.Adam),
    "adamw": (partial(ManyAdam, weight_decay=0.1), partial(torch.optim.AdamW, weight_decay=0.1)),
    "l2": (partial(ManyAdam, weight_decay=0.1, decoupled=False), partial(torch.optim.Adam, weight_decay=0.1)),
    "sgd": (ManySGD, torch.optim.SGD),
    "momentum": [partial(sgd, momentum=0.9, weight_decay=0.01) for sgd in (ManySGD, torch.optim.SGD)],
    "nesterov": [partial(sgd, momentum=0.9, nesterov=True) for sgd in (ManySGD, torch.optim.SGD)],
}


def compare(many, singles):
    for m, (net, losses) in enumerate(singles):
        torch.testing.assert_close(many.curves["loss"][m], losses, atol=1e-5, rtol=1e-5)
        mine = many.module(m)
        for (name, a), b in zip(net.state_dict().items(), mine.state_dict().values(), strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5, msg=lambda text, name=name: f"{name}: {text}")
        torch.testing.assert_close(many.predict(X)[m], net(X), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", list(PAIRS))
@pytest.mark.parametrize("per_copy", [False, True])
def test_equals_single_runs(name, per_copy):
    ours, theirs = PAIRS[name]
    rates = [0.01, 0.003, 0.02] if per_copy else [0.01] * 3
    many = fit_many(lambda seed: Net(), SEEDS, (X, LABELS), step, budget=Budget(steps=12), optimizer=ours, size=5,
                    lr=torch.tensor(rates) if per_copy else 0.01, schedule=cosine())  # fmt: skip
    compare(many, [alone(s, theirs, rate=r, steps=12, schedule=cosine()) for s, r in zip(SEEDS, rates)])
    assert many.steps.tolist() == [12] * 3 and many.curves["loss"].shape == (3, 12)


def test_clipping_and_whole_batches():
    many = fit_many(lambda seed: Net(), SEEDS, (X, LABELS), step, budget=Budget(epochs=6), optimizer=ManySGD, lr=0.5,
                    clip=0.1)  # fmt: skip
    compare(many, [alone(s, torch.optim.SGD, rate=0.5, steps=6, size=None, clip=0.1) for s in SEEDS])


def test_data_of_each_copys_own():
    labels = torch.stack([LABELS.roll(m) for m in range(3)])
    data = {"x": X, "y": labels}
    many = fit_many(lambda seed: Net(), SEEDS, data, lambda model, b: step(model, (b["x"], b["y"])), own={"y"},
                    budget=Budget(steps=8), lr=0.01, size=5)  # fmt: skip
    compare(many, [alone(s, torch.optim.Adam, rate=0.01, steps=8, labels=y) for s, y in zip(SEEDS, labels)])
    whole = fit_many(lambda seed: Net(), SEEDS, (X, labels), step, own={1}, budget=Budget(steps=4), lr=0.01)
    compare(whole, [alone(s, torch.optim.Adam, rate=0.01, steps=4, labels=y, size=None) for s, y in zip(SEEDS, labels)])


@pytest.mark.parametrize("freeze", [("conv", "norm"), lambda name: name.startswith(("conv", "norm"))])
def test_frozen_parameters_stay(freeze):
    many = fit_many(lambda seed: Net(), SEEDS, (X, LABELS), step, budget=Budget(steps=8), lr=0.01, size=5,
                    freeze=freeze)  # fmt: skip
    compare(many, [alone(s, torch.optim.Adam, rate=0.01, steps=8, freeze=("conv", "norm")) for s in SEEDS])


def test_a_copy_does_not_depend_on_its_mates():
    train = lambda seeds: fit_many(lambda s: Net(), seeds, (X, LABELS), step, budget=Budget(steps=8), lr=0.01, size=5)
    many, single = train(SEEDS), train(SEEDS[1:2])
    torch.testing.assert_close(many.curves["loss"][1:2], single.curves["loss"], atol=1e-5, rtol=1e-5)


def test_a_diverged_copy_stops_and_harms_no_other():
    rates = torch.tensor([0.01, 1e20, 0.01])
    many = fit_many(lambda seed: Net(norm=False), SEEDS, (X, LABELS), step, budget=Budget(steps=8), optimizer=ManySGD,
                    lr=rates, size=5)  # fmt: skip
    assert many.diverged.tolist() == [False, True, False]
    assert many.steps[1] < 8 and many.steps[0] == many.steps[2] == 8
    assert all(p.isfinite().all() for p in many.params.values())
    assert many.curves["loss"][1, many.steps[1] :].isnan().all()
    pair = fit_many(lambda seed: Net(norm=False), SEEDS[::2], (X, LABELS), step, budget=Budget(steps=8), lr=0.01,
                    optimizer=ManySGD, size=5)  # fmt: skip
    torch.testing.assert_close(many.curves["loss"][::2], pair.curves["loss"], atol=1e-5, rtol=1e-5)


def test_each_copy_has_its_own_end():
    ends = torch.tensor([3, 6, 99])
    many = fit_many(lambda seed: Net(), SEEDS, (X, LABELS), step, budget=Budget(steps=8), lr=0.01, size=5,
                    stop=lambda k, scalars: ends <= k)  # fmt: skip
    assert many.steps.tolist() == [3, 6, 8] and not many.diverged.any()
    for m, (seed, steps) in enumerate(zip(SEEDS, (3, 6, 8))):
        net, losses = alone(seed, torch.optim.Adam, rate=0.01, steps=steps)
        torch.testing.assert_close(many.curves["loss"][m, :steps], losses, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(many.predict(X)[m], net(X), atol=1e-5, rtol=1e-5)
    early = fit_many(lambda seed: Net(), SEEDS, (X, LABELS), step, budget=Budget(steps=80), lr=0.01,
                     stop=lambda k, scalars: scalars["loss"] < 9)  # fmt: skip
    assert early.steps.tolist() == [1, 1, 1] and early.curves["loss"].shape == (3, 1)


def test_methods_metrics_and_drawn_data():
    def draw(k, generators):
        x = torch.stack([torch.randn(4, 1, 6, 6, generator=g) for g in generators])
        return x, x.mean((2, 3, 4)) + k

    def regress(model, batch):
        x, y = batch
        loss = (model.features(x).mean(1) - y).square().mean()
        return {"loss": loss, "size": model.features(x).abs().mean()}

    train = lambda seeds: fit_many(lambda s: Net(), seeds, draw, regress, budget=Budget(steps=5), lr=0.01)
    many = train(SEEDS)
    assert set(many.curves) == {"loss", "size"} and many.curves["size"].shape == (3, 5)
    torch.testing.assert_close(many.curves["size"][:1], train(SEEDS[:1]).curves["size"], atol=1e-5, rtol=1e-5)


def test_random_layers_only_on_request():
    build = lambda seed: nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(36, 3))
    train = lambda **more: fit_many(build, SEEDS, (X, LABELS), step, budget=Budget(steps=3), lr=0.01, **more)
    with pytest.raises(RuntimeError, match="randomness"):
        train()
    before = torch.get_rng_state()
    a, b = train(randomness="different"), train(randomness="different")
    assert torch.equal(a.curves["loss"], b.curves["loss"]) and torch.equal(torch.get_rng_state(), before)


def test_predicting_in_parts_and_on_each_copys_own_inputs():
    many = fit_many(lambda seed: Net(), SEEDS, (X, LABELS), step, budget=Budget(steps=2), lr=0.01)
    torch.testing.assert_close(many.predict(X, batch=5), many.predict(X))
    own = many.predict(torch.stack([X, X.flip(0), X]), own=True, batch=7)
    torch.testing.assert_close(own[1].flip(0), many.predict(X)[1])


def test_progress_is_logged():
    calls = []
    fit_many(lambda seed: Net(), SEEDS, (X, LABELS), step, budget=Budget(epochs=2), lr=0.01, size=5,
             log=lambda step, total, **s: calls.append((step, total, list(s))))  # fmt: skip
    assert calls[0] == (1, 10, ["loss"]) and calls[-1] == (10, 10, ["loss"])


def test_clipping_each_copy():
    grads = [torch.randn(3, 4, 2, generator=G(0)), torch.randn(3, 5, generator=G(1))]
    grads[0][1] *= 1e-3
    grads[1][1] *= 1e-3
    singles = [[g[m].clone().requires_grad_() for g in grads] for m in range(3)]
    for leaves in singles:
        for leaf in leaves:
            leaf.grad = leaf.detach().clone()
    expected = torch.stack([nn.utils.clip_grad_norm_(leaves, 0.5) for leaves in singles])
    torch.testing.assert_close(clip_each_(grads, 0.5), expected)
    for m, leaves in enumerate(singles):
        for g, leaf in zip(grads, leaves):
            torch.testing.assert_close(g[m], leaf.grad)


@pytest.mark.parametrize("name", ["adam", "momentum"])
def test_optimisers_resume_from_their_state(name):
    ours, _ = PAIRS[name]
    p = torch.ones(3, 2, requires_grad=True)
    solver = ours([p], lr=torch.tensor([0.1, 0.2, 0.3]))
    path = []
    for k in range(6):
        if k == 3:
            saved, state = p.detach().clone(), solver.state_dict()
            p = saved.requires_grad_()
            solver = ours([p], lr=torch.tensor([0.0, 0.0, 0.0]))
            solver.load_state_dict(state)
        p.grad = p.detach() * (k + 1)
        solver.step()
        path.append(p.detach().clone())
    q = torch.ones(3, 2, requires_grad=True)
    solver = ours([q], lr=torch.tensor([0.1, 0.2, 0.3]))
    for k in range(6):
        q.grad = q.detach() * (k + 1)
        solver.step()
    assert torch.equal(p, q)


@pytest.mark.parametrize(
    "error, message, options",
    [
        (InputError, "at least one seed", {"seeds": []}),
        (InputError, "equal length", {"data": (X, LABELS[:3])}),
        (InputError, "no epochs", {"data": lambda k, g: (X, LABELS), "budget": Budget(epochs=1)}),
        (ValueError, "as many generators", {"order": [G(0)]}),
        (ValueError, "own names", {"own": {"z"}}),
        (ValueError, "must begin with 3", {"data": (X[:2, None], LABELS[:1]), "own": {0}}),
        (ValueError, "rates", {"lr": torch.tensor([0.1, 0.1])}),
    ],
)
def test_bad_input(error, message, options):
    options = {"seeds": SEEDS, "data": (X, LABELS), "budget": Budget(steps=1), "lr": 0.1} | options
    with pytest.raises(error, match=message):
        fit_many(lambda s: Net(), step=step, **options)


def test_an_incomplete_last_batch_can_be_left_out():
    x, sizes = torch.zeros(10, 1), []

    def step(model, batch):
        sizes.append(len(batch))
        return model(batch).square().mean()

    fit_many(lambda seed: nn.Linear(1, 1), (0, 1), x, step, budget=Budget(epochs=2), lr=0.1, size=4, drop_last=True)
    assert sizes == [4, 4, 4, 4]


@pytest.mark.parametrize("own", [(), (0, 1)])
def test_one_copy_alone_is_the_same_copy_among_others(own):
    data = (X, LABELS) if not own else (X.expand(3, *X.shape), LABELS.expand(3, -1))
    given = {"budget": Budget(steps=6), "lr": 0.1, "size": 5, "own": own}
    three = fit_many(lambda seed: Net(), SEEDS, data, step, **given)
    one = fit_many(lambda seed: Net(), SEEDS[1:2], tuple(x[1:2] for x in data) if own else data, step, **given)
    for name, value in (one.params | one.buffers).items():
        torch.testing.assert_close(value[0], (three.params | three.buffers)[name][1], atol=1e-5, rtol=1e-5)
    assert torch.allclose(one.curves["loss"][0], three.curves["loss"][1], atol=1e-5)
