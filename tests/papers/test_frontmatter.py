from pathlib import Path

import pytest

from precis.errors import InputError
from precis.papers.frontmatter import parse_front_matter, read_front_matter

GOOD = """---
title: "One: two"
authors: [A. One, "B, C. Two"]
year: 2020
venue: NeurIPS
family: fields
arxiv: 2006.10000
code: owner/name
extras: [rl, text]
aliases: [one_two]
claims:
  first_claim: It is so
    and so.
  second: "A: b."
---
Body $x$.
"""


def test_every_field_is_read_as_written():
    front = parse_front_matter(GOOD, Path("summary.md"))
    assert front.title == "One: two" and front.authors == ("A. One", "B, C. Two") and front.year == 2020
    assert front.arxiv == "2006.10000"  # not the float 2006.1
    assert front.claims == {"first_claim": "It is so and so.", "second": "A: b."}
    assert front.extras == ("rl", "text") and front.aliases == ("one_two",) and front.code == "owner/name"
    assert GOOD[front.body :] == "Body $x$.\n"


def test_absent_optional_fields():
    lines = [line for line in GOOD.split("\n") if not line.startswith(("arxiv", "code", "extras", "aliases"))]
    front = parse_front_matter("\n".join(lines), Path("summary.md"))
    assert front.arxiv is None and front.code is None and front.extras == () and front.aliases == ()


@pytest.mark.parametrize(
    ("change", "line", "words"),
    [
        (("year: 2020\n", ""), 1, "'year'"),
        (("year: 2020", "year: soon"), 4, "year must be four digits"),
        (("venue: NeurIPS", "venue:"), 5, "venue must be a text"),
        (("family: fields", "family: Deep Fields"), 6, "family must be in snake_case"),
        (("venue:", "journal: x\nvenue:"), 5, "unknown field 'journal'"),
        (("venue: NeurIPS", "venue: NeurIPS\nvenue: ICML"), 6, "'venue' twice"),
        (("authors: [A. One, \"B, C. Two\"]", "authors: A. One"), 3, "authors must be a list"),
        (("arxiv: 2006.10000", "arxiv: one"), 7, "arXiv number"),
        (("owner/name", "over there"), 8, "code must be"),
        (("extras: [rl, text]", "extras: [rl, txt]"), 9, "'txt'"),
        (("aliases: [one_two]", "aliases: [one-two]"), 10, "aliases must be in snake_case"),
        (("second:", "Second:"), 14, "'Second'"),
        (("second: \"A: b.\"", "second: A: b."), 14, "front matter"),
        (("---\nBody", "Body"), 1, "closing line"),
        (("---\ntitle", "title"), 1, "must open with"),
    ],
)
def test_errors_name_file_line_and_field(tmp_path, change, line, words):
    file = tmp_path / "summary.md"
    text = GOOD.replace(*change, 1)
    assert text != GOOD
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        read_front_matter(file)
    assert words in str(caught.value) and caught.value.file == file and caught.value.line == line
    assert "\n" not in str(caught.value)


def test_what_is_not_text(tmp_path):
    file = tmp_path / "summary.md"
    file.write_bytes(b"---\ntitle: \xff\n---\n")
    with pytest.raises(InputError, match="UTF-8"):
        read_front_matter(file)


def test_windows_line_ends_and_a_byte_order_mark(tmp_path):
    file = tmp_path / "summary.md"
    file.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert read_front_matter(file).title == "One: two"
