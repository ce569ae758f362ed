"""What needs a process of its own: losses gathered over several, and compiled ones."""

import subprocess
import sys
from pathlib import Path

import torch

from precis.contrastive.ntxent_loss import nt_xent


def test_gathered_losses_and_gradients_are_those_of_the_whole_batch(tmp_path):
    """Two processes of three pictures: the mean of losses is the loss of six, and so are the means of gradients."""
    peer = Path(__file__).with_name("gather_peer.py")
    started = [
        subprocess.Popen([sys.executable, str(peer), str(rank), str(tmp_path / "meet"), str(tmp_path / f"{rank}.pt")])
        for rank in (0, 1)
    ]
    assert [p.wait(120) for p in started] == [0, 0]
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    g = torch.Generator().manual_seed(0)
    z1, z2 = (torch.randn(6, 4, generator=g, dtype=torch.float64).requires_grad_() for _ in range(2))
    whole = nt_xent(z1, z2, 0.3)
    whole.backward()
    torch.testing.assert_close((parts[0]["loss"] + parts[1]["loss"]) / 2, whole.detach())
    for name, z in (("a", z1), ("b", z2)):
        torch.testing.assert_close(torch.cat([p[name] for p in parts]) / 2, z.grad)


def test_compiled_and_eager_losses_of_all_papers_are_equal():
    script = Path(__file__).with_name("compiled.py")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert done.returncode == 0 and len(done.stdout.split()) == 9, done.stderr
