"""The ledger: every finished trial, in one SQLite file, and the files it left, named by their content.

    hash_i = SHA-256(canonical JSON of row i without `hash`),   prev_i = hash_{i-1}

so a row that is edited, removed or put in later breaks a link, and the table `chain` (how many rows, the last hash)
notices a lost end.  `verify` says where.  An artefact is `artefacts/ab/abcd…`, its SHA-256; rows refer to it by that.

Why a rollback journal and not a write-ahead log: one file that can be copied as it stands, and it works on the
network homes of clusters.  Every addition is one transaction that takes SQLite's write lock before it reads the end
of the chain, which orders the chain among processes; a process killed anywhere leaves either no row or a whole one,
since artefacts are written beside, synced and renamed before the row that names them.  An artefact without a row
(killed between the two) is harmless, and is found again when the trial is.
"""

import contextlib
import hashlib
import json
import math
import os
import sqlite3
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from precis.errors import InputError, RunFailed
from precis.lab.artefacts import Artefacts, digest_of, told
from precis.lab.claim import Metrics

SCHEMA = 1  # PRAGMA user_version
WAIT = 60.0  # seconds that a process waits for another one's transaction, which takes milliseconds

_JSON = ("settings", "metrics", "record", "versions")
_TABLES = (
    "CREATE TABLE trials (key TEXT PRIMARY KEY, paper TEXT, runs TEXT, claim TEXT, arm TEXT, seed INTEGER, "
    "profile TEXT, settings TEXT, data TEXT, source TEXT, device TEXT, metrics TEXT, record TEXT, seconds REAL, "
    "peak_memory_mb REAL, versions TEXT, host TEXT, finished TEXT, prev TEXT, hash TEXT)",
    "CREATE TABLE verdicts (claim TEXT, profile TEXT, verdict TEXT, n INTEGER, report TEXT, source TEXT, "
    "finished TEXT)",
    "CREATE TABLE failures (key TEXT, error TEXT, finished TEXT)",
    "CREATE TABLE chain (rows INTEGER, head TEXT)",
    "INSERT INTO chain VALUES (0, '')",
    "CREATE INDEX verdicts_of ON verdicts (claim, profile)",
    "CREATE INDEX failures_of ON failures (key)",
    f"PRAGMA user_version = {SCHEMA}",
)


def home() -> Path:
    """`$PRECIS_HOME`, else the platform's data folder; it is made by whoever first writes."""
    if given := os.environ.get("PRECIS_HOME"):
        return Path(given).expanduser().absolute()
    from platformdirs import user_data_dir

    return Path(user_data_dir("precis"))


@dataclass(frozen=True)
class Trial:
    """One arm under one seed, finished.  `record["files"]` maps the names of its files to their SHA-256."""

    key: str
    paper: str
    runs: str
    claim: str
    arm: str
    seed: int
    profile: str
    settings: dict[str, Any]
    data: str
    source: str
    device: str
    metrics: Metrics
    record: dict[str, Any]
    seconds: float
    peak_memory_mb: float
    versions: dict[str, Any]
    host: str
    finished: str


_FIELDS = tuple(f.name for f in fields(Trial))
_COLUMNS = (*_FIELDS, "prev", "hash")


