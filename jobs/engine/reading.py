"""What is read of a table: its rows at a version, what changed in them, its history and its properties."""

from datetime import datetime
from typing import Any

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, DataFrameReader
from pyspark.sql.functions import col

from cluster.connect import is_connect
from jobs.engine.faults import told
from jobs.engine.place import Place, literal
from jobs.engine.schemas import BUILT_BY
from jobs.engine.snapshot import Snapshot, snapshot_of
from mkdm.errors import InputError, RunFailedError


class ReadableTable(Place):
    """A Delta table for reading."""

    def snapshot(self, rows: DataFrame | None = None) -> Snapshot:
        """Version, id, properties and protocol of the table as a read of it has found them; None reads it now."""
        found = self._seen(rows)
        if found is not None:
            return found
        detail = self.detail("id", "properties", "minReaderVersion", "tableFeatures")
        return Snapshot(
            version=self._newest(),
            table_id=str(detail["id"]),
            properties=dict(detail["properties"]),
            reader_version=int(detail["minReaderVersion"]),
            features=tuple(detail["tableFeatures"]),
        )

    def table_id(self) -> str:
        """The id that the table keeps for life, whatever its place or name."""
        found = self._seen()
        return found.table_id if found else str(self.detail("id")["id"])

    def latest_version(self) -> int:
        """The newest Delta version."""
        found = self._seen()
        return found.version if found else self._newest()

    def properties(self) -> dict[str, str]:
        """Its Delta table properties."""
        found = self._seen()
        return found.properties if found else dict(self.detail("properties")["properties"])

    def _seen(self, rows: DataFrame | None = None) -> Snapshot | None:
        found = snapshot_of(self._reader(self.spark.read) if rows is None else rows)
        if found is None and self.in_catalog and not is_connect(self.spark):
            from cluster.classic import require_named_delta_table

            require_named_delta_table(self.spark, self.sql_name)
        return found

    def _newest(self) -> int:
        return int(self.history(1).first()["version"])  # type: ignore[index]

    def detail(self, *names: str) -> dict[str, Any]:
        """Those columns of what Delta tells of the table."""
        return self.spark.sql(f"DESCRIBE DETAIL {self.sql_name}").select(*names).first().asDict()  # type: ignore[union-attr]

    def built(self) -> bool:
        """Whether a build owns its rows."""
        return BUILT_BY in self.properties()

    def read(self, version: int | None = None) -> DataFrame:
        """The table, at a version or as it is now.

        Raises:
            InputError: there is no Delta table, or it no longer has or not yet has that version.
        """
        lazily = is_connect(self.spark)
        if not lazily:  # else the server is asked once, by the read itself
            self._require(version)
        reader = self.spark.read if version is None else self.spark.read.option("versionAsOf", version)
        try:
            rows = self._reader(reader)
            if lazily:
                rows.schema  # noqa: B018  (it is only now that the table is looked at)
            return rows
        except AnalysisException as error:
            if lazily:
                self._require(version)
            raise InputError(f"cannot read {self.location}: {told(error)}") from error

    def _require(self, version: int | None) -> None:
        if not self.exists():
            raise InputError(f"no Delta table at {self.location} (files are told by .parquet, .csv, .tsv or .jsonl)")
        latest = None if version is None else self.latest_version()
        if latest is not None and not 0 <= version <= latest:  # type: ignore[operator]
            raise InputError(f"{self.location} has no version {version}; its newest is {latest}")

    def _reader(self, reader: DataFrameReader) -> DataFrame:
        return reader.table(self.sql_name) if self.in_catalog else reader.format("delta").load(self.path)

    def made_at(self, version: int) -> datetime:
        """When a version was committed."""
        found = self.history().where(col("version") == version).select("timestamp").first()
        if found is None:
            raise InputError(f"the log of {self.location} does not tell any more when version {version} was made")
        return found["timestamp"]  # type: ignore[no-any-return]

    def version_at(self, moment: datetime) -> int:
        """The newest version that was committed by then; the first that is told of, if none was.

        Raises:
            InputError: there is no Delta table.
        """
        history = self.history().select("version", "timestamp").collect()
        there = [int(row["version"]) for row in history if row["timestamp"] <= moment]
        return max(there, default=int(history[-1]["version"]))

    def changes(self, first: int, last: int) -> DataFrame:
        """The rows that the versions from `first` to `last` changed, with Delta's _change_type and _commit_version."""
        function = "table_changes" if self.in_catalog else "table_changes_by_path"
        # Through the DataFrameReader, Spark warns of its own options thrice; parameters reach no table function in 4.2.
        location = literal(self.sql_name if self.in_catalog else self.qualified())
        return self.spark.sql(f"SELECT * FROM {function}({location}, {first:d}, {last:d})")

    def committed(self, transaction: str) -> int:
        """The version that a transaction made: found in the last commits, or else in all that Delta still tells of.

        Raises:
            RunFailedError: there is none.
        """
        for limit in (10, None):
            found = self.history(limit).where(col("userMetadata") == transaction).select("version").first()
            if found is not None:
                return int(found["version"])
        raise RunFailedError(f"{self.location} has no commit {transaction}, though it was written")

    def verify(self, transaction: str, expected: int, version: int | None = None) -> None:
        """Count the rows that a commit added, as a reader finds them in the table.

        Args:
            version: the one that the commit made, as `append` tells it; None looks for it.

        Raises:
            RunFailedError: they are not as many as expected.
        """
        if version is not None and self.changes(version, version).count() == expected:
            return
        version = self.committed(transaction)  # a session may tell of another commit, such as that of auto-compaction
        added = self.changes(version, version).count()
        if added != expected:
            raise RunFailedError(f"version {version} of {self.location} added {added:,} rows and not {expected:,}")
