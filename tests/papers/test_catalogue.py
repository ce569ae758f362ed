import os
import subprocess
import sys

import pytest
from tests.papers.toys import SUMMARY, write_toy

from precis.errors import InputError
from precis.papers.catalogue import find


def test_ids_aliases_and_dashes(papers):
    write_toy(papers, "toy_run", alias="counting_up")
    library = find()
    for name in ("toy_run", "toy-run", "counting_up", "counting-up"):
        assert library[name].id == "toy_run"
    paper = library["toy_run"]
    assert paper.summary.startswith("# The problem") and paper.recorded == {}
    assert paper.source.package is None and paper.source.folder == papers / "toy_run"


def test_a_folder_that_is_a_paper_and_several_folders(tmp_path, monkeypatch):
    one = write_toy(tmp_path / "a", "one")
    write_toy(tmp_path / "b", "two")
    monkeypatch.setenv("PRECIS_PAPERS", f"{one}{os.pathsep}{tmp_path / 'b'}{os.pathsep}{one}")
    library = find()
    assert {"one", "two"} <= {paper.id for paper in library} and not library.problems


def test_a_broken_folder_hides_no_other(papers):
    write_toy(papers, "good")
    broken = write_toy(papers, "broken")
    (broken / "summary.md").write_text(SUMMARY.replace("year: 2020", "year: x"))
    empty = write_toy(papers, "without")
    (empty / "summary.md").unlink()
    library = find()
    assert library["good"].year == 2020
    assert len(library.problems) == 2
    with pytest.raises(InputError, match="summary.md:4: year"):
        library["broken"]


@pytest.mark.parametrize("alias", ["", "first"])
def test_two_of_one_name(papers, tmp_path, monkeypatch, alias):
    first = write_toy(papers, "first")
    other = write_toy(tmp_path / "more", "second" if alias else "first", alias=alias)
    write_toy(papers, "third")
    monkeypatch.setenv("PRECIS_PAPERS", os.pathsep.join((str(papers), str(other))))
    library = find()
    assert any(str(first) in line and str(other) in line for line in library.problems)
    with pytest.raises(InputError) as caught:
        library["first"]
    assert str(first) in str(caught.value) and str(other) in str(caught.value)
    assert library["third"].id == "third"


def test_an_unknown_id_gets_the_nearest(papers):
    write_toy(papers, "deep_counter")
    with pytest.raises(InputError, match="did you mean 'deep_counter'"):
        find()["deep-countr"]


def test_a_folder_that_is_not_there(monkeypatch, tmp_path):
    monkeypatch.setenv("PRECIS_PAPERS", str(tmp_path / "nowhere"))
    assert any("nowhere" in line for line in find().problems)


def test_entry_points_name_one_paper_or_a_package_of_papers(tmp_path, monkeypatch):
    site = tmp_path / "site"
    write_toy(site / "many_toys", "inner")
    (site / "many_toys" / "__init__.py").write_text("")
    write_toy(site, "lone_toy")
    for folder in (site / "many_toys" / "inner", site / "lone_toy"):
        (folder / "__init__.py").write_text("raise RuntimeError('listing imports no paper')")
    info = site / "toys-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: toys\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[precis.papers]\nmany = many_toys\nlone = lone_toy\ngone = no_such_package\n"
    )
    monkeypatch.syspath_prepend(str(site))
    library = find()
    assert library["inner"].source.package == "many_toys.inner"
    assert library["lone_toy"].source.package == "lone_toy"
    assert any("no_such_package" in line for line in library.problems)


def test_listing_imports_nothing_heavy(papers):
    write_toy(papers, "toy_run")
    code = (
        "import sys, precis; n = len(precis.library()); from precis.papers.verdicts import shown;"
        "shown(precis.library(), []);"
        "heavy = {'torch', 'numpy', 'scipy', 'tyro', 'matplotlib', 'PIL'} & set(sys.modules); print(n, heavy)"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    count, heavy = done.stdout.split(" ", 1)
    assert int(count) >= 1 and heavy.strip() == "set()"
