import json

import pytest

import precis
from precis.errors import InputError, RunFailed, Stopped
from precis.papers.opening import claim_of, job_of, make_job
from precis.papers.running import (
    _as_markdown,
    _pictures,
    _stem,
    check_input,
    command_of,
    number,
    pick_device,
    run_job,
)
from precis.papers.work import RunFolder, save


def test_a_run_ends_with_its_result(toy, tmp_path):
    (tmp_path / "in.txt").write_text("words")
    heard = []
    done = run_job(toy, make_job(toy, "in.txt", steps=4, device="cpu"), listen=heard.append)
    assert done.folder.name == f"{toy.id}-in" and done.metrics["psnr"] == float("inf")
    result = json.loads((done.folder / "result.json").read_text())
    assert result == done.result
    assert result["paper"] == toy.id and result["task"] == "up" and result["input"] == "in.txt"
    assert result["metrics"] == {"count": 4.0, "psnr": None, "began": 0.0}
    assert result["settings"]["steps"] == 4 and "seed" not in result["settings"]
    assert result["repeatable"] is True and result["seconds"] >= 0 and result["peak_memory_mb"] > 1
    assert result["files"][0] == "count.png" and set(result["files"]) == {"count.png", "report.md", "table.csv"}
    assert [e["step"] for e in heard if e["event"] == "log"] == [1, 2, 3, 4]
    report = (done.folder / "report.md").read_text()
    assert f"precis run {toy.id} in.txt --device cpu --steps 4" in report and "![count.png](count.png)" in report
    assert "| psnr | inf |" in report


def test_a_report_shows_what_was_shown_and_no_series(tmp_path):
    work = RunFolder(tmp_path, "cpu", {})
    for name in ("depth/0.png", "orbit/0.png", "test/a.png"):
        save(tmp_path / name, b"")
    assert _pictures(work, work.files()) == ["depth/0.png", "orbit/0.png", "test/a.png"]  # if that is all there is
    save(tmp_path / "top.png", b"")
    work.show("test/a.png")
    assert _pictures(work, work.files()) == ["test/a.png", "top.png"]
    work.close()


def test_a_table_of_the_report():
    rows = [{"layer": "a|b", "shape": (3, 4), "weights": 12, "surviving_ones": 0.25}]
    assert _as_markdown("the_layers", rows) == [
        "The layers:", "", "| layer | shape | weights | surviving ones |", "| --- | --- | ---: | ---: |",
        "| a\\|b | 3×4 | 12 | 0.25 |", "",
    ]
    assert _as_markdown("none", []) == []


def test_the_sample_serves_where_no_input_is_named(toy):
    told = []
    done = precis.run(toy.id, device="cpu", out="here", listen=told.append)
    assert done.result["input"] == "words.txt" and done.folder.name == "here"
    assert any("built-in sample" in note for note in done.result["notes"])
    assert told[0] == {"event": "sample"} and {"event": "sample"} not in told[1:]


@pytest.mark.parametrize(("fail", "words"), [
    ("memory", "out of memory"), ("torch memory", "out of memory"), ("disk", "the disk is full"),
    ("diverged", "not finite at step 2"),
])
def test_what_was_finished_is_kept(toy, tmp_path, fail, words):
    with pytest.raises(RunFailed, match=words):
        run_job(toy, make_job(toy, fail=fail, device="cpu"), out=tmp_path / "out")
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert names == {"run.json", "events.jsonl", "half.png"}


def test_bad_input_leaves_no_folder(toy, tmp_path):
    with pytest.raises(InputError, match="row 3: the row is empty"):
        run_job(toy, make_job(toy, fail="input", device="cpu"), out=tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError):
        run_job(toy, make_job(toy, fail="input", device="cpu"), out=tmp_path / "empty")
    assert not (tmp_path / "out").exists() and list((tmp_path / "empty").iterdir()) == []


def test_a_bug_keeps_its_own_name(toy, tmp_path):
    with pytest.raises(ZeroDivisionError):
        run_job(toy, make_job(toy, fail="bug", device="cpu"), out=tmp_path / "out")


def test_input_is_looked_at_before_work_starts(toy, tmp_path):
    (tmp_path / "blob.bin").write_bytes(bytes(range(256)))
    for given, words in (("nowhere.png", "no such file"), ("blob.bin", "must be an image or text")):
        with pytest.raises(InputError, match=words):
            run_job(toy, make_job(toy, given, device="cpu"))
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith("toy_")] == []


