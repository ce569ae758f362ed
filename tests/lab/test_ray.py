"""`--engine ray`: the cases of ray_cases.py on a cluster on this machine, and what needs no cluster."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from precis.errors import InputError
from precis.lab import parcels, ray_node
from precis.lab.engine import Progress, Result
from precis.lab.loading import PaperSource
from precis.lab.parcels import digest_of, packed, unpack
from precis.lab.ray_engine import _bunched, _Flight, _knock
from precis.lab.ray_node import Keeper, Parcel, Seat, _owned, clear
from precis.lab.worker import Task

with_ray = pytest.mark.skipif(find_spec("ray") is None, reason="no ray here: pip install ray")
CASES = Path(__file__).with_name("ray_cases.py")


def left(base: Path) -> list[str]:
    """Processes that have this test's folder in their environment."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if place.name != str(os.getpid()) and str(base).encode() in (place / "environ").read_bytes():
                found.append((place / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200])
        except OSError:
            continue
    return found


@with_ray
def test_on_a_cluster_of_this_machine(tmp_path):
    """In one process, for all cases take one cluster, and without enforced shapes, for Ray looks at functions."""
    env = {**os.environ, "RAY_CASES": str(tmp_path), "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    env = {name: value for name, value in env.items() if not name.startswith("PYTEST_")}
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-p", "no:xdist", "-o",
               "addopts=-q --import-mode=importlib", "--durations=0", f"--basetemp={tmp_path / 'cases'}", str(CASES)]
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                               start_new_session=True, cwd=CASES.parents[2])
    try:
        out, _ = process.communicate(timeout=900)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    print(out)
    assert process.returncode == 0, out[-6000:]
    end = time.monotonic() + 60  # agents of a head that was killed notice it by themselves
    while left(tmp_path) and time.monotonic() < end:
        time.sleep(0.5)
    assert left(tmp_path) == []


@pytest.fixture
def cli(tmp_path):
    def run(*words: str, before: str = "") -> subprocess.CompletedProcess:
        env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PRECIS_HOME": str(tmp_path),
               "PRECIS_PAPERS": str(CASES.parent)}
        env.pop("RAY_ADDRESS", None)
        code = f"import sys; {before}\nfrom precis.cli import main\nsys.exit(main(sys.argv[1:]))"
        return subprocess.run([sys.executable, "-c", code, *words], env=env, capture_output=True, text=True, timeout=60)

    return run


def test_without_ray_one_line_says_what_to_install(cli):
    """A finder that knows no ray stands for an environment without it."""
    hide = ("import importlib.util as u; real = u.find_spec; "
            "u.find_spec = lambda name, *a: None if name == 'ray' else real(name, *a)")
    got = cli("check", "toy_paper", "--engine", "ray", before=hide)
    assert got.returncode == 2 and got.stdout == ""
    assert got.stderr == "precis: this needs ray, which is not installed: pip install ray\n"


@with_ray
def test_an_address_without_a_cluster_is_one_line(cli):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        got = cli("sweep", "toy_paper", "--engine", "ray", "--address", address)
    assert (got.returncode, got.stdout) == (2, "")
    assert got.stderr == f"precis: --address {address}: no Ray cluster answers there (Connection refused)\n"


def test_an_address_needs_the_engine(cli):
    got = cli("check", "siren", "--address", "auto")
    assert got.returncode == 2 and "it goes with --engine ray" in got.stderr


@pytest.mark.parametrize("answer", [b"HTTP/1.0 400 Bad request\r\n\r\n", b"", b"\0"])
def test_what_answers_must_be_rays_head(answer):
    with socket.create_server(("127.0.0.1", 0)) as server:
        def serve():
            line, _ = server.accept()
            with line:
                line.recv(100)
                line.sendall(answer)

        threading.Thread(target=serve, daemon=True).start()
        with pytest.raises(InputError, match="what answers there is not the head|no Ray cluster answers"):
            _knock(f"127.0.0.1:{server.getsockname()[1]}")


