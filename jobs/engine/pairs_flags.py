"""The flags of jobs that read files, of those that read pairs, and of those that read their golden labels too."""

from dataclasses import dataclass

from jobs.engine.text_files import CsvEscape, FileOptions


@dataclass(frozen=True, kw_only=True)
class TextFileFlags:
    """How text files are written."""

    csv_escape: CsvEscape = "auto"
    """How .csv and .tsv files write a quote within a quoted field: doubled; after a backslash, as Spark does; none: no
    field is quoted, and quotes are text. auto looks at each .csv file, and takes none for .tsv."""


@dataclass(frozen=True, kw_only=True)
class PairsFlags(TextFileFlags):
    """Where pairs are, and how they are written where they are files.

    Raises:
        ConfigError: names of columns that are empty or there twice.
    """

    pairs: str | None = None
    """Pairs to read, if not <warehouse>/pairs: a Delta table, or a file, folder or pattern of .parquet, .csv, .tsv or
    .jsonl files, text files packed (.gz, .bz2, .zst) or not."""
    pairs_version: int | None = None
    """Delta version of the pairs to read; default: the newest when the run starts."""
    columns: str | None = None
    """Names of the columns of .csv and .tsv files without a header, joined by commas, such as
    query_id,passage_id,query,passage of MS MARCO's top1000 as a .tsv file."""

    def __post_init__(self) -> None:
        self.file_options()

    def file_options(self) -> FileOptions:
        """What is told of the pairs, where they are files."""
        return FileOptions(self.columns, self.csv_escape)


@dataclass(frozen=True, kw_only=True)
class LabelledPairsFlags(PairsFlags):
    """Where pairs and their golden labels are.

    Raises:
        ConfigError: names of columns that are empty or there twice.
    """

    golden_labels: str | None = None
    """Golden labels, if not <warehouse>/golden_labels: a Delta table or files, as for the pairs."""
    golden_labels_version: int | None = None
    """Delta version of the golden labels; default: the newest."""
    golden_labels_columns: str | None = None
    """Names of the columns of the golden labels in .csv or .tsv files without a header, joined by commas."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.golden_options()

    def golden_options(self) -> FileOptions:
        """What is told of the golden labels, where they are files."""
        return FileOptions(self.golden_labels_columns, self.csv_escape)
