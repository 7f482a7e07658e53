"""A small query log with documents, made of the shipped sample's texts, and what a build must make of it, by hand."""

from collections import defaultdict
from dataclasses import dataclass, field, replace

import pyarrow.parquet as pq
from pyspark.sql import SparkSession
from tiny_models import SAMPLE

from jobs.engine import Warehouse
from mkdm.text.passages import PassageCutter
from mkdm.text.queries import normalise_query

QUERIES = "query_id string, query string, frequency long"
DOCUMENTS = "doc_id string, title string, url string, text string"
QUERY_DOCUMENTS = "query_id string, doc_id string, doc_rank int, doc_score double"


@dataclass(frozen=True)
class QueryLog:
    """The three inputs as rows.

    Attributes:
        queries: by query_id, query and frequency.
        documents: by doc_id, text.
        query_documents: by query_id and doc_id, doc_rank.
    """

    queries: dict[str, tuple[str, int | None]]
    documents: dict[str, str]
    query_documents: dict[tuple[str, str], int] = field(default_factory=dict)

    def write(self, spark: SparkSession, warehouse: Warehouse) -> None:
        """Write the three tables."""
        queries = [(key, query, frequency) for key, (query, frequency) in self.queries.items()]
        documents = [(key, "title", f"https://example.org/{key}", text) for key, text in self.documents.items()]
        ranked = [(*key, rank, 1.0 / (1 + rank)) for key, rank in self.query_documents.items()]
        for name, rows, schema in (
            ("queries", queries, QUERIES),
            ("documents", documents, DOCUMENTS),
            ("query_documents", ranked, QUERY_DOCUMENTS),
        ):
            warehouse.table(name).overwrite(spark.createDataFrame(rows, schema).coalesce(1))

    def but(self, **changes) -> "QueryLog":
        """The log with other rows; a value of None takes a row out."""
        made = {
            name: {key: row for key, row in (getattr(self, name) | rows).items() if row is not None}
            for name, rows in changes.items()
        }
        return replace(self, **made)

    def pairs(self, cutter: PassageCutter, documents_per_query: int = 10) -> dict[tuple[str, str], tuple[str, str]]:
        """By query_id and passage_id, the query and the passage that a build of all segments must make."""
        same = defaultdict(list)
        for key, (query, _) in self.queries.items():
            same[normalise_query(query)].append(key)
        passages = {key: cutter.cut(text) for key, text in self.documents.items()}
        made = {}
        for query, keys in same.items():
            ranks: dict[str, int] = {}
            for (key, document), rank in self.query_documents.items():
                if key in keys:
                    ranks[document] = min(rank, ranks.get(document, rank))
            best = sorted(ranks, key=lambda document: (ranks[document], document))[:documents_per_query]
            for document in best:
                for key, passage in passages[document]:
                    made[min(keys), f"{document}:{key}"] = (query, passage)
        return made


def sample_log(queries: int = 12, documents: int = 8) -> QueryLog:
    """Real queries and documents of several real passages; every query has 3 documents."""
    rows = pq.read_table(SAMPLE / "pairs.parquet").to_pylist()
    texts = list(dict.fromkeys(row["query"] for row in rows))[:queries]
    passages = list(dict.fromkeys(row["passage"] for row in rows))[: documents * 3]
    log = QueryLog(
        {f"q{i:02}": (text, 2 ** (i % 5)) for i, text in enumerate(texts)},
        {f"d{i}": "\n\n".join(passages[3 * i : 3 * i + 3]) for i in range(documents)},
    )
    ranked = {(f"q{i:02}", f"d{(i + 3 * rank) % documents}"): rank + 1 for i in range(queries) for rank in range(3)}
    return replace(log, query_documents=ranked)
