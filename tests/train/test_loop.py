import math

import pytest
import torch
from torch import nn

from precis.errors import InputError, RunFailed, Stopped
from precis.train import loop
from precis.train.ema import EMA
from precis.train.feed import Feed
from precis.train.loop import Budget, Patience, fit, index_batches, param_groups
from precis.train.schedule import cosine, linear

G = lambda seed: torch.Generator().manual_seed(seed)
X = torch.randn(37, 3, generator=G(0))
Y = X @ torch.randn(3, 2, generator=G(1))


class Setup:
    """A net with batch norm and dropout, noise from a generator, Adam, an average: all that a checkpoint must hold."""

    def __init__(self, **options):
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2), nn.Linear(8, 2))
        self.noise = G(3)
        self.ema = EMA(self.net, 0.9)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=1e-2)
        self.batches = index_batches(len(X), 5, G(2))
        self.options = dict(budget=Budget(steps=20), schedule=cosine(), clip=1.0, accumulate=1) | options
        self.calls = 0

    def step(self, i):
        self.calls += 1
        x = X[i] + 0.1 * torch.randn(X[i].shape, generator=self.noise)
        loss = (self.net(x) - Y[i]).square().mean()
        return {"loss": loss, "rmse": loss.sqrt()} if self.calls % 3 else loss

    def fit(self, **more):
        return fit(self.step, self.batches, optimizer=self.optimizer, ema=self.ema,
                   keep={"net": self.net, "noise": self.noise}, **self.options | more)  # fmt: skip

    def state(self):
        return [*self.net.state_dict().values(), *self.ema.model.state_dict().values(), self.noise.get_state()]


def same(a, b):
    return all(torch.equal(p, q) for p, q in zip(a, b, strict=True))


def stopper(at):
    def log(step, total, **scalars):
        if step == at:
            raise Stopped

    return log


@pytest.fixture
def every_step(monkeypatch):
    monkeypatch.setattr(loop, "LOG_SECONDS", 0.0)


@pytest.mark.parametrize("at", [1, 4, 7, 8, 9, 16, 19])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_resumed_to_the_bit(tmp_path, every_step, at, accumulate):
    whole = Setup(accumulate=accumulate)
    run = whole.fit()
    first = Setup(accumulate=accumulate)
    with pytest.raises(Stopped):
        first.fit(folder=tmp_path, log=stopper(at))
    torch.manual_seed(99)
    second = Setup(accumulate=accumulate)
    resumed = second.fit(folder=tmp_path, resume=True)
    assert second.calls == (20 - at) * accumulate
    assert same(whole.state(), second.state())
    assert resumed.curves["loss"] == run.curves["loss"] and resumed.steps == 20
    assert len(run.curves["loss"].steps) == 20


def test_a_killed_run_goes_on_from_its_last_checkpoint(tmp_path, every_step):
    whole = Setup()
    whole.fit()

    class Killed(BaseException):
        pass

    broken = Setup()
    original = broken.step

    def step(i):
        if broken.calls == 13:
            raise Killed
        return original(i)

    broken.step = step
    with pytest.raises(Killed):
        broken.fit(folder=tmp_path, checkpoint_seconds=0)
    second = Setup()
    second.fit(folder=tmp_path, resume=True)
    assert second.calls == 20 - 13 and same(whole.state(), second.state())


def test_interrupted_twice_and_resumed_after_the_end(tmp_path, every_step):
    whole = Setup()
    run = whole.fit()
    for at in (3, 11):
        with pytest.raises(Stopped):
            Setup().fit(folder=tmp_path, resume=True, log=stopper(at))
    last = Setup()
    last.fit(folder=tmp_path, resume=True)
    again = Setup()
    assert again.fit(folder=tmp_path, resume=True).curves["loss"] == run.curves["loss"]
    assert again.calls == 0 and same(whole.state(), again.state())


def test_the_parameters_are_kept_without_the_module(tmp_path, every_step):
    def go(**more):
        p = nn.Parameter(torch.ones(3))
        stream = (torch.randn(3, generator=g) for g in [G(5)] for _ in range(100))
        fit(lambda z: (p - z).square().sum(), stream, budget=Budget(steps=12),
            optimizer=torch.optim.SGD([p], 0.1, momentum=0.9), **more)  # fmt: skip
        return p

    whole = go()
    with pytest.raises(Stopped):
        go(folder=tmp_path, log=stopper(5))
    assert torch.equal(go(folder=tmp_path, resume=True), whole)


