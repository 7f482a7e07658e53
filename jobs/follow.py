"""An example of the ranker's side: `mkdm follow` keeps a key-value view up to date with `ranked_passages`. No Spark.

The view is a SQLite file. Each version of the table is applied in one transaction together with its number, so that a
reader of the view sees one complete ranking, and a follower that was killed goes on as if nothing had been. Where
`mkdm build-pairs` made the queries, the view also tells the query_id of a normalised query, so that `mkdm serve` knows
what it is asked for.
"""

import sqlite3
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mkdm.config import parse_config, run_command
from mkdm.errors import ConfigError, InputError

RANKED = ("query_id", "rank", "passage_id", "score", "model_version", "run_id")
QUERIES = ("query", "query_id")
_GONE, _COME = ("delete", "update_preimage"), ("insert", "update_postimage")
_SCHEMA = """
CREATE TABLE IF NOT EXISTS ranked (
  query_id TEXT, rank INTEGER, passage_id TEXT, score REAL, model_version TEXT, run_id TEXT,
  PRIMARY KEY (query_id, rank)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS applied (
  one INTEGER PRIMARY KEY CHECK (one = 1), table_id TEXT, version INTEGER);
CREATE TABLE IF NOT EXISTS queries (query TEXT PRIMARY KEY, query_id TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS applied_queries (
  one INTEGER PRIMARY KEY CHECK (one = 1), table_id TEXT, version INTEGER);
"""


@dataclass(frozen=True)
class FollowConfig:
    """Follow the ranking of a warehouse with a key-value view, a SQLite file.

    Raises:
        ConfigError: a number outside its range.
    """

    view: str
    """SQLite file of the view; made where there is none."""
    warehouse: str = "warehouse"
    """Folder or URI of the tables."""
    ranked_passages: str | None = None
    """Folder or URI of the table, if not <warehouse>/ranked_passages."""
    every: float | None = None
    """Seconds between two looks at the table, until it is stopped; default: one look."""
    queries: str | None = None
    """Folder or URI of the normalised queries (query_id, query), for readers that ask by text; default:
    <warehouse>/normalised_queries, where build-pairs made that."""

    def __post_init__(self) -> None:
        if self.every is not None and not self.every > 0:
            raise ConfigError(f"--every is {self.every}; it must be above 0")

    @property
    def location(self) -> str:
        """Where the table is."""
        return self.ranked_passages or f"{self.warehouse.rstrip('/')}/ranked_passages"


@dataclass(frozen=True)
class Applied:
    """A version that the view now has.

    Attributes:
        how: "changes" of that version alone, or "whole": the table as it is.
        rows: rows that came or went.
        lag: seconds from the commit of the version to that of the view.
        seconds: that applying took.
    """

    version: int
    how: str
    rows: int
    lag: float
    seconds: float

    def __str__(self) -> str:
        return (
            f"version {self.version}: {self.how}, {self.rows:,} rows in {self.seconds:.2f} s, "
            f"{self.lag:.1f} s after its commit"
        )


