"""What a place of a table is: a folder, URI or name in a catalog, and how SQL, Delta Lake and Hadoop call it."""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

from delta.tables import DeltaTable
from pyspark.sql import SparkSession

from jobs.engine.locations import NAME_PART, hadoop_path, names_table, quoted
from mkdm.errors import ConfigError, refuse_credentials


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
        system, path = self.hadoop_path()
        return str(system.makeQualified(path).toString())

    def hadoop_path(self) -> tuple[Any, Any]:
        """The file system of the location, and the location as Hadoop's Path."""
        return hadoop_path(self.spark, self.location)

    def sibling(self, name: str) -> Self:
        """The table of that name in the same folder or schema."""
        if self.in_catalog:
            return type(self)(self.spark, ".".join([*re.findall(NAME_PART, self.location)[:-1], name]))
        return type(self)(self.spark, f"{self.location.rstrip('/').rpartition('/')[0] or '.'}/{name}")

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


def literal(text: str) -> str:
    """A string as SQL writes it."""
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
