"""A form says what the dataclass says, and what it sends is what the command line would read."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from precis.cli.run import parse
from precis.errors import InputError
from precis.papers.catalogue import Paper, find
from precis.papers.job import SEEDS, OfRun
from precis.papers.opening import job_of
from precis.web import forms


@pytest.fixture
def paint(ids: tuple[str, str]) -> Paper:
    return find()[ids[0]]


def test_types_become_inputs(paint: Paper) -> None:
    found = {field.name: field for field in forms.fields_of(job_of(paint))}
    kinds = {name: field.kind for name, field in found.items()}
    assert kinds == {
        "task": "choice", "steps": "number", "pause": "number", "size": "several", "weights": "several",
        "names": "several",
        "over": "file", "marks": "file", "before": "run", "brush": "text",
        "flip": "flag", "keep": "flag", "tint": "choice", "title": "text", "from_": "choice",
        "level": "choice", "hue": "number", "seed": "number", "device": "choice",
    }  # fmt: skip
    assert (found["steps"].low, found["steps"].high, found["steps"].step) == (1, 10_000, "1")
    assert found["from_"].option == "--from" and found["from_"].label == "from"
    assert found["marks"].words == ("auto",) and found["before"].run == found["brush"].run == OfRun("painted.png")
    assert found["steps"].doc == "strokes" and found["names"].shown == "a b"


def test_groups_follow_the_headings(paint: Paper) -> None:
    groups = forms.groups_of(job_of(paint))
    assert [(g.title, g.open) for g in groups] == [
        ("", True), ("How to paint", True), ("Colours", False), ("Seed and device", False)
    ]  # fmt: skip
    assert [f.name for f in groups[1].fields] == ["steps", "pause"]


def test_without_headings_the_first_are_open(ids: tuple[str, str]) -> None:
    groups = forms.groups_of(job_of(find()[ids[1]]))
    assert [g.open for g in groups] == [True, False] and groups[1].title == "More options"
    assert {f.name for g in groups for f in g.fields} >= {"task", "steps", "seed", "device", "fail"}


def test_the_page_holds_every_option(site: TestClient, ids: tuple[str, str]) -> None:
    text = site.get(f"/papers/{ids[0]}").text
    for name in ("task", "steps", "size", "over", "flip", "title", "from_", "hue", "seed", "device"):
        assert f'name="{name}"' in text
    assert 'min="1" max="10000"' in text and "strokes" in text and "Paint a picture again" in text
    assert 'enctype="multipart/form-data"' in text


def test_no_option_meets_a_field_of_the_form(site: TestClient) -> None:
    for paper in find():
        page = site.get(f"/papers/{paper.id}").text
        found = re.findall(r' id="([^"]+)"', page)
        assert len(found) == len(set(found)), paper.id
        run = page[page.index('id="run"') : page.index('id="check"')]
        kinds = re.findall(r'<(?:input|select)[^>]* name="([^"]+)"(?: type="(radio)")?', run)
        radio = 'type="radio" name="'
        names = [name for name, _ in kinds if f"{radio}{name}" not in run and name != "input"]
        assert len(names) == len(set(names)) and forms.CHOICE not in names, paper.id


LINES = st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=12)
FORM = st.fixed_dictionaries({}, optional={
    "task": st.sampled_from(["", "again", "never"]), "steps": st.integers(1, 10_000).map(str),
    "pause": st.floats(0, 1e6).map(repr), "size": st.tuples(st.integers(1, 99), st.integers(1,
    99)).map("{0[0]}, {0[1]}".format),
    "weights": st.lists(st.floats(-1e9, 1e9).map(repr), max_size=4).map(" ".join),
    "names": st.lists(LINES.filter(lambda t: t[0] != "-" and "," not in t), max_size=3).map(" ".join),
    "flip": st.just("on"), "keep": st.just("on"), "tint": st.sampled_from(["", "True", "False"]), "title": LINES,
    "from_": st.sampled_from(["", "left", "right"]), "level": st.sampled_from("123"),
    "hue": st.floats(0, 1).map(repr), "seed": st.integers(0, SEEDS).map(str),
    "device": st.sampled_from(["auto", "cpu"]),
})  # fmt: skip


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(form=FORM, given_input=st.none() | st.sampled_from(["/a b/--out", "-x", "--resume", "name"]))
def test_the_command_line_reads_what_the_form_said(paint: Paper, form: dict[str, str], given_input: str | None) -> None:
    every = forms.fields_of(job_of(paint))
    options = forms.read(paint, every, form, {"over": Path("/some where/-o.png")})
    common, job = parse(paint, ["--out", "/x", *forms.arguments(every, options, given_input)])
    assert str(common.out) == "/x" and not common.resume and job.input == given_input
    wanted = job_of(paint)(input=given_input, **options)
    assert job == wanted
    assert job.keep == ("keep" in form) and job.over == Path("/some where/-o.png")
    if form.get("title"):
        assert job.title == form["title"]


@pytest.mark.parametrize("form, words", [
    ({"steps": "0"}, "--steps must be at least 1, got 0"), ({"steps": "x"}, "--steps must be a whole number, got 'x'"),
    ({"steps": "1.5"}, "whole number"), ({"hue": "2"}, "at most 1"), ({"hue": "nan"}, "not a number"),
    ({"seed": str(SEEDS + 1)}, f"--seed must be at most {SEEDS}, got {SEEDS + 1}"),
    ({"size": "1"}, "--size takes 2 values, got 1"), ({"size": "1 x"}, "whole number"), ({"size": "0 4"}, "at least 1"),
    ({"task": "other"}, "--task must be one of again, never"), ({"tint": "maybe"}, "True, False"),
    ({"marks": "/etc/passwd"}, "--marks: choose a file, or auto"), ({"marks": "other.csv"}, "choose a file"),
    ({"before": "/etc"}, "--before: there is no finished run '/etc'"), ({"before": "gone"}, "no finished run 'gone'"),
    ({"brush": "/etc"}, "--brush: there is no finished run '/etc'"), ({"brush": "../x"}, "no finished run"),
    ({"brush": "~root"}, "no finished run"),
    ({"nothing": "1"}, "no option 'nothing'"), ({"title": "a\0b"}, "character"), ({"names": "a --out"}, "cannot begin"),
])  # fmt: skip
def test_wrong_options_are_told(paint: Paper, form: dict[str, str], words: str) -> None:
    every = forms.fields_of(job_of(paint))
    with pytest.raises(InputError) as caught:
        forms.arguments(every, forms.read(paint, every, form, {}), None)
    assert words in str(caught.value)


def test_a_refused_form_comes_back(site: TestClient, ids: tuple[str, str], home: Path) -> None:
    sent: dict[str, Any] = {"input-from": "sample", "steps": "0", "title": "kept words"}
    answer = site.post(f"/papers/{ids[0]}/run", data=sent)
    assert answer.status_code == 400 and "--steps must be at least 1, got 0" in answer.text
    assert 'value="kept words"' in answer.text and 'role="alert"' in answer.text
    for path, data, words in (
        ("run", {"input-from": "upload"}, "choose a file"), ("run", {"input-from": "name", "input": "/etc/passwd"},
        "INPUT is a file"),
        ("run", {"steps": ["1", "2"]}, "twice"), ("check", {"profile": "other"}, "--profile must be one of"),
        ("check", {"seeds": "2"}, "--seeds must be"), ("check", {"seeds": "x"}, "--seeds must be"), ("check",
        {"claim": "x"}, "no claim"),
        ("check", {"device": "abacus"}, "--device"), ("check", {"other": "1"}, "no option"),
    ):  # fmt: skip
        answer = site.post(f"/papers/{ids[0]}/{path}", data=data, headers={"accept": "application/json"})
        assert answer.status_code == 400 and words in answer.json()["error"], (path, data, answer.text)
    assert not list((home / "site" / "jobs").iterdir())


def test_a_file_and_a_run_become_what_the_option_takes(paint: Paper, tmp_path: Path) -> None:
    every = forms.fields_of(job_of(paint))
    known = {("painted.png", "paint-1"): tmp_path}
    folder_of = lambda wanted, name: known.get((wanted.holds, name))
    sent = {"before": "paint-1", "brush": "paint-1", "keep": "on"}
    options = forms.read(paint, every, sent, {"marks": tmp_path / "m.csv"}, folder_of)
    assert options == {"before": tmp_path, "brush": str(tmp_path), "marks": str(tmp_path / "m.csv")}
    job = parse(paint, forms.arguments(every, options, None))[1]
    assert (job.before, job.brush, job.marks) == (tmp_path, str(tmp_path), str(tmp_path / "m.csv"))
    sent = {"marks": "auto", "brush": "coarse", "keep": "on"}
    assert forms.read(paint, every, sent, {}, folder_of) == {"brush": "coarse"}


def test_the_contrastive_jobs_say_what_they_take() -> None:
    for name, wanted in (("ntxent", {"model": "text", "init": "run"}), ("rocl", {"attack": "run"}),
                         ("prvipe", {"model": "run"})):  # fmt: skip
        found = {field.name: field for field in forms.fields_of(job_of(find()[name]))}
        assert {n: found[n].kind for n in wanted} == wanted and all(found[n].run for n in wanted)
    for name in ("ntxent", "supcon", "group_norm", "mobilenet", "revnet", "rewinding", "variational_dropout"):
        found = {field.name: field for field in forms.fields_of(job_of(find()[name]))}
        assert found["labels"].kind == "file" and found["labels"].words == ("auto",), name
