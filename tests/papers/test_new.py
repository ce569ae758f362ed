import sys

import pytest
from PIL import Image

from precis.errors import InputError
from precis.papers.catalogue import find
from precis.papers.doctor import problems_of
from precis.papers.new import FILES, write_paper
from precis.papers.opening import claims_of, make_job
from precis.papers.running import run_job


def test_it_works_as_written(papers):
    folder = write_paper("my-first-paper", papers)
    assert folder == papers / "my_first_paper" and {p.name for p in folder.iterdir()} == set(FILES)
    library = find()
    assert not library.problems
    paper = library["my-first-paper"]
    assert list(problems_of(paper)) == []
    done = run_job(paper, make_job(paper, device="cpu"))
    picture = Image.open(done.folder / done.result["files"][0])
    assert done.result["files"][0] == "restored.png" and picture.size == (512, 512)
    assert done.metrics["psnr_restored"] > done.metrics["psnr_given"] + 5


def test_its_method_against_scipy(papers):
    import numpy as np
    from scipy.ndimage import median_filter, uniform_filter

    write_paper("against_scipy", papers)
    claims_of(find()["against_scipy"])
    method = sys.modules["precis_paper_against_scipy.method"]
    pixels = np.random.default_rng(0).random((2, 20, 17))
    np.testing.assert_allclose(method.median(pixels, 5), median_filter(pixels, (1, 5, 5), mode="mirror"))
    np.testing.assert_allclose(method.mean(pixels, 3), uniform_filter(pixels, (1, 3, 3), mode="mirror"))
    ranks = np.argsort(np.argsort(method.windows(pixels, 3), axis=-1), axis=-1)
    middle = (ranks == 4).argmax(-1)
    np.testing.assert_allclose(method.any_rank(pixels, 3, middle), method.median(pixels, 3))


def test_its_job_answers_bad_input(papers, tmp_path):
    write_paper("bad_inputs", papers)
    paper = find()["bad_inputs"]
    Image.new("L", (2, 2)).save(tmp_path / "tiny.png")
    for given, options, words in (
        (None, {"window": 4}, "must be odd"), ("tiny.png", {"window": 9}, "wider and higher"),
        (None, {"lose": 2.0}, "at most 1"),
    ):
        with pytest.raises(InputError, match=words):
            run_job(paper, make_job(paper, given, device="cpu", **options), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["1paper", "My_Paper", "a/b", "", "..", "é"])
def test_names_that_are_no_id(papers, name):
    with pytest.raises(InputError, match="snake_case"):
        write_paper(name, papers)


def test_nothing_is_overwritten(papers, tmp_path):
    folder = write_paper("once", papers)
    (folder / "summary.md").write_text("mine")
    with pytest.raises(InputError, match="there already"):
        write_paper("once", papers)
    assert (folder / "summary.md").read_text() == "mine"
    write_paper("twice", papers)
    with pytest.raises(InputError, match="is taken"):
        write_paper("twice", tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()
