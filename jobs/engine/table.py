"""What is committed to a table: rows that come once, come in the place of others, or go; each in one commit."""

from collections.abc import Callable
from typing import Any

from delta.exceptions import DeltaConcurrentModificationException
from py4j.protocol import Py4JJavaError
from pyspark.sql import DataFrame

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
        except Py4JJavaError as error:  # which is how Delta's conflicts reach Python, in spite of delta.exceptions
            if not left or not error.java_exception.getClass().getName().startswith("io.delta.exceptions."):
                raise
        except DeltaConcurrentModificationException:
            if not left:
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
        writer = writer.partitionBy(partition_by) if partition_by else writer
        writer = writer.option("txnAppId", transaction).option("txnVersion", 1)
        self.spark.conf.unset(_LAST_COMMIT)
        despite_conflicts(lambda: self._save(writer))  # with another driver, perhaps over this very transaction
        version = self.spark.conf.get(_LAST_COMMIT, None)
        return None if version is None else int(version)

    def overwrite(self, rows: DataFrame) -> None:
        """Write the table anew, atomically."""
        self._save(rows.write.format("delta").mode("overwrite").option("overwriteSchema", "true"))

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
        merge = self.delta().alias("old").merge(rows.alias("new"), same)
        merge = merge.whenMatchedUpdateAll(differs) if differs else merge
        merge = merge.whenNotMatchedInsertAll()
        if others is None:
            merge = merge.whenNotMatchedBySourceDelete()
        else:
            unset = " OR ".join(f"NOT (old.{name} <=> {value})" for name, value in others.items())
            merge = merge.whenNotMatchedBySourceUpdate(unset, others)  # type: ignore[arg-type]
        despite_conflicts(merge.execute)

    def keep_only(self, rows: DataFrame, keys: tuple[str, ...]) -> int:
        """Take out the rows whose keys are not among these; how many there were."""
        same = " AND ".join(f"old.{key} = kept.{key}" for key in keys)
        merge = self.delta().alias("old").merge(rows.select(*keys).alias("kept"), same)
        despite_conflicts(merge.whenNotMatchedBySourceDelete().execute)
        return self._done({"removed": "numTargetRowsDeleted"})["removed"]

    def set_properties(self, properties: dict[str, str]) -> None:
        """Set Delta table properties."""
        pairs = ", ".join(f"{literal(name)} = {literal(value)}" for name, value in properties.items())
        self.spark.sql(f"ALTER TABLE {self.sql_name} SET TBLPROPERTIES ({pairs})")

    def drop(self) -> None:
        """Remove the table and its files."""
        if self.in_catalog:
            self.spark.sql(f"DROP TABLE IF EXISTS {self.sql_name}")
            return
        system, path = self.hadoop_path()
        system.delete(path, True)

    def _save(self, writer: Any) -> None:
        if self.in_catalog:
            writer.saveAsTable(self.sql_name)
        else:
            writer.save(self.location)

    def _done(self, metrics: dict[str, str]) -> dict[str, int]:
        """Figures of the newest commit, as its writer left them."""
        found = self.delta().history(1).first()
        told = found["operationMetrics"] if found is not None else {}
        return dict.fromkeys(("added", "changed", "removed"), 0) | {
            name: int(told.get(metric, 0)) for name, metric in metrics.items()
        }