class View:
    """The view, and where it stands. One follower at a time writes; any number reads.

    Args:
        path: of the SQLite file.

    Raises:
        InputError: the file is no SQLite database.
    """

    def __init__(self, path: str) -> None:
        self._database = sqlite3.connect(path, timeout=60, isolation_level=None)
        try:
            self._database.execute("PRAGMA journal_mode = WAL")  # readers do not wait for the writer
            self._database.executescript(_SCHEMA)
        except sqlite3.DatabaseError as error:
            raise InputError(f"{path} cannot be used as a view ({error}): give another --view") from error

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def best(self, query_id: str) -> list[tuple[str, float]]:
        """The passages of a query by rank: passage_id and score."""
        rows = self._database.execute(
            "SELECT passage_id, score FROM ranked WHERE query_id = ? ORDER BY rank", (query_id,)
        )
        return [(str(passage), float(score)) for passage, score in rows]

    def query_id(self, query: str) -> str | None:
        """The id of a normalised query; None where the view has none of that text."""
        found = self._database.execute("SELECT query_id FROM queries WHERE query = ?", (query,)).fetchone()
        return None if found is None else str(found[0])

    def stands_at(self, applied: str = "applied") -> tuple[str, int] | None:
        """The table's id and the version that the view has; None before the first.

        Args:
            applied: applied for the ranking, applied_queries for the queries.
        """
        found = self._database.execute(f"SELECT table_id, version FROM {applied}").fetchone()
        return None if found is None else (str(found[0]), int(found[1]))

    def follow(self, location: str) -> Iterator[Applied]:
        """Apply each version that is new, from the oldest on.

        The table is read whole where the view is new, the table is another than before, or VACUUM took changes away.

        Raises:
            InputError: there is no such table, or it has no ranking.
        """
        table = _opened(location, "publish a ranking with mkdm rank", RANKED, "ranked_passages")
        table_id, newest, at = str(table.metadata().id), table.version(), self.stands_at()
        if at is not None and at[0] == table_id:
            for version in range(at[1] + 1, newest + 1):
                try:
                    changes = list(_changes(table, version))
                except Exception:  # vacuumed, or from before the feed was on; delta-rs raises no type of its own for it
                    break
                yield self._apply(table_id, version, "changes", changes, _committed(table, version))
            at = self.stands_at()
        if at != (table_id, newest):
            whole = [
                (_COME[0], row) for row in _rows(table.to_pyarrow_dataset().to_batches(columns=list(RANKED)), RANKED)
            ]
            yield self._apply(table_id, newest, "whole", whole, _committed(table, newest))

    def follow_queries(self, location: str) -> int | None:
        """Take over the normalised queries where they have another version than the view has.

        Returns:
            How many there are; None where nothing was new.

        Raises:
            InputError: there is no such table, or it has no queries.
        """
        table = _opened(
            location, "make it with mkdm build-pairs, or leave --queries out", QUERIES, "normalised_queries"
        )
        now = (str(table.metadata().id), table.version())
        if self.stands_at("applied_queries") == now:
            return None
        rows = _rows(table.to_pyarrow_dataset().to_batches(columns=list(QUERIES)), QUERIES)
        with self._transaction() as database:
            database.execute("DELETE FROM queries")
            database.executemany("INSERT OR REPLACE INTO queries VALUES (?, ?)", rows)
            database.execute("INSERT OR REPLACE INTO applied_queries VALUES (1, ?, ?)", now)
            return int(database.execute("SELECT count(*) FROM queries").fetchone()[0])

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield self._database
            self._database.execute("COMMIT")
        except BaseException:
            self._database.execute("ROLLBACK")
            raise

    def _apply(
        self, table_id: str, version: int, how: str, changes: list[tuple[str, tuple[Any, ...]]], committed: float
    ) -> Applied:
        began = time.time()
        gone = [(row[0], row[1]) for kind, row in changes if kind in _GONE]
        come = [row for kind, row in changes if kind in _COME]
        with self._transaction() as database:
            if how == "whole":
                database.execute("DELETE FROM ranked")
            database.executemany("DELETE FROM ranked WHERE query_id = ? AND rank = ?", gone)
            database.executemany("INSERT OR REPLACE INTO ranked VALUES (?, ?, ?, ?, ?, ?)", come)
            database.execute("INSERT OR REPLACE INTO applied VALUES (1, ?, ?)", (table_id, version))
        return Applied(version, how, len(gone) + len(come), time.time() - committed, time.time() - began)


def _changes(table: Any, version: int) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """The rows that came or went with a version, each with its _change_type."""
    reader = table.load_cdf(version, version, columns=[*RANKED, "_change_type"])
    for batch in reader:
        columns = [
            batch[name].to_pylist() if hasattr(batch[name], "to_pylist") else list(batch[name]) for name in RANKED
        ]
        kinds = batch["_change_type"]
        yield from zip(kinds.to_pylist(), zip(*columns, strict=True), strict=True)


def _opened(location: str, advice: str, columns: Sequence[str], name: str) -> Any:
    """The Delta table at a location, after checking that it has the columns of the table of that name."""
    from deltalake import DeltaTable
    from deltalake.exceptions import DeltaError, TableNotFoundError

    try:
        table = DeltaTable(location)
    except (TableNotFoundError, DeltaError, OSError) as error:
        raise InputError(f"no Delta table at {location}: {advice} ({_line(error)})") from error
    missing = set(columns) - {field.name for field in table.schema().fields}
    if missing:
        raise InputError(f"{location} lacks the column {min(missing)}: it is no {name}")
    return table


def _is_table(location: str) -> bool:
    from deltalake import DeltaTable

    return bool(DeltaTable.is_deltatable(location))


def _rows(batches: Any, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    for batch in batches:
        yield from zip(*(batch[name].to_pylist() for name in columns), strict=True)


def _committed(table: Any, version: int) -> float:
    """When a version was committed, in seconds since 1970; now, where its log is gone."""
    for entry in table.history():
        if entry["version"] == version:
            return float(entry["timestamp"]) / 1000
    return datetime.now(UTC).timestamp()


def _line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)


def main(argv: Sequence[str] | None = None) -> None:
    """Follow from the command line; a line for each version."""
    (config,) = parse_config("mkdm follow", argv, FollowConfig)
    with closing(View(config.view)) as view:
        while True:
            for applied in view.follow(config.location):
                print(applied, flush=True)
            queries = config.queries or f"{config.warehouse.rstrip('/')}/normalised_queries"
            if config.queries or _is_table(queries):
                taken = view.follow_queries(queries)
                if taken is not None:
                    print(f"queries: {taken:,} of {queries}", flush=True)
            if config.every is None:
                break
            time.sleep(config.every)
        at = view.stands_at()
    print(f"{config.view} has version {at[1] if at else '–'} of {config.location}", file=sys.stderr)


if __name__ == "__main__":
    run_command(main)
