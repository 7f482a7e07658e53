"""Where a warehouse keeps its tables, in a folder or in a catalog, and what can be done with one of them."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from delta.exceptions import DeltaConcurrentModificationException
from delta.tables import DeltaTable
from py4j.protocol import Py4JJavaError
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.functions import col

from jobs.engine.locations import PART, hadoop_path, names_schema, names_table, quoted
from jobs.engine.tables import BUILT_BY, TABLES, TableKind
from mkdm.errors import ConfigError, InputError, RunFailedError, refuse_credentials


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


@dataclass(frozen=True)
class Table:
    """A Delta table, by path or by name in a catalog.

    Attributes:
        location: a folder or URI, or SCHEMA.TABLE or CATALOG.SCHEMA.TABLE, whose parts may be in backticks.
    """

    spark: SparkSession
    location: str

    def __post_init__(self) -> None:
        refuse_credentials(self.location, "the place of a table")
        if "`" in self.location and not self.in_catalog:  # Delta's own builder puts a path into SQL as it is
            raise ConfigError(
                f"{self.location} is no name in a catalog, and as a folder it has a backtick, which Delta Lake cannot "
                f"quote: give each part of a name whole in backticks, or a folder without them"
            )

    @cached_property
    def in_catalog(self) -> bool:
        """Whether the location is a name in a catalog."""
        return names_table(self.spark, self.location)

    def sibling(self, name: str) -> "Table":
        """The table of that name in the same folder or schema."""
        if self.in_catalog:
            return Table(self.spark, ".".join([*re.findall(PART, self.location)[:-1], name]))
        return Table(self.spark, f"{self.location.rstrip('/').rpartition('/')[0] or '.'}/{name}")

    def set_properties(self, properties: dict[str, str]) -> None:
        """Set Delta table properties."""
        pairs = ", ".join(f"{literal(name)} = {literal(value)}" for name, value in properties.items())
        self.spark.sql(f"ALTER TABLE {self.sql_name} SET TBLPROPERTIES ({pairs})")

    def exists(self) -> bool:
        """Whether a Delta table is there."""
        if self.in_catalog:
            return self.spark.catalog.tableExists(self.sql_name)
        return DeltaTable.isDeltaTable(self.spark, self.location)

    def delta(self) -> DeltaTable:
        """The table as Delta Lake's own handle."""
        if self.in_catalog:
            return DeltaTable.forName(self.spark, self.sql_name)
        return DeltaTable.forPath(self.spark, self.location)

    def table_id(self) -> str:
        """The id that the table keeps for life, whatever its place or name."""
        return str(self.delta().detail().first()["id"])  # type: ignore[index]

    def latest_version(self) -> int:
        """The newest Delta version."""
        return int(self.delta().history(1).first()["version"])  # type: ignore[index]

    def read(self, version: int | None = None) -> DataFrame:
        """The table, at a version or as it is now.

        Raises:
            InputError: there is no Delta table, or it no longer has or not yet has that version.
        """
        if not self.exists():
            raise InputError(f"no Delta table at {self.location} (files are told by .parquet, .csv, .tsv or .jsonl)")
        reader = self.spark.read
        if version is not None:
            latest = self.latest_version()
            if not 0 <= version <= latest:
                raise InputError(f"{self.location} has no version {version}; its newest is {latest}")
            reader = reader.option("versionAsOf", version)
        try:
            return reader.table(self.sql_name) if self.in_catalog else reader.format("delta").load(self.location)
        except AnalysisException as error:
            raise InputError(f"cannot read {self.location}: {_one_line(error)}") from error

    def create(self, kind: TableKind) -> None:
        """Create the table empty, unless it is there; a table of an earlier engine gets what it lacks.

        Raises:
            ConfigError: the place cannot hold a table, such as a schema that does not exist.
        """
        try:
            if not self.exists():
                despite_conflicts(lambda: self._create_empty(kind))
            has = self.properties()
            lacks = {name: value for name, value in kind.properties.items() if has.get(name) != value}
            if lacks:
                self.set_properties(lacks)
            columns = set(self.read().columns)
            new = [
                f"{field.name} {field.dataType.simpleString()}" for field in kind.schema if field.name not in columns
            ]
            if new:
                self.spark.sql(f"ALTER TABLE {self.sql_name} ADD COLUMNS ({', '.join(new)})")
            for name, check in kind.checks.items():
                if f"delta.constraints.{name}" not in has:
                    self._add_check(name, check)
        except AnalysisException as error:
            raise ConfigError(f"cannot create the table {self.location}: {_one_line(error)}") from error

    def _add_check(self, name: str, check: str) -> None:
        add = f"ALTER TABLE {self.sql_name} ADD CONSTRAINT {name} CHECK ({check})"
        try:
            despite_conflicts(lambda: self.spark.sql(add))
        except AnalysisException as error:
            if error.getCondition() != "DELTA_CONSTRAINT_ALREADY_EXISTS":  # another driver was first
                raise

    def _create_empty(self, kind: TableKind) -> None:
        if self.in_catalog:  # Delta's builder does not parse CATALOG.SCHEMA.TABLE
            columns = ", ".join(
                f"{field.name} {field.dataType.simpleString()}{'' if field.nullable else ' NOT NULL'}"
                for field in kind.schema
            )
            clause = f" CLUSTER BY ({kind.cluster_by})" if kind.cluster_by else ""
            pairs = ", ".join(f"'{name}' = '{value}'" for name, value in kind.properties.items())
            clause += f" TBLPROPERTIES ({pairs})" if pairs else ""
            self.spark.sql(f"CREATE TABLE IF NOT EXISTS {self.sql_name} ({columns}) USING delta{clause}")
            return
        builder = DeltaTable.createIfNotExists(self.spark).location(self.qualified()).addColumns(kind.schema)
        for name, value in kind.properties.items():
            builder = builder.property(name, value)
        (builder.clusterBy(kind.cluster_by) if kind.cluster_by else builder).execute()

    @property
    def sql_name(self) -> str:
        """The table as SQL names it, quoted."""
        if self.in_catalog:
            return quoted(self.location)
        return f"delta.`{self.qualified().replace('`', '``')}`"

    def qualified(self) -> str:
        """The location of a path table as a full URI: Delta's SQL takes no relative path."""
        system, path = self.hadoop_path()
        return str(system.makeQualified(path).toString())

    def append(self, rows: DataFrame, transaction: str, partition_by: str | None = None) -> None:
        """Append rows once: a second append under the same transaction id writes nothing, nor computes the rows.

        The commit carries the id as its user metadata too, so that `committed` finds it.
        """
        writer = rows.write.format("delta").mode("append").option("userMetadata", transaction)
        writer = writer.partitionBy(partition_by) if partition_by else writer
        writer = writer.option("txnAppId", transaction).option("txnVersion", 1)
        despite_conflicts(lambda: self._save(writer))  # with another driver, perhaps over this very transaction

    def committed(self, transaction: str) -> int:
        """The version that a transaction made: found in the last commits, or else in all that Delta still tells of.

        Raises:
            RunFailedError: there is none.
        """
        for limit in (10, None):
            history = self.delta().history(limit)  # type: ignore[arg-type]
            found = history.where(col("userMetadata") == transaction).select("version").first()
            if found is not None:
                return int(found["version"])
        raise RunFailedError(f"{self.location} has no commit {transaction}, though it was written")

    def changes(self, first: int, last: int) -> DataFrame:
        """The rows that the versions from `first` to `last` changed, with Delta's _change_type and _commit_version."""
        function = "table_changes" if self.in_catalog else "table_changes_by_path"
        # Through the DataFrameReader, Spark warns of its own options thrice; parameters reach no table function in 4.2.
        location = literal(self.sql_name if self.in_catalog else self.qualified())
        return self.spark.sql(f"SELECT * FROM {function}({location}, {first:d}, {last:d})")

    def verify(self, transaction: str, expected: int) -> None:
        """Count the rows that a commit added, as a reader finds them in the table.

        Raises:
            RunFailedError: they are not as many as expected.
        """
        version = self.committed(transaction)
        added = self.changes(version, version).count()
        if added != expected:
            raise RunFailedError(f"version {version} of {self.location} added {added:,} rows and not {expected:,}")

    def overwrite(self, rows: DataFrame) -> None:
        """Write the table anew, atomically."""
        self._save(rows.write.format("delta").mode("overwrite").option("overwriteSchema", "true"))

    def replace(self, rows: DataFrame, column: str, value: str) -> None:
        """Put rows in the place of those of one value of a column, which the new ones have too, atomically."""
        writer = rows.write.format("delta").mode("overwrite")
        self._save(writer.option("replaceWhere", f"{column} = {literal(value)}") if self.exists() else writer)

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

    def keep_only(self, rows: DataFrame, keys: tuple[str, ...]) -> int:
        """Take out the rows whose keys are not among these; how many there were."""
        same = " AND ".join(f"old.{key} = kept.{key}" for key in keys)
        merge = self.delta().alias("old").merge(rows.select(*keys).alias("kept"), same)
        despite_conflicts(merge.whenNotMatchedBySourceDelete().execute)
        return self._done({"removed": "numTargetRowsDeleted"})["removed"]

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

    def _done(self, metrics: dict[str, str]) -> dict[str, int]:
        """Figures of the newest commit, as its writer left them."""
        found = self.delta().history(1).first()
        told = found["operationMetrics"] if found is not None else {}
        return dict.fromkeys(("added", "changed", "removed"), 0) | {
            name: int(told.get(metric, 0)) for name, metric in metrics.items()
        }

    def properties(self) -> dict[str, str]:
        """Its Delta table properties."""
        found = self.delta().detail().select("properties").first()
        return dict(found["properties"]) if found is not None else {}

    def built(self) -> bool:
        """Whether a build owns its rows."""
        return BUILT_BY in self.properties()

    def _save(self, writer: Any) -> None:
        if self.in_catalog:
            writer.saveAsTable(self.sql_name)
        else:
            writer.save(self.location)

    def drop(self) -> None:
        """Remove the table and its files."""
        if self.in_catalog:
            self.spark.sql(f"DROP TABLE IF EXISTS {self.sql_name}")
            return
        system, path = self.hadoop_path()
        system.delete(path, True)

    def hadoop_path(self) -> tuple[Any, Any]:
        """The file system of the location, and the location as Hadoop's Path."""
        return hadoop_path(self.spark, self.location)


@dataclass(frozen=True)
class Warehouse:
    """Where all tables are, unless one is moved with a flag of its own.

    Attributes:
        root: a folder or URI, or CATALOG.SCHEMA.
    """

    spark: SparkSession
    root: str

    def __post_init__(self) -> None:
        if not self.root:
            raise ConfigError("--warehouse is empty: give a folder, a URI, or CATALOG.SCHEMA")

    @cached_property
    def in_catalog(self) -> bool:
        """Whether the root is CATALOG.SCHEMA."""
        return names_schema(self.spark, self.root)

    def table(self, name: str, moved_to: str | None = None) -> Table:
        """The table of that name, or the one at `moved_to`."""
        if moved_to:
            return Table(self.spark, moved_to)
        return Table(self.spark, f"{self.root}.{name}" if self.in_catalog else f"{self.root.rstrip('/')}/{name}")

    def output(self, name: str, moved_to: str | None = None) -> Table:
        """The same for a table of the design page, which is created with its schema if it is not there."""
        table = self.table(name, moved_to)
        table.create(TABLES[name])
        return table


def literal(text: str) -> str:
    """A string as SQL writes it."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def _one_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
