"""The site on this machine: library, papers, live runs, claims.  `serve` runs it; `app.make_app` is the application."""

from pathlib import Path

__all__ = ["serve"]


def serve(port: int = 8321, host: str = "127.0.0.1", token: str | None = None, home: Path | None = None) -> int:
    """Serve until Ctrl-C.  Any host but this machine's own demands a token; one is made if none is given."""
    from precis.web.server import run

    return run(port, host, token, home)
