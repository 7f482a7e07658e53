"""What a teacher for the head of each list brings, and what it costs: BM25, student, both models, the teacher alone.

    python tests/scale/rescore.py --data DIR --student DIR --teacher DIR --work DIR [--queries 60] [--rescore-top 20]

Queries, documents and what counts as golden are those of `recall.py`. Told are the shares of queries whose golden
passage is among the first 1, 3 and 10 of those whose golden passage is there at all, with 95 % intervals (Wilson's),
and MRR@10, with that of a bootstrap over queries. Costs are seconds of this machine, with models loaded: the student's
for all pairs and the teacher's for those that it reads, as a share of the teacher's for all.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from recall import add_flags, candidates, first_golden, prepared
from scipy.stats import binomtest

from jobs.rescoring import RESCORE_JOB
from jobs.run import RunConfig, run
from mkdm import Scorer

AT = (1, 3, 10)
MRR_AT = 10


def seconds_a_pair(scorer: Scorer, rows: pd.DataFrame) -> tuple[np.ndarray, float]:
    """The scores of the pairs, and the time that one took, loading left out."""
    few = rows.head(64)
    scorer.score(few["query"].tolist(), few["passage"].tolist())
    began = time.perf_counter()
    scores = scorer.score(rows["query"].tolist(), rows["passage"].tolist())
    return scores, (time.perf_counter() - began) / len(rows)


def figures(rows: pd.DataFrame, order: str) -> str:
    """Recall and MRR of one order, as cells of a table."""
    first = first_golden(rows, order)
    cells = []
    for at in AT:
        hits = int((first <= at).sum())
        low, high = binomtest(hits, len(first)).proportion_ci(method="wilson")
        cells.append(f"{hits / len(first):.3f} ({low:.3f}–{high:.3f})")
    found = gains(first)
    low, high = interval(found)
    return " | ".join([*cells, f"{found.mean():.3f} ({low:.3f}–{high:.3f})"])


def interval(found: pd.Series) -> tuple[float, float]:
    """The 95 % interval of a mean over queries, by a bootstrap."""
    again = np.random.default_rng(0).choice(found, (2000, len(found))).mean(axis=1)
    low, high = np.quantile(again, (0.025, 0.975))
    return float(low), float(high)


def gains(first: pd.Series) -> pd.Series:
    """By query, what the rank of its first golden passage gives to MRR."""
    return (1 / first).where(first <= MRR_AT, 0.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "student", "teacher", "work"):
        parser.add_argument(f"--{name}", required=True)
    add_flags(parser)
    parser.add_argument("--rescore-top", type=int, default=20)
    parser.add_argument("--precision", default="fp32", help="of the teacher")
    parser.add_argument("--timed", type=int, default=1000, help="pairs on which the student's time is taken")
    arguments = parser.parse_args()
    questions, warehouse = prepared(arguments)
    with tempfile.TemporaryDirectory() as folder:
        settings = Path(folder, "settings.yaml")
        settings.write_text(
            f"build-pairs: {{segments: all}}\nrank: {{precision: {arguments.precision}, top-k: 1000}}\n"
        )
        config = RunConfig(arguments.student, warehouse.root, str(settings), arguments.teacher, arguments.rescore_top)
        for one in run(warehouse.spark, config):
            print(f"{one}\n")
    rows = candidates(warehouse, questions)
    lists = warehouse.table("ranked_passages").read().select("query_id", "passage_id", "rank").toPandas()
    rows = rows.merge(lists, on=["query_id", "passage_id"], how="left")
    rows["both"] = -rows["rank"].fillna(rows["rank"].max() + 1)
    runs = warehouse.table("runs").read().where(f"job = '{RESCORE_JOB}' AND state = 'complete' AND chunk IS NULL")
    read = runs.first()["rows_read"]
    warehouse.spark.stop()
    teacher = Scorer.load(arguments.teacher, precision=arguments.precision)
    rows["teacher"], of_teacher = seconds_a_pair(teacher, rows)
    _, of_student = seconds_a_pair(Scorer.load(arguments.student), rows.head(arguments.timed))
    cheap, head = of_student / of_teacher, read / len(rows)
    orders = {
        "bm25": ("BM25", 0.0),
        "score": ("student", cheap),
        "both": ("student, then teacher", cheap + head),
        "teacher": ("teacher alone", 1.0),
    }
    print(
        f"{len(rows):,} pairs, of which the teacher reads {read:,}; student {1e3 * of_student:.2f} ms, teacher ", end=""
    )
    print(f"{1e3 * of_teacher:.2f} ms a pair\n\n| source | queries | order | @1 | @3 | @10 | MRR@{MRR_AT} | cost |")
    print(f"|{'---|' * 8}")
    rows["source"] = rows.query_id.map(questions.source)
    for source, mine in [*rows.groupby("source"), ("all", rows)]:
        able = mine[mine.groupby("query_id").golden.transform("any")]
        for order, (name, cost) in orders.items():
            told = f"{cost:.1%}" if source == "all" else ""
            print(f"| {source} | {able.query_id.nunique()} | {name} | {figures(able, order)} | {told} |")


if __name__ == "__main__":
    main()
