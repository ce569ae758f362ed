"""Attacks by name, and what a page may do."""

import io
import os
import zipfile
import zlib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient
from tests.web.conftest import BASE
from tests.web.toys import picture

from precis.errors import InputError
from precis.web import safety, uploads
from precis.web.app import make_app
from precis.web.results import inside
from precis.web.runs import is_id

FINISHED = '{"paper": "x", "metrics": {}, "settings": {}, "files": ["a.png"], "seconds": 1.0, "notes": []}'


@pytest.fixture
def folder(site: TestClient, home: Path) -> Path:
    """A finished run called `old`, with a secret beside the runs."""
    made = home / "runs" / "old"
    made.mkdir(parents=True)
    (made / "result.json").write_text(FINISHED)
    (made / "a.png").write_bytes(picture())
    (home / "secret.txt").write_text("secret")
    (home / "runs" / "secret.txt").write_text("secret")
    return made


def test_a_rebound_name_is_refused(site: TestClient) -> None:
    for host in (
        "evil.example",
        "evil.example:8321",
        "127.0.0.1.evil.example",
        "localhost@evil.example",
        "",
        "[::2]",
        "169.254.1.1",
        "127.0.0.1:99999999",
    ):
        for path in ("/", "/runs", "/static/site.js"):
            assert site.get(path, headers={"host": host}).status_code == 403, host
    for host in ("127.0.0.1:1", "localhost", "LOCALHOST:8321", "[::1]:8321"):
        assert site.get("/runs", headers={"host": host}).status_code == 200, host
    twice = [("host", "127.0.0.1"), ("host", "evil.example")]
    assert site.get("/runs", headers=twice).status_code == 403


def test_posts_of_other_sites_do_nothing(site: TestClient, home: Path, ids: tuple[str, str]) -> None:
    for headers in (
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "http://localhost:8321"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"origin": BASE, "sec-fetch-site": "cross-site"},
        {"origin": "file://"},
        {"origin": f"{BASE}.evil.example"},
    ):
        for path in (f"/papers/{ids[1]}/run", f"/papers/{ids[1]}/check", "/runs/old/stop", "/runs/old/resume"):
            assert site.post(path, headers=headers, data={"steps": "2"}).status_code == 403, (headers, path)
    assert not list((home / "site" / "jobs").iterdir())


def test_state_is_never_changed_by_get(site: TestClient, ids: tuple[str, str], folder: Path) -> None:
    for path in (f"/papers/{ids[1]}/check", f"/papers/{ids[1]}/run"):
        assert site.get(path).status_code in (404, 405)
    for path in ("/runs/old/stop", "/runs/old/resume"):
        assert site.get(path).status_code == 405


ESCAPES = [
    "../secret.txt", "../../secret.txt", "..%2fsecret.txt", "%2e%2e/secret.txt", "%2e%2e%2fsecret.txt",
    "..\\secret.txt",
    "..%5csecret.txt", "%252e%252e%252fsecret.txt", "/etc/passwd", "//etc/passwd", "%2fetc%2fpasswd",
    "a.png/../../secret.txt",
    "./a.png", "a.png/", "a.png%00.txt", "..;/secret.txt", ".hidden", "....//secret.txt", "..%c0%afsecret.txt", "",
    "a.png%0d%0aset-cookie:x=1", "~/secret.txt", "C:%5cwindows", "deep/../../secret.txt",
]  # fmt: skip


def raw(site: TestClient, path: str) -> tuple[int, bytes]:
    """What the server answers to a path exactly as it stands: clients tidy it up before they send it."""
    from urllib.parse import unquote

    import anyio

    sent: list[dict[str, object]] = []
    asked: list[int] = []

    async def ask() -> None:
        async def receive() -> dict[str, object]:
            if asked:
                await anyio.sleep_forever()
            asked.append(1)
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: dict[str, object]) -> None:
            sent.append(message)

        await site.app(
            {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
             "path": unquote(path), "raw_path": path.encode(), "query_string": b"", "root_path": "",
             "headers": [(b"host", b"127.0.0.1:8321")], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 8321)},
            receive, send,
        )  # fmt: skip

    site.portal.call(ask)  # type: ignore[union-attr]
    return int(str(sent[0]["status"])), b"".join(bytes(m.get("body", b"")) for m in sent[1:])  # type: ignore[call-overload]


