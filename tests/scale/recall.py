"""Builds, scores and ranks the pairs of real queries; how often is the golden passage among the first ten?

    python tests/scale/recall.py --data DIR --model DIR --work DIR --set main|longdocs|unicode [--queries 60]

Documents are cut anew, so that a passage counts as golden if it shares at least half of the shorter one's characters
with the passage, or holds the middle of the answer, that somebody judged golden. Orders: the search engine's (doc_rank,
then the order of the document), BM25 and word overlap of passages, and the student's score. Intervals: Wilson's, 95 %.
"""

import argparse
import gzip
import json
import random
import shutil
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
from scipy.stats import binomtest

from cluster.session import ClusterConfig, start_session
from jobs.engine import Warehouse
from jobs.engine.pairs import read_pairs
from jobs.run import RunConfig, run
from mkdm.evaluation.baselines import bm25, word_overlap

AT = (10, 20, 50, 100)


@dataclass
class Questions:
    """Inputs of the funnel, and by query_id its source and the places (doc_id, begin, end) of its golden text."""

    queries: dict[str, str] = field(default_factory=dict)
    documents: dict[str, str] = field(default_factory=dict)
    query_documents: list[tuple[str, str, int]] = field(default_factory=list)
    source: dict[str, str] = field(default_factory=dict)
    golden: dict[str, list[tuple[str, int, int]]] = field(default_factory=lambda: defaultdict(list))


def drawn(keys: list[str], number: int) -> list[str]:
    return random.Random(0).sample(sorted(keys), min(number, len(keys)))


def main_set(data: Path, number: int, split: str) -> Questions:
    """Queries of a split, of each source, that have a golden passage, with their ten documents."""
    found = Questions()
    documents = pq.read_table(data / "documents.parquet").to_pandas().set_index("doc_id").text
    labelled = pq.read_table(data / "labelled_pairs" / f"{split}.parquet").to_pandas()
    labelled = labelled[labelled.label == 1]
    for source, rows in labelled.groupby("source"):
        for query_id in drawn(rows.query_id.unique().tolist(), number):
            found.source[query_id] = str(source)
    for row in labelled[labelled.query_id.isin(found.source)].itertuples():
        begin = documents[row.doc_id].find(row.passage)
        found.queries[row.query_id] = row.query
        found.golden[row.query_id].append((row.doc_id, begin, begin + len(row.passage)))
    ranked = pq.read_table(data / "query_documents.parquet").to_pandas()
    ranked = ranked[ranked.query_id.isin(found.source)]
    found.query_documents = list(ranked[["query_id", "doc_id", "doc_rank"]].itertuples(index=False, name=None))
    found.documents = documents[ranked.doc_id.unique()].to_dict()
    return found


def longdocs(data: Path, number: int) -> Questions:
    """Long articles with questions; a question has its own article alone."""
    found = Questions()
    path = next((data / "extra_longdocs").glob("*.json.gz"))
    for article in json.loads(gzip.decompress(path.read_bytes()))["data"]:
        for paragraph in article["paragraphs"]:
            doc_id = str(paragraph["document_id"])
            found.documents[doc_id] = paragraph["context"]
            for question in paragraph["qas"]:
                query_id = str(question["id"])
                found.queries[query_id], found.source[query_id] = question["question"], "longdocs"
                for answer in question["answers"]:
                    middle = answer["answer_start"] + len(answer["text"]) // 2
                    found.golden[query_id].append((doc_id, middle, middle + 1))
    return _part(found, drawn(list(found.queries), number))


def unicode_set(data: Path, number: int) -> Questions:
    """Questions in ten languages; a question has its own article alone."""
    found = Questions()
    rows = pq.read_table(data / "unicode_sample" / "xquad_pairs.parquet").to_pandas()
    rows["doc_id"] = rows.passage_id.str.split("#").str[0]
    for doc_id, article in rows.drop_duplicates("passage_id").groupby("doc_id"):
        found.documents[str(doc_id)] = "\n\n".join(article.sort_values("passage_id").passage)
    for row in rows[rows.label == 1].itertuples():
        found.queries[row.query_id], found.source[row.query_id] = row.query, row.lang
        begin = found.documents[row.doc_id].find(row.passage)
        found.golden[row.query_id].append((row.doc_id, begin, begin + len(row.passage)))
    keep = [key for lang in sorted(set(found.source.values())) for key in drawn(_of(found, lang), number)]
    return _part(found, keep)


def _of(found: Questions, source: str) -> list[str]:
    return [key for key, one in found.source.items() if one == source]


def _part(found: Questions, keep: list[str]) -> Questions:
    found.queries = {key: found.queries[key] for key in keep}
    found.query_documents = [(key, doc, 1) for key in keep for doc in {place[0] for place in found.golden[key]}]
    return found


