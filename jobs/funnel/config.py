"""The settings of a build."""

from dataclasses import dataclass
from typing import Literal

from jobs.engine import Table, TextFileFlags
from jobs.funnel.queries import BODY, HEAD, TAIL, UNSEGMENTED
from mkdm.config import require_at_least, require_shares
from mkdm.errors import ConfigError


@dataclass(frozen=True)
class BuildPairsConfig(TextFileFlags):
    """Make the pairs of a query log's head and body queries: their top documents, cut into passages.

    Raises:
        ConfigError: a number outside its range.
    """

    tokenizer: str
    """Folder of the model that will score the pairs, the same on every machine: its tokenizer measures the passages."""
    warehouse: str = "warehouse"
    """Where the tables are: a folder or URI, or CATALOG.SCHEMA."""
    queries: str | None = None
    """Queries (query_id, query, and perhaps frequency), if not <warehouse>/queries: a Delta table, or .parquet, .csv,
    .tsv or .jsonl files: a file, a folder, or a pattern."""
    queries_version: int | None = None
    """Delta version of the queries; default: the newest when the run starts."""
    queries_columns: str | None = None
    """Names of the columns of the queries in .csv or .tsv files without a header, joined by commas."""
    documents: str | None = None
    """Documents (doc_id, text), if not <warehouse>/documents: as for the queries."""
    documents_version: int | None = None
    """Delta version of the documents; default: the newest."""
    documents_columns: str | None = None
    """Names of the columns of the documents in .csv or .tsv files without a header, joined by commas."""
    query_documents: str | None = None
    """The documents of each query (query_id, doc_id, doc_rank), if not <warehouse>/query_documents."""
    query_documents_version: int | None = None
    """Delta version of query_documents; default: the newest."""
    query_documents_columns: str | None = None
    """Names of the columns of query_documents in .csv or .tsv files without a header, joined by commas."""
    passages: str | None = None
    """Table of passages, if not <warehouse>/passages."""
    pairs: str | None = None
    """Table of pairs, if not <warehouse>/pairs."""
    runs: str | None = None
    """Table of runs, if not <warehouse>/runs."""
    segments: Literal["head", "head-body", "all"] = "head-body"
    """Queries to take, where queries have a frequency."""
    head_share: float = 0.2
    """Share of all impressions that the most frequent queries, the head, take up, 0 to 1."""
    body_share: float = 0.6
    """Share of all impressions that the next ones, the body, take up, 0 to 1; the rest is the tail."""
    passage_tokens: int = 128
    """Tokens of a passage at most, special tokens left out."""
    passage_overlap: int = 0
    """Tokens at most that a passage repeats of the one before."""
    html: Literal["keep", "strip", "reject"] = "keep"
    """Of a document with HTML tags in its text: cut it as it is, take the tags out first, or leave it out."""
    max_document_characters: int = 5_000_000
    """Characters of a document at most, HTML tags counted: a longer one is rejected, as a task would hold it whole."""
    max_query_characters: int = 2_000
    """Characters of a query at most: a longer one is rejected."""
    near_duplicates: float | None = None
    """Also find passages that share at least this share of their three-word shingles with another one, 0 to 1."""
    duplicates: Literal["keep", "merge"] = "keep"
    """Whether duplicate passages each make pairs, or one of them for all."""
    boilerplate_documents: int | None = None
    """Leave texts that at least so many documents share out of the pairs; default: leave out none."""
    documents_per_query: int = 10
    """Documents of a query at most, by doc_rank."""
    passages_per_document: int | None = None
    """Passages of a query and document at most: the first, or the best of the prefilter. Default: all."""
    passages_per_query: int | None = None
    """Passages of a query at most: by rank of their document, or the best of the prefilter. Default: all."""
    prefilter: Literal["none", "bm25", "overlap"] = "none"
    """What orders a query's passages for those two limits: BM25, or the share of the query's words that they have."""
    passage_in_pairs: bool = False
    """Whether pairs hold the passages' texts, or passage_id alone, and whoever reads them joins the texts."""
    max_reject_rate: float = 0.05
    """Share of an input's rows that may be rejected, 0 to 1; above it the job fails before it changes the pairs."""

    def __post_init__(self) -> None:
        require_shares(self, "head_share", "body_share", "near_duplicates", "max_reject_rate")
        if self.head_share + self.body_share > 1 + 1e-9:
            raise ConfigError(f"--head-share {self.head_share} and --body-share {self.body_share} are more than 1")
        numbers = ("passage_tokens", "documents_per_query", "passages_per_document", "passages_per_query")
        require_at_least(self, 1, *numbers, "max_document_characters", "max_query_characters")
        require_at_least(self, 2, "boilerplate_documents")
        if not 0 <= self.passage_overlap < self.passage_tokens:
            raise ConfigError(
                f"--passage-overlap is {self.passage_overlap}; it must be at least 0 and less than --passage-tokens"
            )
        if self.prefilter != "none" and not (self.passages_per_document or self.passages_per_query):
            raise ConfigError("--prefilter orders passages: give --passages-per-document or --passages-per-query too")

    def taken_segments(self) -> list[str]:
        """The segments whose queries get pairs."""
        return {
            "head": [HEAD, UNSEGMENTED],
            "head-body": [HEAD, BODY, UNSEGMENTED],
            "all": [HEAD, BODY, TAIL, UNSEGMENTED],
        }[self.segments]

    def passages_at(self, passages: Table) -> str:
        """Where pairs without texts find them; empty for `passages` beside the pairs."""
        if not (self.passages or self.pairs):
            return ""
        return passages.location if passages.in_catalog else passages.qualified()

    def limits(self) -> list[str]:
        """What leaves pairs out, as the report names it."""
        names = ["passages_per_document", "passages_per_query"]
        found = [f"--{name.replace('_', '-')}" for name in names if getattr(self, name) is not None]
        return found + (["--duplicates"] if self.duplicates == "merge" else [])