@pytest.mark.parametrize("name", ESCAPES)
def test_no_path_leaves_the_folder(site: TestClient, folder: Path, name: str) -> None:
    (folder / ".hidden").write_text("secret")
    assert raw(site, "/runs/old/files/a.png")[0] == 200
    code, body = raw(site, f"/runs/old/files/{name}")
    assert code == 404 and b"secret" not in body
    for start in ("/runs/", "/static/"):  # 307: the same address without a slash at its end
        code, body = raw(site, start + name)
        assert code in (307, 404, 405) and b"secret" not in body


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.text(st.sampled_from("ab./\\%2e~:\0\n "), max_size=20))
def test_whatever_the_name_nothing_outside_is_found(tmp_path: Path, name: str) -> None:
    from starlette.exceptions import HTTPException

    top = tmp_path / "run"
    (top / "a").mkdir(parents=True, exist_ok=True)
    (top / "a" / "b").write_text("inside")
    (tmp_path / "ab").write_text("outside")
    try:
        found = inside(top, name)
    except HTTPException as error:
        assert error.status_code == 404
    else:
        assert found == top / "a" / "b"


def test_links_are_not_followed(site: TestClient, folder: Path, home: Path) -> None:
    os.symlink(home / "secret.txt", folder / "link.txt")
    os.symlink(home, folder / "linked")
    os.symlink(folder / "a.png", folder / "inner.png")
    os.symlink(folder, home / "runs" / "linked_run")
    for path in (
        "old/files/link.txt",
        "old/files/linked/secret.txt",
        "old/files/inner.png",
        "linked_run",
        "linked_run/zip",
    ):
        assert site.get(f"/runs/{path}").status_code == 404, path
    names = zipfile.ZipFile(io.BytesIO(site.get("/runs/old/zip").content)).namelist()
    assert sorted(names) == ["old/a.png", "old/result.json"]
    assert "link.txt" not in site.get("/runs/old").text


def test_what_could_act_is_a_download(site: TestClient, folder: Path) -> None:
    for name, kind in (("x.html", "application/octet-stream"), ("x.svg", "image/svg+xml"), ("x.js",
    "application/octet-stream"),
                       ("x.xml", "application/octet-stream"), ("x.pdf", "application/octet-stream")):  # fmt: skip
        (folder / name).write_text("<script>alert(1)</script>")
        answer = site.get(f"/runs/old/files/{name}")
        assert answer.headers["content-type"].startswith(kind)
        assert answer.headers["content-disposition"].startswith("attachment")
        assert "sandbox" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
    assert site.get("/runs/old/files/a.png").headers["content-disposition"].startswith("inline")
    (folder / "x.md").write_text("<b>")
    assert site.get("/runs/old/files/x.md").headers["content-type"] == "text/plain; charset=utf-8"


def test_ranges(site: TestClient, folder: Path) -> None:
    whole = (folder / "a.png").read_bytes()
    part = site.get("/runs/old/files/a.png", headers={"range": "bytes=2-5"})
    assert part.status_code == 206 and part.content == whole[2:6]
    for bad in ("bytes=9-2", "bytes=999999-", "bytes=a-b", "bytes=-", "lines=0-1", "bytes=" + "0-1," * 3000):
        assert site.get("/runs/old/files/a.png", headers={"range": bad}).status_code in (200, 206, 400, 416), bad
    for bad in ("x", "-1", "1.5", "9" * 30, "0x10", "١"):
        assert site.get(f"/runs/old/events?from={bad}").status_code == 400, bad
    assert site.get("/runs/old/events", headers={"last-event-id": "nine"}).status_code == 400
    for bad in ("0", "-1", "x", "99", "9" * 30):
        assert site.get(f"/runs?page={bad}").status_code == 400, bad