def is_golden(passage: str, begin: int, places: list[tuple[int, int]]) -> bool:
    end = begin + len(passage)
    return any(
        min(end, there_end) - max(begin, there) >= 0.5 * min(end - begin, there_end - there) > 0
        for there, there_end in places
    )


def candidates(warehouse: Warehouse, questions: Questions) -> pd.DataFrame:
    """Every pair with its score, and whether its passage is golden."""
    spark = warehouse.spark
    passages = warehouse.table("passages").read().select("passage_id", "doc_id", "ordinal")
    scores = warehouse.table("scores").read().select("query_id", "passage_id", "score")
    pairs = read_pairs(spark, warehouse.table("pairs"), None).rows.join(passages, "passage_id")
    found = pairs.join(scores, ["query_id", "passage_id"], "left").toArrow().to_pandas()
    ranks = pd.DataFrame(questions.query_documents, columns=["query_id", "doc_id", "doc_rank"])
    found = found.merge(ranks, on=["query_id", "doc_id"])
    begins: dict[str, int] = {}
    for doc_id, rows in found.drop_duplicates("passage_id").groupby("doc_id"):
        text, at = questions.documents[str(doc_id)], 0
        for row in rows.sort_values("ordinal").itertuples():
            at = text.index(row.passage, at)
            begins[row.passage_id] = at
    found["golden"] = [
        is_golden(
            row.passage,
            begins[row.passage_id],
            [(begin, end) for doc, begin, end in questions.golden[row.query_id] if doc == row.doc_id],
        )
        for row in found.itertuples()
    ]
    found["bm25"] = bm25(found["query"].tolist(), found["passage"].tolist())
    found["overlap"] = word_overlap(found["query"].tolist(), found["passage"].tolist())
    found["search"] = -(found.doc_rank * 100_000 + found.ordinal)
    return found


def first_golden(rows: pd.DataFrame, order: str) -> pd.Series:
    """By query, the rank of its first golden passage."""
    ranked = rows.sort_values(["query_id", order, "passage_id"], ascending=[True, False, True])
    place = ranked.groupby("query_id").cumcount() + 1
    return place[ranked.golden].groupby(ranked.query_id[ranked.golden]).min()


def report(found: pd.DataFrame, questions: Questions) -> None:
    found["source"] = found.query_id.map(questions.source)
    for source, rows in [*found.groupby("source"), ("all", found)]:
        reach = rows.groupby("query_id").golden.any()
        print(f"{source}: {len(reach)} queries, {len(rows):,} pairs, golden passage among them for {reach.mean():.1%}")
        able = rows[rows.query_id.isin(reach[reach].index)]
        for order in ("search", "overlap", "bm25", "score"):
            first = first_golden(able, order)
            line = f"  {order:<8}"
            for at in AT:
                hits = int((first <= at).sum())
                low, high = binomtest(hits, len(first)).proportion_ci(method="wilson")
                line += f"  @{at} {hits / len(first):.3f} [{low:.3f}, {high:.3f}]"
            print(line)


def add_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--set", choices=("main", "longdocs", "unicode"), default="main")
    parser.add_argument("--queries", type=int, default=60, help="of each source or language")
    parser.add_argument("--split", choices=("valid", "test"), default="test", help="of the queries of --set main")


def prepared(arguments: argparse.Namespace) -> tuple[Questions, Warehouse]:
    """The questions, and a fresh warehouse with the inputs of the funnel."""
    data, number = Path(arguments.data), arguments.queries
    if arguments.set == "main":
        questions = main_set(data, number, arguments.split)
    else:
        questions = {"longdocs": longdocs, "unicode": unicode_set}[arguments.set](data, number)
    work = Path(arguments.work) / arguments.set
    shutil.rmtree(work, ignore_errors=True)
    spark = start_session(ClusterConfig(), "recall", {"spark.ui.enabled": "false"})
    warehouse = Warehouse(spark, str(work))
    for name, rows, schema in (
        ("queries", list(questions.queries.items()), "query_id string, query string"),
        ("documents", list(questions.documents.items()), "doc_id string, text string"),
        ("query_documents", questions.query_documents, "query_id string, doc_id string, doc_rank int"),
    ):
        warehouse.table(name).overwrite(spark.createDataFrame(rows, schema))
    return questions, warehouse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "model", "work"):
        parser.add_argument(f"--{name}", required=True)
    add_flags(parser)
    arguments = parser.parse_args()
    questions, warehouse = prepared(arguments)
    began = time.monotonic()
    for one in run(warehouse.spark, RunConfig(model=arguments.model, warehouse=warehouse.root)):
        print(f"{one}\n")
    print(f"{time.monotonic() - began:,.0f} s for build-pairs, score and rank\n")
    report(candidates(warehouse, questions), questions)


if __name__ == "__main__":
    main()