def test_stop_and_resume(toy, tmp_path):
    stop = {"after": 2, "now": False}

    def hear(event):
        stop["now"] = event["event"] == "log" and event["step"] >= stop["after"]

    job = lambda: make_job(toy, steps=5, device="cpu")
    with pytest.raises(Stopped, match="--resume"):
        run_job(toy, job(), listen=hear, stopping=lambda: stop["now"])
    with pytest.raises(InputError, match="steps: 5, not 6"):
        run_job(toy, make_job(toy, steps=6, device="cpu"), resume=True)
    done = run_job(toy, job(), resume=True)
    assert done.metrics["began"] == 2 and done.result["notes"][1:3] == ["began at 0", "began at 2"]


@pytest.mark.parametrize(("options", "words"), [
    ({"steps": 0}, "--steps must be at least 1"), ({"step": 1}, "no option 'step'; did you mean 'steps'"),
    ({"task": "sideways"}, "task must be one of 'up', 'down'"), ({"steps": 2.5}, "steps must be int"),
    ({"steps": True}, "steps must be int"), ({"size": (1, 2, 3)}, "size must be"), ({"fast": 1}, "fast must be bool"),
    ({"seed": -1}, "--seed must be at least 0"),
    ({"seed": 2**32}, "--seed must be at most 4294967295, got 4294967296"),
    ({"seed": 10**400}, "--seed must be at most 4294967295, got 1000"),
])
def test_options_are_checked_in_python_too(toy, options, words):
    with pytest.raises(InputError, match=words):
        make_job(toy, **options)


def test_the_command_that_does_it_again(toy):
    job = make_job(toy, "a b.png", size=(2, 3), fast=True, seed=4, pause=1)
    assert command_of(toy, job, "a b.png") == f"precis run {toy.id} 'a b.png' --seed 4 --pause 1 --size 2 3 --fast"


def test_an_option_that_is_the_commands_own(toy):
    job = toy.source.folder / "job.py"
    job.write_text(job.read_text().replace("    fast:", "    resume:"))
    with pytest.raises(InputError, match="--resume is the command's own"):
        job_of(toy)


def test_files_that_are_not_python(toy):
    (toy.source.folder / "job.py").write_text("x = (\n")
    with pytest.raises(InputError, match=r"job\.py:1: is not Python"):
        job_of(toy)
    (toy.source.folder / "claims.py").write_text("import no_such_module_here\n")
    with pytest.raises(InputError, match="cannot be imported: No module named 'no_such_module_here'"):
        claim_of(toy, "up_beats_down")
    (toy.source.folder / "job.py").unlink()
    with pytest.raises(InputError, match="nothing to run"):
        job_of(toy)


def test_a_device_that_is_not_there():
    assert pick_device("cpu") == "cpu"
    import torch

    if not torch.cuda.is_available():
        assert pick_device("auto") == "cpu"
        with pytest.raises(InputError, match="--device cuda"):
            pick_device("cuda")


def test_numbers_for_people():
    assert [number(x) for x in (41.23456, 3.0, 12345.0, 1e-7, float("inf"), None)] == [
        "41.23", "3", "12,345", "1e-07", "inf", "not given"
    ]


def test_a_program_may_be_named_by_its_function(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("net.py:build", "pkg.mod:Net.small", "mod:build"):
        check_input(name, ("images", "program"))
        with pytest.raises(InputError, match="no such file or folder; INPUT is images"):
            check_input(name, ("images",))
    with pytest.raises(InputError, match="no such file or folder"):
        check_input("C:\\no such\\photo.png", ("images", "program"))


def test_kinds_are_told_in_words(tmp_path):
    (tmp_path / "a.txt").write_text("words")
    with pytest.raises(InputError) as caught:
        check_input(str(tmp_path / "a.txt"), ("images", "program"))
    assert str(caught.value).endswith(
        "looks like text; INPUT must be images (a folder or an archive of them, or a Parquet, CSV or array file) or "
        "a program (a function that builds a model: file.py:build or pkg.module:build)"
    )
    save(tmp_path / "net.py", b"def build(): pass")
    with pytest.raises(InputError, match="looks like a program; INPUT must be a table$"):
        check_input(str(tmp_path / "net.py"), ("table",))


def test_the_folder_is_called_by_the_input(tmp_path, monkeypatch):
    (tmp_path / "pics").mkdir()
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    given = ("../net.py:build", "net.py:Net.small", "pkg.models:build", "../pics", "mnist")
    assert [_stem(one) for one in given] == ["net", "net", "models", "pics", "mnist"]


def test_a_report_lists_a_folder_of_many_files_as_one():
    from precis.papers.running import _listed

    files = ["a.csv", *(f"orbit/{i:02d}.png" for i in range(60)), "sets/one.png", "z file.json"]
    assert _listed(files) == [
        "[a.csv](a.csv)", "[orbit/](orbit/) (60 files)", "[sets/one.png](sets/one.png)", "[z file.json](z%20file.json)",
    ]  # fmt: skip