def test_unknown_names_are_told_in_words(site: TestClient, ids: tuple[str, str]) -> None:
    for path, word in (
        ("/papers/nothing", "no paper is called"), ("/runs/nothing", "no such run"), ("/runs/nothing/zip",
        "no such run"),
        (f"/papers/{ids[1]}/up_beats_down-quick", "no verdict"), (f"/papers/{ids[1]}/x", "no verdict"),
        ("/files/abc.png", "no such picture"), ("/files/" + "0" * 64 + ".png", "no such picture"),
        ("/runs/..%2f..", "no such"), ("/runs/%2e%2e/files/secret.txt", "no such"),
    ):  # fmt: skip
        answer = site.get(path)
        assert answer.status_code == 404, path
        told = site.get(path, headers={"accept": "application/json"})
        assert told.status_code == 404 and (word in told.json()["error"] or path.startswith("/runs/")), path
    assert site.get("/nowhere").status_code == 404
    assert site.delete("/").status_code == 405


def test_words_of_papers_and_runs_are_words(site: TestClient, ids: tuple[str, str], home: Path, folder: Path) -> None:
    evil = "<script>alert(1)</script>"
    result = FINISHED.replace('"notes": []', f'"notes": ["{evil}"], "input": "{evil}", "versions": {{"{evil}": "1"}}')
    (folder / "result.json").write_text(result)
    (folder / "<b>bold<b>.txt").write_text("x")
    for path in ("/", f"/papers/{ids[0]}", "/runs", "/runs/old", "/?q=<script>alert(1)</script>", "/?family=<script>"):
        text = site.get(path).text
        assert (
            evil not in text and "<b>bold" not in text and "javascript:alert" not in text.replace("](javascript:", "")
        )
        assert "<img src=x" not in text and "onclick" not in text
    assert "<math" in site.get(f"/papers/{ids[0]}").text


def test_every_answer_carries_the_policy(site: TestClient, ids: tuple[str, str], folder: Path) -> None:
    for path in (
        "/",
        "/runs",
        f"/papers/{ids[0]}",
        "/nothing",
        "/static/site.js",
        "/style.css",
        "/runs/old",
        "/runs/old/state",
    ):
        headers = site.get(path).headers
        policy = headers["content-security-policy"]
        script = next(part for part in policy.split(";") if "script-src" in part)
        assert script.strip() == "script-src 'self'" and "default-src 'none'" in policy, path
        assert headers["x-frame-options"] == "DENY" and headers["x-content-type-options"] == "nosniff"
    for path in ("/", f"/papers/{ids[0]}", "/runs/old"):
        text = site.get(path).text.lower()
        assert (
            "<script>" not in text and " onload=" not in text and "http://" not in text.replace("http://www.w3.org", "")
        )


