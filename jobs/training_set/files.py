"""The files of a training set in its folder: written by Spark, named by a manifest that comes last and whole."""

import re
from dataclasses import dataclass

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from cluster.storage import Storage
from jobs.engine import exists, qualified, storage_of
from jobs.training_set.splits import OF_QUERY, SPLIT
from mkdm.errors import InputError, RunFailedError
from udfs.training_rows import MANIFEST, PAIR_HASH, TrainingFile, TrainingSet, row_groups_udf

_FILE = "file"
_PART = re.compile(r"^[0-9a-f]{16}$")
_BLOCK = 2**27
"""Bytes at which Parquet begins another row group, unless told otherwise."""


@dataclass(frozen=True)
class TrainingFolder:
    """Where a training set is.

    Attributes:
        location: a folder or a URI that Hadoop knows.
    """

    spark: SparkSession
    location: str

    def read(self) -> TrainingSet | None:
        """The set that is there; None where there is no manifest.

        Raises:
            InputError: the manifest is damaged, or of another format.
        """
        if not exists(self.spark, self._path(MANIFEST)):
            return None
        return TrainingSet.parse(self.location, self._storage.read_text(self._path(MANIFEST)))

    def write(
        self, rows: DataFrame, part: str, sizes: dict[str, int], rows_per_file: int, max_length: int
    ) -> list[TrainingFile]:
        """Write each split to <part>/<split>/, in files of about so many rows and one row group each.

        The file of a row, and its place there, come of the hash of its key: a row group is a random sample of the
        split, the same in every export of the same rows.

        Args:
            rows: with their split.
            sizes: by split, how many rows it has.

        Raises:
            RunFailedError: rows are missing, or a file has several row groups.
        """
        self._storage.delete(self._path(part))  # what a killed export left there
        for split, size in sizes.items():
            files = max(1, round(size / rows_per_file))
            number = F.pmod(F.col(OF_QUERY), F.lit(files)).cast(
                "int"
            )  # a query's pairs together, for losses over lists
            mine = rows.where(F.col(SPLIT) == split).withColumn(_FILE, number).drop(SPLIT, OF_QUERY)
            laid_out = mine.repartition(_FILE).sortWithinPartitions(_FILE, PAIR_HASH)
            writer = laid_out.write.partitionBy(_FILE).option("compression", "zstd")
            block = max(_BLOCK, 16 * max_length * rows_per_file)  # far above what 4 bytes a token and the labels take
            if size:
                writer.option("parquet.block.size", block).parquet(f"{self._qualified()}/{part}/{split}")
        files_written = self._files(part)
        found = sum(file.rows for file in files_written)
        if found != sum(sizes.values()):
            raise RunFailedError(f"{sum(sizes.values()):,} rows went to {self.location}, and {found:,} are there")
        return files_written

    def _files(self, part: str) -> list[TrainingFile]:
        """The files below <part>, with their rows and hashes, which Spark tasks read back."""
        options = {"recursiveFileLookup": True, "pathGlobFilter": "*.parquet"}
        contents = self.spark.read.format("binaryFile").options(**options).load(f"{self._qualified()}/{part}")  # type: ignore[arg-type]
        facts = contents.select(
            "path",
            "length",
            F.sha2("content", 256).alias("sha256"),
            row_groups_udf()("content").alias("row_groups"),
        )
        found = []
        for row in facts.collect():
            path = row["path"][row["path"].rindex(f"/{part}/") + 1 :]
            if len(row["row_groups"]) != 1:
                raise RunFailedError(
                    f"{row['path']} has {len(row['row_groups'])} row groups and not one: give the executors more "
                    f"memory, or export with a smaller --row-group-rows"
                )
            groups = list(row["row_groups"])
            found.append(TrainingFile(path, path.split("/")[1], sum(groups), groups, row["length"], row["sha256"]))
        return sorted(found, key=lambda file: (file.split, _number(file.path)))

    def publish(self, training_set: TrainingSet) -> None:
        """Put the manifest of a new set in place of that of an old one, then remove the old one's files.

        Whoever reads meanwhile finds a whole manifest or none.

        Raises:
            RunFailedError: the manifest cannot be put in place.
        """
        before = self._parts_of_old()
        storage, path = self._storage, self._path(MANIFEST)
        temporary = self._path(f".{MANIFEST}.{training_set.fingerprint}")
        storage.write_text(temporary, training_set.manifest())
        storage.delete(path)
        if not storage.rename(temporary, path):
            raise RunFailedError(f"cannot write {path}: is another export at work there?")
        for part in before - _parts(training_set):
            storage.delete(self._path(part))

    def _parts_of_old(self) -> set[str]:
        try:
            old = self.read()
        except InputError:  # damaged, and about to be replaced
            return set()
        return _parts(old) if old else set()

    @property
    def _storage(self) -> Storage:
        return storage_of(self.spark)

    def _path(self, name: str) -> str:
        return f"{self.location}/{name}"

    def _qualified(self) -> str:
        return qualified(self.spark, self.location)


def _parts(training_set: TrainingSet) -> set[str]:
    """The folders that an export made for its files, which are hexadecimal digits; never any other."""
    return {part for file in training_set.files if _PART.match(part := file.path.split("/")[0])}


def _number(path: str) -> int:
    """Of <part>/<split>/file=<number>/<name>."""
    return int(path.split("/")[2].partition("=")[2])
