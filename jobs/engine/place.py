"""What a place of a table is: a folder, URI or name in a catalog, and how SQL and Delta Lake call it."""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Self

from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession

from cluster.connect import is_connect
from jobs.engine.locations import NAME_PART, names_table, qualified, quoted
from mkdm.errors import ConfigError, refuse_credentials

_NO_TABLE = (
    "DELTA_TABLE_NOT_FOUND",
    "DELTA_PATH_DOES_NOT_EXIST",
    "DELTA_MISSING_DELTA_TABLE",
    "PATH_NOT_FOUND",
)
"""Conditions of a folder where nothing is, or no Delta table."""


@dataclass(frozen=True)
class Place:
    """Where a Delta table is or may come to be, by path or by name in a catalog.

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
        """Whether the location is a name in a catalog; see `jobs.engine.locations.names_table`.

        Raises:
            ConfigError: it may be either.
        """
        return names_table(self.spark, self.location)

    @property
    def sql_name(self) -> str:
        """The table as SQL names it, quoted."""
        if self.in_catalog:
            return quoted(self.location)
        return f"delta.`{self.qualified().replace('`', '``')}`"

    def qualified(self) -> str:
        """The location of a path table as a full URI: Delta's SQL takes no relative path."""
        return qualified(self.spark, self.location)

    @property
    def path(self) -> str:
        """The location of a path table for Spark's readers and writers: a server of Connect has a folder of its own."""
        return self.qualified() if is_connect(self.spark) else self.location

    def sibling(self, name: str) -> Self:
        """The table of that name in the same folder or schema."""
        if self.in_catalog:
            return type(self)(self.spark, ".".join([*re.findall(NAME_PART, self.location)[:-1], name]))
        return type(self)(self.spark, f"{self.location.rstrip('/').rpartition('/')[0] or '.'}/{name}")

    def exists(self) -> bool:
        """Whether a Delta table is there."""
        if self.in_catalog:
            return self.spark.catalog.tableExists(self.sql_name)
        if is_connect(self.spark):
            return self._answers()
        from cluster.classic import is_delta_table

        return is_delta_table(self.spark, self.location)

    def _answers(self) -> bool:
        """Whether Delta Lake knows the columns of what is in the folder."""
        try:
            self.spark.read.format("delta").load(self.path).schema  # noqa: B018  (asks the server)
        except AnalysisException as error:
            if any(f"[{name}]" in str(error) for name in _NO_TABLE):
                return False
            raise
        return True

    def history(self, limit: int | None = None) -> DataFrame:
        """What Delta Lake tells of the newest commits, newest first; of all for None."""
        return self.spark.sql(f"DESCRIBE HISTORY {self.sql_name}" + ("" if limit is None else f" LIMIT {limit:d}"))


def literal(text: str) -> str:
    """A string as SQL writes it."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
