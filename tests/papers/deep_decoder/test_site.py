"""The site takes a code as an upload, though the data readers know no such kind."""

import subprocess
import sys
from pathlib import Path

from precis.papers.catalogue import find
from precis.papers.opening import job_of


def test_a_code_may_be_uploaded() -> None:
    paper = find()["deep_decoder"]
    code = paper.assets / "coffee.pdd"
    script = "import sys; from precis.web.worker import inspect; print(inspect(sys.argv[1], sys.argv[2:], 'INPUT'))"
    command = [sys.executable, "-c", script, str(code), *job_of(paper).kinds]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0 and found.stdout.strip() == "{'kinds': []}"
    refused = subprocess.run([*command[:4], "image"], capture_output=True, text=True)
    assert refused.returncode == 1 and "InputError" in refused.stderr


def test_the_card_is_small() -> None:
    from PIL import Image

    card = Path(find()["deep_decoder"].assets / "card.webp")
    assert Image.open(card).size == (480, 300) and card.stat().st_size < 30_000
