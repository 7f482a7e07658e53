"""Where all tables of a warehouse are, in a folder or in a catalog."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

from pyspark.sql import SparkSession

from jobs.engine.creation import create
from jobs.engine.locations import names_schema
from jobs.engine.schemas import TABLES
from jobs.engine.table import Table
from mkdm.errors import ConfigError


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
        """Whether the root is CATALOG.SCHEMA; see `jobs.engine.locations.names_schema`.

        Raises:
            ConfigError: it may be a folder too.
        """
        return names_schema(self.spark, self.root)

    def table(self, name: str, moved_to: str | None = None) -> Table:
        """The table of that name, or the one at `moved_to`."""
        if moved_to:
            return Table(self.spark, moved_to)
        in_root = f"{self.root}.{name}" if self.in_catalog else f"{self.root.rstrip('/')}/{name}"
        return Table(self.spark, in_root)

    def output(self, name: str, moved_to: str | None = None) -> Table:
        """The same for a table of the design page, which is created with its schema if it is not there."""
        table = self.table(name, moved_to)
        create(table, TABLES[name])
        return table

    def outputs(self, config: object, *names: str) -> dict[str, Table]:
        """The same for several tables at once; the field of its name in a job's config moves each."""
        with ThreadPoolExecutor(len(names)) as pool:  # a commit is mostly waiting for Delta
            tables = pool.map(lambda name: self.output(name, getattr(config, name)), names)
            return dict(zip(names, tables, strict=True))