def test_huge_and_many_uploads(
    site: TestClient, ids: tuple[str, str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert site.post(f"/papers/{ids[0]}/run", headers={"content-length": str(1 << 40)}).status_code == 413
    assert site.post("/runs/old/stop", content=b"x" * (safety.FORM_LIMIT + 1)).status_code == 413
    monkeypatch.setattr(safety, "UPLOAD_LIMIT", 100_000)

    def endless():  # type: ignore[no-untyped-def]
        yield b'--b\r\nContent-Disposition: form-data; name="input"; filename="a.png"\r\n\r\n'
        for _ in range(100):
            yield b"x" * 10_000

    kind = {"content-type": "multipart/form-data; boundary=b"}
    assert site.post(f"/papers/{ids[0]}/run", content=endless(), headers=kind).status_code == 413
    monkeypatch.setattr(uploads, "MAX_FILES", 3)
    files = [("input", (f"{i}.png", picture((4, 4)), "image/png")) for i in range(5)]
    answer = site.post(f"/papers/{ids[0]}/run", files=files, headers={"accept": "application/json"})
    assert answer.status_code == 400 and "files" in answer.json()["error"]
    assert not list((home / "site" / "uploads").iterdir())


def test_bombs_and_broken_files(site: TestClient, ids: tuple[str, str], home: Path) -> None:
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", b"\0" * (80 << 20))
    huge = bytearray(picture((4, 4)))
    huge[16:24] = (60_000).to_bytes(4, "big") * 2
    huge[29:33] = zlib.crc32(huge[12:29]).to_bytes(4, "big")
    for name, content, word in (
        ("a.zip", bomb.getvalue(), "200 times"), ("a.png", bytes(huge), "pixels"), ("a.png", b"", "empty"),
        ("a.png", b"\0\1\2nothing", "no kind"), ("a.csv", b"a,b\n1,2\n", "INPUT must be an image"), ("a.zip",
        b"PK\3\4xx", "broken"),
        ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "INPUT must be an image"),
    ):  # fmt: skip
        answer = site.post(
            f"/papers/{ids[0]}/run", files={"input": (name, content)}, headers={"accept": "application/json"}
        )
        assert answer.status_code == 400 and word in answer.json()["error"], (name, answer.text)
        assert str(home) not in answer.text
    assert not list((home / "site" / "uploads").iterdir()) and not list((home / "site" / "jobs").iterdir())


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=150))
def test_names_of_uploads_are_plain(name: str) -> None:
    plain = uploads.safe_name(name)
    assert plain and "/" not in plain and "\\" not in plain and plain[0] not in ".-" and len(plain) <= 120
    assert plain.isascii() and plain.isprintable() and is_id(plain)
    for kept in (True, False):
        path = uploads.safe_path(name, keep=kept)
        assert not path.is_absolute() and ".." not in path.parts and len(path.parts) <= uploads.DEPTH + 1


def test_a_token_is_asked_for(home: Path, ids: tuple[str, str]) -> None:
    token = "0123456789abcdefXYZ_"
    with TestClient(
        make_app(home, host="192.0.2.7", token=token), base_url="http://192.0.2.7", follow_redirects=False
    ) as site:
        for path in (
            "/",
            "/runs",
            "/static/site.js",
            "/style.css",
            f"/?token={token[:-1]}",
            "/?token=",
            f"/?token={token}&token=x",
        ):
            answer = site.get(path)
            assert answer.status_code == 401 and token not in answer.text, path
        assert site.post(f"/papers/{ids[1]}/run?token={token}").status_code == 401
        entered = site.get(f"/runs?token={token}&page=1")
        assert entered.status_code == 303 and entered.headers["location"] == "/runs?page=1"
        cookie = entered.headers["set-cookie"].lower()
        assert "httponly" in cookie and "samesite=strict" in cookie and token.lower() not in cookie
        assert site.get("/runs").status_code == 200
        site.cookies.clear()
        assert site.get(f"http://192.0.2.7//evil.example/?token={token}").headers["location"] == "/evil.example/"
        site.cookies.clear()
        assert site.get("/runs", headers={"authorization": f"Bearer {token}"}).status_code == 200
        assert (
            site.get("/runs", headers={"host": "evil.example", "authorization": f"Bearer {token}"}).status_code == 403
        )


def test_another_host_without_token_is_wrong(home: Path) -> None:
    for host, token in (
        ("0.0.0.0", None),
        ("192.0.2.7", None),
        ("127.0.0.1", "short"),
        ("0.0.0.0", "with space 12345678"),
    ):
        with pytest.raises(InputError, match="--token"):
            make_app(home, host=host, token=token)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.sampled_from(
        ["/runs/", "/papers/", "/files/", "/static/", "/runs/old/", "/runs/old/files/", "/runs/old/view/", "/"]
    ),
    st.text(st.characters(codec="utf-8"), max_size=30),
    st.dictionaries(st.sampled_from(["q", "family", "page", "from", "x0", "token"]), st.text(max_size=20), max_size=3),
)
def test_no_address_breaks_the_site(
    site: TestClient, folder: Path, start: str, rest: str, query: dict[str, str]
) -> None:
    from urllib.parse import quote

    answer = site.get(start + quote(rest, safe="/"), params=query)
    assert answer.status_code < 500 and "Traceback" not in answer.text
