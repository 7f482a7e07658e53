"""What is committed to a table: rows that come once, come in the place of others, or go; each in one commit."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any
from uuid import uuid4

from pyspark.sql import DataFrame

from jobs.engine.faults import FOREIGN, is_conflict
from jobs.engine.locations import asked, storage_of
from jobs.engine.place import literal
from jobs.engine.reading import ReadableTable
from jobs.engine.schemas import PINNED

_LAST_COMMIT = "spark.databricks.delta.lastCommitVersionInSession"
"""Where Delta tells the version of a session's last commit, to whatever table."""


def despite_conflicts(commit: Callable[[], object], tries: int = 6) -> None:
    """Make a commit that other writers may get in the way of; it sees what they wrote when it is tried again."""
    for left in range(tries - 1, -1, -1):
        try:
            commit()
            return
        except FOREIGN as error:
            if not left or not is_conflict(error):
                raise


class Table(ReadableTable):
    """A Delta table, for reading and for writing."""

    def append(self, rows: DataFrame, transaction: str, partition_by: str | None = None) -> int | None:
        """Append rows once: a second append under the same transaction id writes nothing, nor computes the rows.

        The commit carries the id as its user metadata too, so that `committed` finds it.

        Returns:
            The version that it made, as the session tells it; None where it wrote nothing.
        """
        writer = rows.write.format("delta").mode("append").option("userMetadata", transaction)
        if partition_by:  # a new table is then a run's own, and read by that column alone
            writer = writer.partitionBy(partition_by).option("delta.dataSkippingNumIndexedCols", "0")
        writer = writer.option("txnAppId", transaction).option("txnVersion", 1)
        with suppress(*FOREIGN):  # a serverless session has no such conf
            self.spark.conf.unset(_LAST_COMMIT)
        despite_conflicts(lambda: self._save(writer))  # with another driver, perhaps over this very transaction
        version = None
        with suppress(*FOREIGN):
            version = self.spark.conf.get(_LAST_COMMIT, None)
        return None if version is None else int(version)

    def overwrite(self, rows: DataFrame, user_metadata: str | None = None) -> None:
        """Write the table anew, atomically; the commit carries the metadata."""
        writer = rows.write.format("delta").mode("overwrite").option("overwriteSchema", "true")
        self._save(writer if user_metadata is None else writer.option("userMetadata", user_metadata))

    def replace(self, rows: DataFrame, column: str, value: str) -> None:
        """Put rows in the place of those of one value of a column, which the new ones have too, atomically."""
        writer = rows.write.format("delta").mode("overwrite")
        there = {"replaceWhere": f"{column} = {literal(value)}"} if self.exists() else PINNED
        self._save(writer.options(**there))

    def become(
        self, rows: DataFrame, keys: tuple[str, ...], transaction: str, others: dict[str, str] | None = None
    ) -> dict[str, int]:
        """Make the table hold these rows and no others, in one commit; a repeat changes nothing.

        Args:
            rows: each key once, none of it null; read twice, so that they should be stored.
            keys: the columns that tell a row.
            others: columns to set, as SQL, of rows with other keys, which then stay until `keep_only` takes them out.

        Returns:
            How many rows were added, changed and removed.
        """
        if self.read().isEmpty():
            self.append(rows, transaction)
            return self._done({"added": "numOutputRows"})
        self.merge_to(rows, keys, others)
        metrics = {"added": "numTargetRowsInserted", "changed": "numTargetRowsUpdated"}
        return self._done(metrics | {"removed": "numTargetRowsDeleted"})

    def merge_to(self, rows: DataFrame, keys: tuple[str, ...], others: dict[str, str] | None = None) -> None:
        """The same by MERGE: only rows that differ are touched, so that followers of the feed see those alone."""
        same = " AND ".join(f"old.{key} = new.{key}" for key in keys)
        differs = " OR ".join(f"NOT (old.{name} <=> new.{name})" for name in rows.columns if name not in keys)
        clauses = [f"WHEN MATCHED AND ({differs}) THEN UPDATE SET *"] if differs else []
        clauses.append("WHEN NOT MATCHED THEN INSERT *")
        if others is None:
            clauses.append("WHEN NOT MATCHED BY SOURCE THEN DELETE")
        else:
            unset = " OR ".join(f"NOT (old.{name} <=> {value})" for name, value in others.items())
            values = ", ".join(f"old.{name} = {value}" for name, value in others.items())
            clauses.append(f"WHEN NOT MATCHED BY SOURCE AND ({unset}) THEN UPDATE SET {values}")
        self.merge(rows, "new", same, *clauses)

    def keep_only(self, rows: DataFrame, keys: tuple[str, ...]) -> int:
        """Take out the rows whose keys are not among these; how many there were."""
        same = " AND ".join(f"old.{key} = kept.{key}" for key in keys)
        self.merge(rows.select(*keys), "kept", same, "WHEN NOT MATCHED BY SOURCE THEN DELETE")
        return self._done({"removed": "numTargetRowsDeleted"})["removed"]

    def merge(self, rows: DataFrame, name: str, same: str, *clauses: str) -> None:
        """MERGE rows, which the SQL of the condition and the clauses calls by that name, into the table, `old`."""
        view = f"merge_{uuid4().hex}"
        rows.createOrReplaceTempView(view)
        statement = f"MERGE INTO {self.sql_name} AS old USING {view} AS {name} ON {same} {' '.join(clauses)}"
        try:
            despite_conflicts(lambda: self.spark.sql(statement))
        finally:
            self.spark.catalog.dropTempView(view)

    def delete(self, condition: str) -> None:
        """Take out the rows for which an SQL condition is true."""
        despite_conflicts(lambda: self.spark.sql(f"DELETE FROM {self.sql_name} WHERE {condition}"))

    def set_properties(self, properties: dict[str, str]) -> None:
        """Set Delta table properties."""
        pairs = ", ".join(f"{literal(name)} = {literal(value)}" for name, value in properties.items())
        self.spark.sql(f"ALTER TABLE {self.sql_name} SET TBLPROPERTIES ({pairs})")

    def drop(self) -> None:
        """Remove the table and its files."""
        if self.in_catalog:
            self.spark.sql(f"DROP TABLE IF EXISTS {self.sql_name}")
            return
        asked(self.location, lambda: storage_of(self.spark).delete(self.location))

    def _save(self, writer: Any) -> None:
        if self.in_catalog:
            writer.saveAsTable(self.sql_name)
        else:
            writer.save(self.path)

    def _done(self, metrics: dict[str, str]) -> dict[str, int]:
        """Figures of the newest commit, as its writer left them."""
        found = self.history(1).first()
        told = found["operationMetrics"] if found is not None else {}
        return dict.fromkeys(("added", "changed", "removed"), 0) | {
            name: int(told.get(metric, 0)) for name, metric in metrics.items()
        }
