"""The engine's tables: their schemas, and where a warehouse keeps them, in a folder or in a catalog."""

import re
from dataclasses import dataclass
from typing import Any

from delta.tables import DeltaTable
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import (
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    MapType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)

from mkdm.errors import ConfigError, InputError


def _schema(required: str, **optional: Any) -> StructType:
    keys = [StructField(name, StringType(), nullable=False) for name in required.split()]
    return StructType(keys + [StructField(name, kind) for name, kind in optional.items()])


_TEXT, _LONG, _TIME = StringType(), LongType(), TimestampType()
SCHEMAS = {
    "scores": _schema(
        "query_id passage_id",
        score=FloatType(),
        model_version=_TEXT,
        content_hash=_LONG,
        run_id=_TEXT,
        scored_at=_TIME,
    ),
    "rejected_pairs": _schema(
        "",
        query_id=_TEXT,
        passage_id=_TEXT,
        job=_TEXT,
        error_code=_TEXT,
        error_message=_TEXT,
        run_id=_TEXT,
        rejected_at=_TIME,
    ),
    "runs": _schema(
        "run_id job",
        fingerprint=_TEXT,
        input_versions=MapType(_TEXT, _TEXT),
        model_version=_TEXT,
        chunk=IntegerType(),
        state=_TEXT,
        rows_read=_LONG,
        rows_written=_LONG,
        rows_rejected=_LONG,
        tokens=_LONG,
        padding_ratio=DoubleType(),
        model_loads=_LONG,
        seconds=DoubleType(),
        started_at=_TIME,
        finished_at=_TIME,
        engine_version=_TEXT,
    ),
}

_CATALOG = re.compile(r"^\w+\.\w+$")
_NAME = re.compile(r"^\w+(\.\w+){1,2}$")


@dataclass(frozen=True)
class Table:
    """A Delta table, by path or by name in a catalog.

    Attributes:
        location: a folder or URI, or SCHEMA.TABLE or CATALOG.SCHEMA.TABLE.
    """

    spark: SparkSession
    location: str

    @property
    def in_catalog(self) -> bool:
        """Whether the location is a name in a catalog."""
        return _NAME.match(self.location) is not None

    def exists(self) -> bool:
        """Whether a Delta table is there."""
        if self.in_catalog:
            return self.spark.catalog.tableExists(self.location)
        return DeltaTable.isDeltaTable(self.spark, self.location)

    def delta(self) -> DeltaTable:
        """The table as Delta Lake's own handle."""
        if self.in_catalog:
            return DeltaTable.forName(self.spark, self.location)
        return DeltaTable.forPath(self.spark, self.location)

    def latest_version(self) -> int:
        """The newest Delta version."""
        return int(self.delta().history(1).first()["version"])  # type: ignore[index]

    def read(self, version: int | None = None) -> DataFrame:
        """The table, at a version or as it is now.

        Raises:
            InputError: there is no Delta table, or it no longer has or not yet has that version.
        """
        if not self.exists():
            raise InputError(f"no Delta table at {self.location} (files are told by .parquet, .csv or .jsonl)")
        reader = self.spark.read
        if version is not None:
            latest = self.latest_version()
            if not 0 <= version <= latest:
                raise InputError(f"{self.location} has no version {version}; its newest is {latest}")
            reader = reader.option("versionAsOf", version)
        try:
            return reader.table(self.location) if self.in_catalog else reader.format("delta").load(self.location)
        except AnalysisException as error:
            raise InputError(f"cannot read {self.location}: {_one_line(error)}") from error

    def create(self, schema: StructType) -> None:
        """Create the table empty, unless it is there.

        Raises:
            ConfigError: the place cannot hold a table, such as a schema that does not exist.
        """
        columns = ", ".join(
            f"{field.name} {field.dataType.simpleString()}{'' if field.nullable else ' NOT NULL'}" for field in schema
        )
        try:
            if self.in_catalog:  # Delta's builder does not parse CATALOG.SCHEMA.TABLE
                self.spark.sql(f"CREATE TABLE IF NOT EXISTS {self.location} ({columns}) USING delta")
            else:  # nor does it take a relative path
                system, path = self._hadoop_path()
                location = system.makeQualified(path).toString()
                DeltaTable.createIfNotExists(self.spark).location(location).addColumns(schema).execute()
        except AnalysisException as error:
            raise ConfigError(f"cannot create the table {self.location}: {_one_line(error)}") from error

    def append(self, rows: DataFrame, transaction: str) -> None:
        """Append rows once: a second append under the same transaction id writes nothing."""
        writer = rows.write.format("delta").mode("append")
        self._save(writer.option("txnAppId", transaction).option("txnVersion", 1))

    def overwrite(self, rows: DataFrame) -> None:
        """Write the table anew, atomically."""
        self._save(rows.write.format("delta").mode("overwrite").option("overwriteSchema", "true"))

    def _save(self, writer: Any) -> None:
        if self.in_catalog:
            writer.saveAsTable(self.location)
        else:
            writer.save(self.location)

    def drop(self) -> None:
        """Remove the table and its files."""
        if self.in_catalog:
            self.spark.sql(f"DROP TABLE IF EXISTS {self.location}")
            return
        system, path = self._hadoop_path()
        system.delete(path, True)

    def _hadoop_path(self) -> tuple[Any, Any]:
        """The file system of the location, and the location as Hadoop's Path."""
        jvm: Any = self.spark._jvm
        path = jvm.org.apache.hadoop.fs.Path(self.location)
        return path.getFileSystem(self.spark._jsparkSession.sessionState().newHadoopConf()), path


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

    def table(self, name: str, moved_to: str | None = None) -> Table:
        """The table of that name, or the one at `moved_to`."""
        if moved_to:
            return Table(self.spark, moved_to)
        return Table(
            self.spark, f"{self.root}.{name}" if _CATALOG.match(self.root) else f"{self.root.rstrip('/')}/{name}"
        )

    def output(self, name: str, moved_to: str | None = None) -> Table:
        """The same for a table of the design page, which is created with its schema if it is not there."""
        table = self.table(name, moved_to)
        table.create(SCHEMAS[name])
        return table


def _one_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
