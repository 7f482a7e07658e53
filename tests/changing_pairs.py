"""A pairs table that changes in the ways that Delta Lake knows, and beside it, in plain Python, what it then holds.

Its rows are in lanes: a lane's rows have a query of their own, so that what happens to one says nothing of another. A
commit changes many lanes at once, each in its own way, so that one table lives through as many sequences of changes.
"""

from collections import Counter
from collections.abc import Callable, Sequence

from delta_sql import optimise, update
from deltalake import DeltaTable as Reader
from hypothesis import strategies as st
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.engine import Table

Row = tuple[str | None, str | None, str | None, str | None]
Key = tuple[str | None, str | None]
SCHEMA = "query_id string, passage_id string, query string, passage string"
QUERIES = ("what is a gasket", "which seal")
PASSAGES = ("A gasket is a seal.", "A ring of rubber.", None, " ")


def keys_of(lane: int) -> tuple[Key, ...]:
    """The keys of a lane, two of them with a null."""
    return (str(lane), "1"), (str(lane), "2"), (str(lane), None), (None, str(lane))


def keys(lane: int) -> st.SearchStrategy[Key]:
    """One of them; those without a null come more often."""
    whole, second, *nulls = keys_of(lane)
    return st.sampled_from((whole, whole, second, *nulls))


def rows(lane: int) -> st.SearchStrategy[Row]:
    """A row of a lane."""
    one = st.tuples(keys(lane), st.sampled_from(QUERIES), st.sampled_from(PASSAGES))
    return one.map(lambda drawn: (*drawn[0], *drawn[1:]))


def in_lanes(lanes: int, of_lane: Callable[[int], st.SearchStrategy], most: int = 2) -> st.SearchStrategy[list]:
    """Up to so many things of each lane."""
    each = [st.lists(of_lane(lane), max_size=most) for lane in range(lanes)]
    return st.tuples(*each).map(lambda drawn: [one for lane in drawn for one in lane])


def same_key(key: Key) -> str:
    """A key as a condition in SQL."""
    values = ("null" if value is None else f"'{value}'" for value in key)
    return "query_id <=> {} AND passage_id <=> {}".format(*values)


def written(root: str, names: tuple[str, str], runs: list[str] | None) -> tuple[Counter, dict[Key, float]]:
    """What runs wrote into tables of scores and rejects, as delta-rs reads it.

    Args:
        runs: their ids; None takes all rows.

    Returns:
        By query_id, passage_id, content_hash and error_code, how many rows; and by key the score.
    """
    tables = [Reader(f"{root}/{name}").to_pyarrow_table().to_pylist() for name in names]
    scores, rejects = ([row for row in rows if runs is None or row["run_id"] in runs] for rows in tables)
    counted = Counter((row["query_id"], row["passage_id"], row.get("content_hash"), None) for row in scores)
    counted.update((row["query_id"], row["passage_id"], None, row["error_code"]) for row in rejects)
    return counted, {(row["query_id"], row["passage_id"]): row.get("score", row.get("soft_label")) for row in scores}


class ChangingPairs:
    """The table, with its rows of today and of every version."""

    def __init__(self, table: Table, rows: Sequence[Row]) -> None:
        self.table = table
        self.spark = table.spark
        self.rows: list[Row] = []
        self.versions: dict[int, list[Row]] = {}
        self.number = False
        writer = self.frame(rows).write.format("delta").option("delta.enableChangeDataFeed", "true")
        writer.mode("overwrite").save(table.location)
        self._is(rows)

    @property
    def version(self) -> int:
        """The newest version, as delta-rs sees it."""
        return Reader(self.table.location).version()

    def _is(self, rows: Sequence[Row]) -> None:
        self.rows = list(rows)
        self.versions[self.version] = self.rows

    def frame(self, rows: Sequence[Row]) -> DataFrame:
        """Rows with the types that the table has now."""
        made = self.spark.createDataFrame(list(rows), SCHEMA).coalesce(1)
        return made.withColumn("query_id", F.col("query_id").cast("bigint")) if self.number else made

    def append(self, rows: Sequence[Row]) -> None:
        """Add rows; none makes an empty commit."""
        self.frame(rows).write.format("delta").mode("append").save(self.table.location)
        self._is([*self.rows, *rows])

    def append_copies(self, places: Sequence[int]) -> None:
        """Add rows that are there, once more."""
        self.append([self.rows[place % len(self.rows)] for place in places] if self.rows else [])

    def delete(self, keys: Sequence[Key], passage: str | None) -> None:
        """Take out rows of those keys: all, or those with that passage."""
        if keys:
            condition = " OR ".join(f"({same_key(key)})" for key in keys)
            text = "" if passage is None else f" AND passage = '{passage}'"
            self.table.delete(f"({condition}){text}")
            hit = lambda row: row[:2] in keys and passage in (None, row[3])  # noqa: E731
            self._is([row for row in self.rows if not hit(row)])

    def update(self, keys: Sequence[Key], passage: str | None) -> None:
        """Give all rows of those keys that passage."""
        if keys:
            condition = " OR ".join(f"({same_key(key)})" for key in keys)
            update(self.table, condition, passage=passage)
            self._is([(*row[:3], passage) if row[:2] in keys else row for row in self.rows])

    def merge(self, rows: Sequence[Row]) -> None:
        """Give rows of known keys these texts, and add the others."""
        by_key = {row[:2]: row for row in rows}
        source = self.frame(list(by_key.values()))
        same = "old.query_id <=> new.query_id AND old.passage_id <=> new.passage_id"
        texts = "WHEN MATCHED THEN UPDATE SET old.query = new.query, old.passage = new.passage"
        self.table.merge(source, "new", same, texts, "WHEN NOT MATCHED THEN INSERT *")
        there = {row[:2] for row in self.rows}
        self._is(
            [by_key.get(row[:2], row) for row in self.rows] + [row for key, row in by_key.items() if key not in there]
        )

    def overwrite(self, rows: Sequence[Row]) -> None:
        """Write all of it anew."""
        writer = self.frame(rows).write.format("delta").mode("overwrite")
        writer.option("overwriteSchema", "true").save(self.table.location)
        self._is(rows)

    def retype(self) -> None:
        """Write all of it anew, with numbers for strings in query_id, or the other way round."""
        self.number = not self.number
        self.overwrite(self.rows)

    def restore(self, place: int) -> None:
        """Take the table back to an earlier version."""
        known = sorted(self.versions)
        version = known[place % len(known)]
        self.table.spark.sql(f"RESTORE TABLE {self.table.sql_name} TO VERSION AS OF {version:d}")
        self.number = dict(self.table.read().dtypes)["query_id"] == "bigint"
        self._is(self.versions[version])

    def optimise(self) -> None:
        """Write its files anew, with the same rows."""
        optimise(self.table)
        self._is(self.rows)

    def check(self) -> None:
        """The table has the rows that this says."""
        found = self.table.read().selectExpr("cast(query_id as string)", "passage_id", "query", "passage").collect()
        assert Counter(map(tuple, found)) == Counter(self.rows)
