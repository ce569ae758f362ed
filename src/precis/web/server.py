"""`precis serve`: uvicorn around the application."""

import asyncio
import contextlib
import os
import secrets
import socket
import sys
from pathlib import Path
from typing import Any

from precis.errors import InputError
from precis.web import pages, safety
from precis.web.app import make_app


def run(port: int, host: str, token: str | None, home: Path | None) -> int:
    """Serve until Ctrl-C; runs that are under way go on without the site."""
    import uvicorn

    token = token or os.environ.get("PRECIS_TOKEN")
    if token is None and not safety.is_loopback(host):
        token = secrets.token_urlsafe(24)
    app = make_app(home, host=host, token=token)
    listening = _listen(host, port)
    site = app.state.site

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: Any) -> None:
            site.feeds.closing.set()  # pages that watch hold their connection for ever
            for feed in list(site.feeds._feeds.values()):
                feed._changed.set()
            loop = asyncio.get_running_loop()
            loop.call_soon_threadsafe(lambda: loop.create_task(site.helpers.close()))  # nobody waits for a picture
            super().handle_exit(sig, frame)

    port = listening.getsockname()[1]
    name = f"[{host}]" if ":" in host else socket.gethostname() if host in ("0.0.0.0", "") else host
    address = f"http://{name}:{port}/" + (f"?token={token}" if token else "")
    pages.warm(site.shelf.view())
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, timeout_graceful_shutdown=3, server_header=False,
        h11_max_incomplete_event_size=64 << 10,
    )
    print(f"{address}    (Ctrl-C ends the site; runs go on)", flush=True)
    if token and not safety.is_loopback(host):
        print("precis: what is sent is not encrypted: use it in a network that you trust", file=sys.stderr)
    with contextlib.suppress(KeyboardInterrupt):
        Server(config).run([listening])
    return 0


def _listen(host: str, port: int) -> socket.socket:
    """The socket; InputError if the address is taken or not this machine's."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        made = socket.socket(found[0], found[1])
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(found[4])
        made.listen(128)
        return made
    except OSError as error:
        raise InputError(f"cannot listen on {host}:{port}: {error.strerror or error}; name another --port") from None
