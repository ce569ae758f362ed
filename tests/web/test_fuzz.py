"""Whatever is sent to the site: an answer in words, never a bug, and nothing started by what is wrong."""

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient
from tests.web.conftest import BASE

from precis.web.app import make_app

OFTEN = settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, derandomize=True
)
TEXT = st.text(st.characters(codec="utf-8"), max_size=30)
LATIN = st.text(st.characters(codec="latin-1", exclude_categories=["Cc"]), max_size=40)
FIELDS = (
    "task steps pause size weights names over flip tint title level hue seed device input input-from profile seeds "
    "claim data until_verdict __class__"
).split()
WORDS = ["", *"on sample upload name cpu quick 1 -1 nan 1e9 --out ../x /etc/passwd \0".split(" "), "9" * 400]
VALUES = st.one_of(TEXT, st.sampled_from(WORDS))
FORM = "multipart/form-data"
KINDS = [FORM, f"{FORM}; boundary=b", f"{FORM}; boundary={300 * 'b'}", "application/x-www-form-urlencoded",
         "application/json", "text/plain"]  # fmt: skip
HEADERS = (
    "range last-event-id cookie authorization accept if-none-match if-modified-since referer x-forwarded-host "
    "content-type"
).split()


@pytest.fixture
def queued(site: TestClient, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the forms would have started; nothing is."""
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(site.app.state.site.queue, "submit", found.append)  # type: ignore[attr-defined]
    return found


@OFTEN
@given(st.sampled_from(["run", "check"]), st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=5), st.booleans())
def test_forms(
    site: TestClient, ids: tuple[str, str], home: Path, queued: list[dict[str, Any]], kind: str, form: dict[str, str],
    alone: bool,
) -> None:
    before = len(queued)
    headers = {"accept": "application/json"} if alone else {}
    answer = site.post(f"/papers/{ids[0]}/{kind}", data=form, headers=headers)
    assert answer.status_code in (303, 400), answer.text
    assert len(queued) - before == (answer.status_code == 303) and "Traceback" not in answer.text
    for record in queued[before:]:
        words = record["argv"]
        assert words[0] == kind and all(isinstance(word, str) and "\0" not in word for word in words)
        assert not any(word == "--out" or word.startswith("--out=") for word in words)
        assert "/etc/passwd" not in words, "a path of this machine is no input"
    assert not list((home / "site" / "uploads").iterdir())


@OFTEN
@given(st.binary(max_size=200), st.sampled_from(KINDS))
def test_bodies(site: TestClient, ids: tuple[str, str], queued: list[dict[str, Any]], body: bytes, kind: str) -> None:
    for content in (body, b"--b\r\n" + body, b'--b\r\nContent-Disposition: form-data; name="steps"\r\n\r\n' + body):
        answer = site.post(f"/papers/{ids[0]}/run", content=content, headers={"content-type": kind})
        assert answer.status_code in (303, 400), (answer.status_code, content)


@OFTEN
@given(st.dictionaries(st.sampled_from(HEADERS), LATIN, max_size=4))
def test_headers(site: TestClient, home: Path, headers: dict[str, str]) -> None:
    old = home / "runs" / "old"
    old.mkdir(parents=True, exist_ok=True)
    (old / "result.json").write_text('{"paper": "x", "metrics": {}, "files": [], "seconds": 1.0}')
    sent = {name: value.encode("latin-1") for name, value in headers.items()}
    for path in ("/", "/runs/old", "/runs/old/files/result.json", "/static/site.css", "/runs/old/state"):
        answer = site.get(path, headers=sent)
        assert answer.status_code < 500 and "evil" not in answer.headers.get("location", "")


@OFTEN
@given(st.sampled_from(["host", "origin", "sec-fetch-site"]), LATIN)
def test_only_its_own_names_are_answered(site: TestClient, ids: tuple[str, str], name: str, value: str) -> None:
    own = {"host": ("127.0.0.1", "localhost", "[::1]"), "origin": (BASE,), "sec-fetch-site": ("same-origin", "none")}
    answer = site.post(f"/papers/{ids[0]}/check", data={"seeds": "2"}, headers={name: value.encode("latin-1")})
    if not value.strip().lower().startswith(own[name]):
        assert answer.status_code == 403, (name, value)
    assert answer.status_code in (400, 403)


def test_no_name_puts_a_line_into_the_headers(site: TestClient, home: Path) -> None:
    name = "a\r\nset-cookie: x=1\r\n\r\n<b>.txt"
    for run in ("old", 'quoted "run"; x=ä'):
        folder = home / "runs" / run
        folder.mkdir(parents=True)
        (folder / "result.json").write_text('{"paper": "x", "metrics": {}, "files": [], "seconds": 1.0}')
        (folder / name).write_text("x")
        place = f"/runs/{quote(run)}"
        for path in (f"{place}/files/{quote(name)}?download", f"{place}/zip", place):
            answer = site.get(path)
            assert "set-cookie" not in answer.headers and answer.status_code in (200, 404), path
            assert all("\r" not in value and "\n" not in value for value in answer.headers.values())
    for path in ("/runs/x%0d%0aset-cookie:%20x=1", "/papers/siren%0d%0ax:y", "/?q=%0d%0ax:%20y"):
        assert "set-cookie" not in site.get(path).headers


def test_a_link_put_in_the_place_of_a_result(site: TestClient, home: Path) -> None:
    secret = home / "secret.png"
    secret.write_bytes(b"\x89PNG\r\n\x1a\n secret")
    folder = home / "runs" / "old"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text('{"paper": "x", "metrics": {}, "files": ["a.png"], "seconds": 1.0}')
    os.symlink(secret, folder / "a.png")
    os.link(folder / "result.json", folder / "hard.json")  # the same folder's own file: no way out
    assert site.get("/runs/old/files/a.png").status_code == 404
    assert b"secret" not in site.get("/runs/old/zip").content
    assert site.get("/runs/old/files/hard.json").status_code == 200


@OFTEN
@given(st.text(st.sampled_from("abcXYZ019_.~-"), max_size=24))
def test_no_other_token_opens_the_site(home: Path, given_token: str) -> None:
    token = "0123456789abcdefXYZ_"
    app = make_app(home, host="192.0.2.7", token=token)
    site = TestClient(app, base_url="http://192.0.2.7", follow_redirects=False)  # not started: the guard comes first
    if given_token == token:
        return
    ways = ({"params": {"token": given_token}}, {"headers": {"authorization": f"Bearer {given_token}"}},
            {"headers": {"cookie": f"precis_80={given_token}"}})  # fmt: skip
    for way in ways:
        assert site.get("/runs", **way).status_code == 401  # type: ignore[arg-type]
