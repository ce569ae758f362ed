"""A folder for what trials write before it is kept; that of a check that was killed is cleared by the next one."""

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

from precis.lab.artefacts import told
from precis.lab.shared import locked


@contextlib.contextmanager
def scratch_folder(home: Path) -> Iterator[Path]:
    """A new folder below `home`, gone afterwards.

    Its owner holds a lock on the file beside it, which the system takes from a dead one; who holds `all.lock` may
    make and clear such folders.
    """
    import fcntl

    base = home / "scratch"
    with told(home):
        base.mkdir(parents=True, exist_ok=True)
        with locked(base / "all.lock"):
            for file in base.glob("*.owner"):
                with contextlib.suppress(OSError), file.open() as handle:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(file.with_suffix(""), ignore_errors=True)
                    file.unlink()
            mine = base / uuid.uuid4().hex
            mine.mkdir()
            owner = os.open(mine.with_suffix(".owner"), os.O_RDWR | os.O_CREAT, 0o644)
            fcntl.flock(owner, fcntl.LOCK_EX)
    try:
        yield mine
    finally:
        shutil.rmtree(mine, ignore_errors=True)
        mine.with_suffix(".owner").unlink(missing_ok=True)
        os.close(owner)
