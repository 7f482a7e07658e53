"""Pairs as they stood at one version, which is all that a run ever reads of them."""

from dataclasses import dataclass
from functools import cached_property

from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from jobs.engine.chunks import InPlace
from jobs.engine.files import require_unchanged
from jobs.engine.table import Table
from mkdm.columns import BUCKET, PAIR, PASSAGE, PASSAGE_ID
from mkdm.errors import InputError

PASSAGES = "passages"
"""The input of the texts of pairs that have none."""


@dataclass(frozen=True)
class PinnedPairs:
    """Pairs as they stood at one version.

    Attributes:
        rows: query_id, passage_id, query, passage, all strings; and ROW_FAULT where rows of files are at fault.
        version: what was pinned: `<table id>@<Delta version>`, or a hash of the files' names and contents.
        keys: the same before their passages were joined, where that is so: they have none.
        passages: the table that these are from, and what was pinned of it.
        built: whether a build made them, so that the ids of passages begin with their document.
    """

    table: Table
    rows: DataFrame
    version: str
    keys: DataFrame | None = None
    passages: tuple[Table, str] | None = None
    built: bool = False

    @property
    def versions(self) -> dict[str, str]:
        """By input, what was pinned of all that decides the rows."""
        return {"pairs": self.version} | ({} if self.passages is None else {PASSAGES: self.passages[1]})

    @property
    def delta_version(self) -> int:
        """The pinned version of a Delta table.

        Raises:
            InputError: the pairs are files.
        """
        _, _, number = self.version.partition("@")
        if not number:
            raise InputError(f"--incremental follows the change feed of a Delta table, {self.table.location} is a file")
        return int(number)

    @property
    def without_texts(self) -> DataFrame:
        """The rows, without passages where `texts` gives these."""
        return self.rows if self.keys is None else self.keys

    def texts(self) -> DataFrame | None:
        """passage_id, passage of all passages, at the pinned version; None where the rows have their own."""
        if self.passages is None:
            return None
        return self._all_passages().select(PASSAGE_ID, PASSAGE)

    def _all_passages(self) -> DataFrame:
        table, pinned = self.passages  # type: ignore[misc]
        version = pinned.partition("@")[2]
        return table.read(None if version == "None" else int(version))

    def in_place(self) -> InPlace | None:
        """The pairs as a build laid them out, and their texts; None where they are not laid out."""
        if not self.built:
            return None
        rows = self.table.read(self.delta_version)
        passages = None if self.passages is None else self._all_passages()
        if any(BUCKET not in found.columns for found in (rows, passages) if found is not None):
            return None
        rows = rows if PASSAGE in rows.columns else rows.withColumn(PASSAGE, F.lit(None).cast("string"))
        texts = None if passages is None else passages.select(PASSAGE_ID, PASSAGE, BUCKET)
        return InPlace(rows.select(*PAIR, BUCKET), texts)

    @cached_property
    def rows_there(self) -> int:
        """How many rows, which may be none; they are counted once."""
        return self.without_texts.count()

    def count(self) -> int:
        """How many rows.

        Raises:
            InputError: there is none.
        """
        count = self.rows_there
        if count == 0:
            raise InputError(f"{self.table.location} has no row: there is nothing to score")
        return count

    def require_unchanged(self) -> None:
        """Make sure that what was read is what was pinned, which a table sees to itself.

        Raises:
            InputError: a file changed since.
        """
        require_unchanged(self.table.spark, self.table.location, self.version)