class Ledger:
    """The ledger under `home`; a reader makes nothing, and sees an empty ledger where there is none.

    For one thread; opening another costs a millisecond.  InputError says what the user must mend (a damaged or
    foreign file, a home that cannot be written), RunFailed that the disk is full or another process does not let go.
    """

    def __init__(self, home: Path, *, read_only: bool = False) -> None:
        self.home, self.read_only = home, read_only
        self.path = home / "ledger.sqlite"
        self._open: sqlite3.Connection | None = None
        self._artefacts = Artefacts(home / "artefacts")
        if not read_only:
            with told(home):
                self._artefacts.prepare()
        self._db  # noqa: B018  opens it, so that a damaged file is told before hours of work

    def __enter__(self) -> "Ledger":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    def trial(self, key: str) -> Trial | None:
        return self.trials([key]).get(key)

    def trials(self, keys: Iterable[str]) -> dict[str, Trial]:
        """The finished ones among `keys`, in the order asked for."""
        keys = list(dict.fromkeys(keys))
        ask = f"SELECT {', '.join(_FIELDS)} FROM trials WHERE key IN ({{}})"
        found = {row[0]: _read(row) for row in self._among(ask, keys)}
        return {key: found[key] for key in keys if key in found}

    def add(self, trial: Trial, folder: Path | None) -> None:
        """Keep a finished trial and every file under `folder`; a key that is there already changes nothing.

        The files are copied, so an `add` that failed can be repeated; the caller clears its scratch folder.
        """
        self.add_all([(trial, folder)])

    def add_all(self, several: Iterable[tuple[Trial, Path | None]]) -> None:
        """`add` for trials that ended together: all of them or none, for one wait on the disk."""
        given = {trial.key: (trial, folder) for trial, folder in several}
        known = {key for (key,) in self._among("SELECT key FROM trials WHERE key IN ({})", list(given))}
        new = [_row(self._with_files(*one)) for key, one in given.items() if key not in known]
        if not new:
            return
        with self._writing() as db:
            for row in new:
                if db.execute("SELECT 1 FROM trials WHERE key = ?", (row["key"],)).fetchone():
                    continue
                row["prev"] = db.execute("SELECT head FROM chain").fetchone()[0]
                row["hash"] = _hash(row)
                db.execute(f"INSERT INTO trials VALUES ({', '.join('?' * len(_COLUMNS))})", [row[c] for c in _COLUMNS])
                db.execute("UPDATE chain SET rows = rows + 1, head = ?", (row["hash"],))

    def _with_files(self, trial: Trial, folder: Path | None) -> Trial:
        """The trial with the names of its files, which are kept now."""
        if folder is None:
            return trial
        with told(self.home):
            files = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
            hashes = {name: self._artefacts.store(path) for name, path in files.items()}
        return replace(trial, record={**trial.record, "files": {**trial.record.get("files", {}), **hashes}})

    def artefact(self, digest: str) -> Path:
        """Where the artefact of that SHA-256 lies, whether or not it is there."""
        return self._artefacts.path(digest)

    def fail(self, key: str, error: str) -> None:
        """Note why a trial did not finish; it is tried again at the next check."""
        with self._writing() as db:
            db.execute("INSERT INTO failures VALUES (?, ?, ?)", (key, error, _now()))

    def failures(self, keys: Iterable[str]) -> dict[str, str]:
        """The latest error of each key that has not been finished since."""
        ask = (
            "SELECT key, error FROM failures WHERE key IN ({}) "
            "AND NOT EXISTS (SELECT 1 FROM trials WHERE trials.key = failures.key) ORDER BY failures.rowid"
        )
        return dict(self._among(ask, list(keys)))

    def save_verdict(self, claim_id: str, profile: str, report: dict[str, Any], source: str) -> None:
        """Keep one claim's `check --json` entry; ValueError if it holds a number that is not finite."""
        text = json.dumps(report, allow_nan=False)
        finished = report.get("finished") or _now()
        row = (claim_id, profile, report.get("verdict"), report.get("n"), text, source, finished)
        with self._writing() as db:
            db.execute("INSERT INTO verdicts VALUES (?, ?, ?, ?, ?, ?, ?)", row)

    def verdicts(self) -> dict[tuple[str, str], dict[str, Any]]:
        """(claim id, profile) -> its latest report, with `finished` and `source`."""
        ask = (
            "SELECT claim, profile, report, source, finished FROM verdicts "
            "WHERE rowid IN (SELECT max(rowid) FROM verdicts GROUP BY claim, profile)"
        )
        with self._told():
            rows = self._db.execute(ask).fetchall()
        return {
            (claim, profile): {**_parse(report, f"the verdict of {claim}"), "source": source, "finished": finished}
            for claim, profile, report, source, finished in rows
        }

    def verify(self) -> list[str]:
        """What is wrong with the ledger, one line each: broken links, edited rows, artefacts missing or altered."""
        try:
            damage = [str(line) for (line,) in self._db.execute("PRAGMA integrity_check(10)") if line != "ok"]
            if damage:
                return [f"{self.path}: {line}" for line in damage]
            with self._snapshot() as db:
                count, head = db.execute("SELECT rows, head FROM chain").fetchone() or (0, "")
                rows = db.execute(f"SELECT {', '.join(_COLUMNS)} FROM trials ORDER BY rowid").fetchall()
        except sqlite3.DatabaseError as error:
            return [f"{self.path}: {error}"]
        wrong: list[str] = []
        files: list[tuple[str, str, str]] = []
        last = ""
        for values in rows:
            row = dict(zip(_COLUMNS, values))
            name = f"trial {str(row['key'])[:12]} ({row['claim']}, {row['arm']}, seed {row['seed']})"
            if row["hash"] != _hash(row):
                wrong.append(f"{name}: the row was edited after it was written")
            if row["prev"] != last:
                wrong.append(f"{name}: the row before it was removed, replaced or put in later")
            last = row["hash"]
            files += [(name, file, digest) for file, digest in _files(row["record"]).items()]
        if last != head:
            wrong.append(f"the end of the ledger does not fit: {count} trials were written, {len(rows)} are there")
        return wrong + self._altered(files)

    def _altered(self, files: list[tuple[str, str, str]]) -> list[str]:
        wrong: list[str] = []
        state: dict[str, str] = {}
        for trial, file, digest in files:
            if digest not in state:
                state[digest] = ""
                try:
                    if digest_of(self.artefact(digest)) != digest:
                        state[digest] = "was altered"
                except FileNotFoundError:
                    state[digest] = "is missing"
                except (OSError, InputError) as error:
                    state[digest] = f"cannot be read: {error}"
            if state[digest]:
                wrong.append(f"{trial}: artefact {file} ({digest[:12]}) {state[digest]}")
        return wrong

    @property
    def _db(self) -> sqlite3.Connection:
        if self._open is None:
            with self._told():
                db = self._connect()
            if db is None:  # a reader before the first writer: empty for now, looked for again at the next question
                db = sqlite3.connect(":memory:", isolation_level=None)
                _make(db)
                return db
            self._open = db
        return self._open

    def _connect(self) -> sqlite3.Connection | None:
        if self.read_only and not self.path.exists():
            return None
        # "rw" also for readers, so that what a killed writer left half done can be rolled back; SQLite falls back to
        # reading alone where the file cannot be written.
        uri = f"{self.path.absolute().as_uri()}?mode={'rw' if self.read_only else 'rwc'}"
        db = sqlite3.connect(uri, uri=True, timeout=WAIT, isolation_level=None)
        try:
            db.execute("PRAGMA synchronous = EXTRA")  # a row that was reported kept survives a power cut
            db.execute("BEGIN" if self.read_only else "BEGIN IMMEDIATE")
            known = self._known(db)
            if not known and not self.read_only:
                _make(db)
            if not self.read_only:
                db.execute("UPDATE chain SET rows = rows WHERE 0")  # changes nothing, and fails where one cannot write
            db.execute("COMMIT")
            db.execute(f"PRAGMA query_only = {int(self.read_only)}")
        except BaseException:
            db.close()
            raise
        if not known and self.read_only:
            db.close()
            return None
        return db

    def _known(self, db: sqlite3.Connection) -> bool:
        """Whether the file holds a ledger of this schema; False if it is empty, InputError if it is something else."""
        version = db.execute("PRAGMA user_version").fetchone()[0]
        tables = db.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if version == SCHEMA and tables:
            return True
        if version == 0 and not tables:
            return False
        if version > SCHEMA:
            why = f"a newer precis wrote it (schema {version}, this one knows {SCHEMA}): upgrade precis"
        elif version > 0 and tables:
            why = f"an older precis wrote it (schema {version}, this one needs {SCHEMA}): move it away to begin anew"
        else:
            why = "this SQLite file is not a ledger of precis: move it away"
        raise InputError(f"{why}, or set PRECIS_HOME to another folder", file=self.path)

    def _among(self, ask: str, keys: list[str]) -> list[tuple[Any, ...]]:
        """All rows of a question with `IN ({})`, asked in chunks that every build of SQLite takes."""
        rows: list[tuple[Any, ...]] = []
        with self._told():
            for i in range(0, len(keys), 500):
                some = keys[i : i + 500]
                rows += self._db.execute(ask.format(", ".join("?" * len(some))), some).fetchall()
        return rows

    @contextlib.contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        db = self._db
        db.execute("BEGIN")
        try:
            yield db
        finally:
            db.execute("ROLLBACK")

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction that holds the write lock from its start: all of it is kept, or nothing."""
        if self.read_only:
            raise ValueError("this ledger was opened for reading")
        with self._told():
            db = self._db
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """SQLite's errors as one line that says what to do."""
        try:
            yield
        except sqlite3.ProgrammingError:  # a bug of ours
            raise
        except sqlite3.Error as error:
            raise _clear(error, self.path) from error