def test_equals_a_loop_written_out():
    setup = Setup(accumulate=2, schedule=linear())
    run = setup.fit()
    other = Setup()
    order = index_batches(len(X), 5, G(2))
    batches = (i for _ in range(10) for i in order)
    losses = []
    for k in range(20):
        other.optimizer.param_groups[0]["lr"] = 1e-2 * (1 - k / 20)
        other.optimizer.zero_grad()
        total = 0.0
        for _ in range(2):
            i = next(batches)
            x = X[i] + 0.1 * torch.randn(X[i].shape, generator=other.noise)
            loss = (other.net(x) - Y[i]).square().mean() / 2
            loss.backward()
            total += float(loss.detach())
        nn.utils.clip_grad_norm_(other.net.parameters(), 1.0)
        other.optimizer.step()
        other.ema.update()
        losses.append(total)
    assert same(setup.state(), other.state())
    assert run.curves["loss"].values == pytest.approx(losses, rel=1e-6)
    assert setup.optimizer.param_groups[0]["lr"] == 1e-2


@pytest.mark.parametrize("checkpointed", [False, True])
def test_a_loss_that_is_not_finite_ends_the_run_before_it_does_harm(tmp_path, checkpointed):
    p = nn.Parameter(torch.ones(1))

    def step(k):
        return (p * (math.nan if k == 3 else 1.0)).sum()

    with pytest.raises(RunFailed, match="nan at step 4") as error:
        fit(step, range(9), budget=Budget(steps=9), optimizer=torch.optim.SGD([p], 0.1),
            folder=tmp_path if checkpointed else None, checkpoint_seconds=0)  # fmt: skip
    assert ("last good checkpoint" in str(error.value)) == checkpointed
    torch.testing.assert_close(p.data, torch.tensor([0.7]))
    if checkpointed:
        q = nn.Parameter(torch.zeros(1))
        fit(lambda k: (q * 0).sum(), range(9), budget=Budget(steps=4), optimizer=torch.optim.SGD([q], 0.1),
            folder=tmp_path, resume=True)  # fmt: skip
        torch.testing.assert_close(q.data, torch.tensor([0.7]))


def test_no_memory_is_a_failed_run():
    def step(batch):
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(RunFailed, match="out of memory at step 1"):
        fit(step, [0], budget=Budget(steps=1), optimizer=None)


def test_log_is_called_first_and_last_and_seldom_in_between():
    calls = []
    Setup(budget=Budget(epochs=3)).fit(log=lambda step, total, **s: calls.append((step, total, set(s))))
    assert calls[0][:2] == (1, 24) and calls[-1][:2] == (24, 24)
    assert len(calls) < 24 and all(names <= {"loss", "rmse"} for _, _, names in calls)


def test_metrics_that_come_now_and_then_have_their_own_steps():
    run = Setup().fit()
    assert run.curves["loss"].steps == list(range(1, 21))
    assert run.curves["rmse"].steps == [k for k in range(1, 21) if k % 3]


@pytest.mark.parametrize(
    "budget, steps",
    [(Budget(steps=5), 5), (Budget(epochs=2), 16), (Budget(epochs=0.5), 4), (Budget(steps=5, epochs=9), 5),
     (Budget(steps=50, epochs=1), 8)],
)  # fmt: skip
def test_the_first_limit_ends(budget, steps):
    run = Setup(budget=budget).fit()
    assert run.steps == steps and budget.progress == 1 and run.repeatable


def test_minutes_end_a_run_that_cannot_be_repeated():
    seen = []
    budget = Budget(minutes=0.05 / 60, steps=10**9)
    run = fit(lambda b: seen.append(budget.progress) or torch.zeros(()), [0], budget=budget, optimizer=None)
    assert not run.repeatable and run.seconds >= 0.05 and run.steps == len(seen)
    assert seen == sorted(seen) and 0 <= seen[0] < 0.5


def test_stopping_early(tmp_path):
    run = fit(lambda k: {"loss": 1.0, "error": float(abs(k - 10))}, range(100), budget=Budget(steps=90),
              optimizer=None, stop=Patience("error", 7), folder=tmp_path)  # fmt: skip
    assert run.steps == 18
    again = fit(lambda k: 1 / 0, range(100), budget=Budget(steps=90), optimizer=None, folder=tmp_path, resume=True)
    assert again.steps == 18