@pytest.mark.parametrize("address", ["somewhere", ":6379", "host:", "host:0", "host:99999", "host:x"])
def test_an_address_is_host_and_port(address):
    with pytest.raises(InputError, match="must be auto or HOST:PORT"):
        _knock(address)


def test_a_ray_client_is_told_what_to_do():
    with pytest.raises(InputError, match="run precis on a machine of the cluster"):
        _knock("ray://host:10001")


def test_files_arrive_as_they_were(tmp_path, monkeypatch):
    monkeypatch.setattr(parcels, "PIECE", 100)
    root = tmp_path / "paper"
    contents = {"a.py": b"x" * 250, "b/c.txt": b"", "b/d.bin": bytes(range(256)), "e": b"y" * 100}
    for name, data in {**contents, ".git/x": b"hidden", "__pycache__/a.pyc": b"cache"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    pieces = list(packed(root, tmp_path))
    assert all(sum(len(data) for _, data in piece) <= 100 for piece in pieces) and len(pieces) == 7
    unpack(pieces, tmp_path / "there")
    found = {p.relative_to(tmp_path / "there/paper").as_posix(): p.read_bytes()
             for p in (tmp_path / "there").rglob("*") if p.is_file()}
    assert found == contents
    unpack(packed(root / "a.py", root), tmp_path / "one")
    assert (tmp_path / "one/a.py").read_bytes() == contents["a.py"]
    (root / "e").write_bytes(b"z" * 100)
    assert digest_of(pieces) != digest_of(packed(root, tmp_path)) == digest_of(packed(root, tmp_path))


@pytest.mark.parametrize("name", ["../out", "/tmp/out", "in/../../out"])
def test_a_parcel_stays_in_its_folder(tmp_path, name):
    with pytest.raises(ValueError, match="outside its folder"):
        unpack([[(name, b"x")]], tmp_path / "folder")


def test_one_node_makes_a_training_and_the_right_passes_on(tmp_path):
    keeper, home, other = Keeper(), str(tmp_path), str(tmp_path / "other")
    assert keeper.wanted(home, "d", "one") == "make" and keeper.wanted(home, "d", "one") == "make"
    assert keeper.wanted(home, "d", "two") == "wait" and keeper.wanted(home, "e", "two") == "make"
    assert keeper.wanted(other, "d", "two") == "make"
    keeper.ended("one")
    assert keeper.wanted(home, "d", "two") == "make" and keeper.wanted(home, "e", "one") == "wait"


def test_data_are_taken_by_path_where_the_same_lie_there(tmp_path):
    from precis.lab.fingerprint import data_fingerprint

    file = tmp_path / "data.txt"
    file.write_text("1 2 3")
    there = Parcel(data_fingerprint(file), str(file), None)
    seat = SimpleNamespace(_same={})
    assert Seat._has(seat, there)
    assert not Seat._has(seat, Parcel("another", str(file), None))
    assert not Seat._has(seat, Parcel(there.digest, str(tmp_path / "nowhere"), None))


def test_a_node_is_cleared_of_engines_that_are_gone(tmp_path, monkeypatch):
    monkeypatch.setattr(ray_node, "_base", lambda: tmp_path)
    alive, held = _owned("alive")
    (alive / "parcels").mkdir()
    dead, handle = _owned("dead")
    os.close(handle)
    _owned("new")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["alive", "alive.owner", "all.lock", "new", "new.owner"]
    clear("alive")
    os.close(held)
    assert not alive.exists() and not dead.exists()


def test_results_that_came_together_say_so():
    task = Task(PaperSource("paper", Path()), "claim", ("a",), (0, 1, 2), "quick")
    flight = _Flight(task, task.rows(), None, "")
    coming = [Result(task, arm, seed) for arm, seed in flight.left]
    got = list(_bunched(iter([coming[0], Progress(task, "a", 1), *coming[1:]])))
    assert [one.more for one in got if isinstance(one, Result)] == [True, True, False] and len(got) == 4

    def breaks():
        yield coming[0]
        raise InputError("no")

    kept = _bunched(breaks())
    assert next(kept) == coming[0]
    with pytest.raises(InputError, match="no"):
        next(kept)
