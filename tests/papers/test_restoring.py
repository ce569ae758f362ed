"""What the jobs that restore pictures agree on."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from precis.errors import InputError
from precis.papers.restoring import MOST, check_enlarged, level_of, nothing_to_do
from precis.papers.work import RunFolder


@pytest.fixture
def work(tmp_path: Path) -> RunFolder:
    return RunFolder(tmp_path, "cpu", {})


def test_the_level_is_what_is_given_or_estimated_or_nought(work: RunFolder) -> None:
    generator = torch.Generator().manual_seed(0)
    flat = torch.full((1, 3, 64, 64), 0.5)
    noisy = flat + 20 / 255 * torch.randn(flat.shape, generator=generator)
    assert level_of(noisy, 0.3, work) == 0.3 and work.notes == []
    assert level_of(noisy, None, work) == pytest.approx(20 / 255, rel=0.05) and "(--sigma)" in work.notes[-1]
    assert level_of(flat, None, work) == 0.0 and "no noise was found" in work.notes[-1]


@pytest.mark.parametrize(("asked", "nothing"), [({}, True), ({"steps": 5}, False), ({"minutes": 1.0}, False),
                                                ({"stop": "noise"}, True), ({"stop": "steps"}, False)])  # fmt: skip
def test_without_noise_nothing_is_fitted_unless_asked(work: RunFolder, asked: dict[str, Any], nothing: bool) -> None:
    job = SimpleNamespace(**{"steps": None, "minutes": None} | asked)
    assert nothing_to_do(job, 0.0, work) is nothing
    assert nothing_to_do(job, 0.1, work) is False


def test_enlarged_pictures_have_a_limit() -> None:
    side = int(MOST**0.5) // 4
    check_enlarged((side, side), 4, "small.png")
    with pytest.raises(InputError, match="too many: 50 million at the most") as caught:
        check_enlarged((2 * side, side), 4, Path("large.png"))
    assert "large.png" in str(caught.value)