def test_patience_can_wait_for_a_rise_and_be_kept():
    patience = Patience("accuracy", 3, least=0.1, rising=True)
    assert [patience(k, {"accuracy": torch.tensor(v)}) for k, v in enumerate([0.1, 0.5, 0.55, 0.58], 1)] == [False] * 4
    other = Patience("accuracy", 3, least=0.1, rising=True)
    other.load_state_dict(patience.state_dict())
    assert other(5, {"accuracy": torch.tensor(0.59)})


def test_bf16_runs_the_step_under_autocast():
    net = nn.Linear(3, 2)
    seen = []

    def step(i):
        out = net(X[i])
        seen.append(out.dtype)
        return (out.float() - Y[i]).square().mean()

    fit(step, index_batches(37, 8, G(0)), budget=Budget(steps=2), optimizer=torch.optim.SGD(net.parameters(), 0.1),
        precision="bf16")  # fmt: skip
    assert seen == [torch.bfloat16] * 2 and net.weight.dtype == torch.float32


def test_optimisers_in_keep_follow_the_schedule():
    p = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([p], 1.0)

    def step(_):
        p.grad = torch.ones(1)
        optimizer.step()
        return 0.0 * p.sum()

    fit(lambda b: {"loss": step(b)}, [0], budget=Budget(steps=4), optimizer=None, schedule=linear(),
        keep={"optimizer": optimizer})  # fmt: skip
    assert float(p.detach()) == -(1 + 0.75 + 0.5 + 0.25)


def test_index_batches_cover_every_example_once_an_epoch():
    batches = index_batches(10, 4, G(0))
    first, second = [torch.cat(list(batches)) for _ in range(2)]
    assert len(batches) == 3 and first.sort().values.tolist() == list(range(10))
    assert not torch.equal(first, second) and torch.equal(torch.cat(list(index_batches(10, 4, G(0)))), first)
    assert [len(b) for b in index_batches(10, 4, G(0), drop_last=True)] == [4, 4]
    assert torch.cat(list(index_batches(5, 2, None))).tolist() == [0, 1, 2, 3, 4]


def test_batches_that_are_none_resume_and_fewer_batches_than_before_do_not():
    feed = Feed([None, None, None])
    for _ in range(2):
        feed.next()
    again = Feed([None, None, None])
    again.load_state_dict(feed.state_dict())
    assert (again.epoch, again.position) == (0, 2) and again.next() is None and again.epochs() == 1
    with pytest.raises(ValueError, match="it was at batch 2, these are only 1"):
        Feed([None]).load_state_dict(feed.state_dict())


def test_leaving_an_epoch_early_starts_a_new_one():
    batches = index_batches(10, 4, G(0))
    next(iter(batches))
    assert len(torch.cat(list(batches))) == 10


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: Budget(), "budget"),
        (lambda: Budget(steps=0), "steps must be positive"),
        (lambda: Budget(minutes=math.nan), "minutes must be positive"),
        (lambda: index_batches(0, 4, None), "at least one example"),
        (lambda: index_batches(3, 4, None, drop_last=True), "3 examples do not fill one batch of 4"),
        (lambda: fit(lambda b: {"loss": 0.0}, [], budget=Budget(steps=1), optimizer=None), "no batches"),
        (lambda: fit(lambda b: {"loss": 0.0}, iter([1, 2]), budget=Budget(steps=3), optimizer=None), "no batches left"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(InputError, match=message):
        call()


@pytest.mark.parametrize("damage", ["foreign", "cut", "other net"])
def test_a_checkpoint_that_does_not_fit(tmp_path, damage):
    Setup().fit(folder=tmp_path)
    path = tmp_path / loop.CHECKPOINT
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:1000])
    elif damage == "foreign":
        path.write_bytes(b"\x80\x04 not safetensors")
    other = Setup()
    if damage == "other net":
        other.net[0] = nn.Linear(3, 9)
    with pytest.raises(InputError, match=str(path)):
        other.fit(folder=tmp_path, resume=True)


def test_weight_decay_spares_biases_and_norms():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.norm = nn.Embedding(4, 3), nn.LayerNorm(3)
            self.out = nn.Linear(3, 4)
            self.out.weight = self.embed.weight
            self.token = nn.Parameter(torch.zeros(3))

    net = Net()
    decay, spare = param_groups(net, 0.1)
    assert [id(p) for p in decay["params"]] == [id(net.token), id(net.embed.weight)] and decay["weight_decay"] == 0.1
    assert {id(p) for p in spare["params"]} == {id(net.norm.weight), id(net.norm.bias), id(net.out.bias)}
    assert spare["weight_decay"] == 0
    assert [len(g["params"]) for g in param_groups(net, 0.1, skip=("token",))] == [4, 1]