def _make(db: sqlite3.Connection) -> None:
    for statement in _TABLES:
        db.execute(statement)


def _clear(error: sqlite3.Error, path: Path) -> Exception:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
    if code == sqlite3.SQLITE_FULL:
        return RunFailed(f"{path}: the disk is full; what was finished before is kept: make room and go on")
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL):
        return RunFailed(f"{path}: another process has held the ledger for {WAIT:.0f} s: try again when it has ended")
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        why = f"the ledger cannot be opened or written ({error}): set PRECIS_HOME to a folder of yours"
        return InputError(why, file=path)
    if code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_INTERRUPT):
        return RunFailed(f"{path}: {error}")
    return InputError(
        f"the ledger is damaged ({error}); nothing was changed: put a copy of it back, or move it away to begin anew",
        file=path,
    )


def _row(trial: Trial) -> dict[str, Any]:
    """The values as SQLite gives them back, so that the hash can be taken again from what is read."""
    row = {name: getattr(trial, name) for name in _FIELDS}
    for name in _JSON:
        row[name] = json.dumps(row[name])  # a metric that is not finite stays so: NaN, Infinity as Python reads them
    for name in ("seconds", "peak_memory_mb"):
        row[name] = float(row[name]) + 0.0  # SQLite gives -0.0 back as 0.0
        if not math.isfinite(row[name]):
            raise ValueError(f"{name} of a trial is {row[name]}")
    return row


def _read(values: tuple[Any, ...]) -> Trial:
    row = dict(zip(_FIELDS, values))
    for name in _JSON:
        row[name] = _parse(row[name], f"{name} of trial {row['key'][:12]}")
    return Trial(**row)


def _parse(text: str, what: str) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError) as error:
        raise InputError(f"the ledger is damaged: {what} is not JSON ({error}); `precis doctor` says more") from error


def _files(record: Any) -> dict[str, str]:
    try:
        files = json.loads(record).get("files", {})
        return {str(name): str(digest) for name, digest in files.items()}
    except (TypeError, ValueError, AttributeError):  # an edited row, which its hash has told already
        return {}


def _hash(row: dict[str, Any]) -> str:
    rest = {name: value for name, value in row.items() if name != "hash"}
    text = json.dumps(rest, sort_keys=True, separators=(",", ":"), default=repr)  # repr: bytes that a hand put in
    return hashlib.sha256(text.encode()).hexdigest()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
