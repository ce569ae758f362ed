"""Who may talk to the site, and what a page may do: one layer around the whole application.

- The Host header must be a name of this machine: a page elsewhere whose name is made to point here (DNS rebinding) is
  refused.
- What changes something must come from the site's own pages: Origin is the Host, Sec-Fetch-Site is same-origin.
- Bodies are bounded before anything reads them.
- With a token, every request carries it: once as `?token=`, then as a cookie, or as a bearer.
- Every answer forbids scripts, styles, frames and connections from elsewhere.
"""

import hashlib
import hmac
import ipaddress
import re
import socket
from collections.abc import MutableMapping
from typing import Any
from urllib.parse import urlencode, urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from precis.errors import InputError

UPLOAD_LIMIT = 512 << 20  # bytes of one form with files
FORM_LIMIT = 64 << 10  # bytes of any other form
LOOPBACK = ("127.0.0.1", "localhost", "::1")
_UPLOADS = re.compile(r"/papers/[^/]+/(run|check)")
_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    "cache-control": "no-cache",
}


def policy(styles: bool = False) -> str:
    """The Content-Security-Policy; `styles`: the page holds figures and formulas that carry their own styles."""
    inline = " 'unsafe-inline'" if styles else ""
    return (
        f"default-src 'none'; script-src 'self'; style-src 'self'{inline}; img-src 'self' data: blob:; "
        "media-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )


def is_loopback(host: str) -> bool:
    return host in LOOPBACK


def check_token(host: str, token: str | None) -> None:
    if token is not None and not re.fullmatch(r"[A-Za-z0-9_.~-]{16,200}", token):
        raise InputError("--token must be 16 to 200 letters, digits or - _ . ~")
    if token is None and not is_loopback(host):
        raise InputError(f"--host {host} lets other machines in: name a --token too")


class Guard:
    """The layer, around `app`.  `host` is where the site listens; `token` None asks for none."""

    def __init__(self, app: ASGIApp, *, host: str = "127.0.0.1", token: str | None = None) -> None:
        self.app, self.token = app, token
        self.names = set(LOOPBACK)
        self.addresses = not is_loopback(host)  # an address in numbers cannot be rebound
        if self.addresses:
            self.names |= {host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return await send({"type": "websocket.close", "code": 1008})
        request = Request(scope)
        refusal = self._refused(request)
        answer: ASGIApp = refusal if refusal is not None else self.app
        await answer(scope, _bounded(receive, _limit(request)), _with_headers(send))

    def _refused(self, request: Request) -> Response | None:
        hosts = request.headers.getlist("host")
        if len(hosts) != 1 or not self.knows(hosts[0]):
            return _say(403, "this site does not answer to that name: open the address that `precis serve` printed")
        if request.method not in ("GET", "HEAD") and not _own(request, hosts[0]):
            return _say(403, "this was sent from another site's page, and nothing was done")
        if self.token is not None and not self._holds_token(request):
            return self._ask_token(request)
        told = request.headers.get("content-length", "0")
        if not re.fullmatch("[0-9]{1,18}", told):
            return _say(400, "Content-Length is not a number")
        if int(told) > _limit(request):
            return _say(413, too_large(_limit(request)))
        return None

    def knows(self, host: str) -> bool:
        """Whether a Host header names this machine; the port is free, for tunnels change it."""
        found = re.fullmatch(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(:\d{1,5})?", host)
        if not found:
            return False
        name = found[1].strip("[]").lower()
        return name in self.names or (self.addresses and _is_address(name))

    def _cookie(self, request: Request) -> tuple[str, str]:
        server = request.scope.get("server") or ("", 0)
        secret = hashlib.sha256(f"precis cookie {self.token}".encode()).hexdigest()
        return f"precis_{server[1]}", secret

    def _holds_token(self, request: Request) -> bool:
        assert self.token is not None
        name, secret = self._cookie(request)
        if _same(request.cookies.get(name, ""), secret):
            return True
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and _same(given, self.token)

    def _ask_token(self, request: Request) -> Response:
        given = request.query_params.getlist("token")
        if request.method != "GET" or len(given) != 1 or not _same(given[0], str(self.token)):
            return _say(401, "this site asks for its token: open the address that `precis serve` printed")
        rest = urlencode([(k, v) for k, v in request.query_params.multi_items() if k != "token"])
        path = "/" + request.url.path.lstrip("/\\")
        answer = RedirectResponse(path + ("?" + rest if rest else ""), status_code=303)
        name, secret = self._cookie(request)
        answer.set_cookie(name, secret, httponly=True, samesite="strict", path="/")
        return answer


def too_large(limit: int) -> str:
    return f"that is too large: at most {limit >> 20} MB" if limit >= 1 << 20 else "that form is too large"


def _limit(request: Request) -> int:
    kind = request.headers.get("content-type", "")
    upload = kind.startswith("multipart/form-data") and _UPLOADS.fullmatch(request.url.path)
    return UPLOAD_LIMIT if upload else FORM_LIMIT


def _own(request: Request, host: str) -> bool:
    origins, sites = request.headers.getlist("origin"), request.headers.getlist("sec-fetch-site")
    if len(origins) > 1 or len(sites) > 1:
        return False
    if sites and sites[0] not in ("same-origin", "none"):
        return False
    if not origins:
        return True  # not a browser: every browser names the origin of what it posts
    parts = urlsplit(origins[0])
    return parts.scheme in ("http", "https") and parts.netloc.lower() == host.lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
        return True
    except ValueError:
        return False


def _same(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())


def _say(code: int, words: str) -> Response:
    return PlainTextResponse(words + "\n", code)


def _bounded(receive: Receive, limit: int) -> Receive:
    """Bodies without a stated length end at the limit too."""
    seen = 0

    async def bounded() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        if seen > limit:
            raise HTTPException(413, too_large(limit))
        return message

    return bounded


def _with_headers(send: Send) -> Send:
    async def sending(message: MutableMapping[str, Any]) -> None:
        if message["type"] == "http.response.start":
            headers = list(message.get("headers", []))
            there = {name.lower() for name, _ in headers}
            for name, value in {**_HEADERS, "content-security-policy": policy()}.items():
                if name.encode() not in there:
                    headers.append((name.encode(), value.encode()))
            message = {**message, "headers": headers}
        await send(message)

    return sending
