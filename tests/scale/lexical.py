"""What the lexical part of a student brings on whole lists, by its weight, and what it costs on labelled pairs.

    python tests/scale/lexical.py --data DIR --model DIR --work DIR [--set main|longdocs] [--split valid] [--queries 60]

The model is a student that `mkdm add-lexical` made; weight 0 is the student without. Lists, golden passages and figures
are those of `recall.py` and `rescore.py`; AUC is that of the split's labelled pairs. Of MRR the difference to weight 0
is told too, with a 95 % interval of a bootstrap over queries.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import pandas as pd
from recall import add_flags, candidates, first_golden, prepared
from rescore import figures, gains, interval
from scipy.special import logit

from jobs.run import RunConfig, run
from mkdm import Scorer
from mkdm.evaluation import auc
from mkdm.model import Lexical, load_tokenizer, read_lexical
from mkdm.scoring import lexical_shifts, pair_encoder

WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)


def parts(rows: pd.DataFrame, lexical: Lexical, model: str, max_length: int) -> tuple[np.ndarray, np.ndarray]:
    """By pair, the logit of the student alone, and what weight 1 adds to it."""
    began = time.perf_counter()
    pairs = pair_encoder(load_tokenizer(model), max_length).encode(rows["query"].tolist(), rows["passage"].tolist())
    encoded = time.perf_counter()
    shifts = lexical_shifts(lexical, pairs).astype(np.float64)
    print(f"{1e6 * (time.perf_counter() - encoded) / len(rows):.1f} µs a pair, ", end="")
    print(f"tokenising {1e6 * (encoded - began) / len(rows):.1f} µs")
    return logit(rows["score"].clip(1e-7, 1 - 1e-7)).to_numpy() - shifts, shifts / lexical.weight


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("data", "model", "work"):
        parser.add_argument(f"--{name}", required=True)
    add_flags(parser)
    parser.set_defaults(split="valid")
    arguments = parser.parse_args()
    lexical = read_lexical(arguments.model)
    if lexical is None:
        parser.error(f"{arguments.model} has no lexical part: see mkdm add-lexical")
    questions, warehouse = prepared(arguments)
    for one in run(warehouse.spark, RunConfig(model=arguments.model, warehouse=warehouse.root)):
        print(f"{one}\n")
    lists = candidates(warehouse, questions)
    warehouse.spark.stop()
    scorer = Scorer.load(arguments.model)
    lists["source"] = lists.query_id.map(questions.source)
    lists = lists[lists.groupby("query_id").golden.transform("any")].copy()
    alone, shifts = parts(lists, lexical, arguments.model, scorer.max_length)
    labelled = None
    if arguments.set == "main":
        labelled = pd.read_parquet(Path(arguments.data, "labelled_pairs", f"{arguments.split}.parquet"))
        labelled["score"] = scorer.score(labelled["query"].tolist(), labelled["passage"].tolist())
        own, moves = parts(labelled, lexical, arguments.model, scorer.max_length)
    print(f"{lists.query_id.nunique()} queries\n\n| weight | @1 | @3 | @10 | MRR@10 | over 0 | by source | AUC |")
    print(f"|{'---|' * 8}")
    lists["order"] = alone
    before = gains(first_golden(lists, "order"))
    for weight in WEIGHTS:
        lists["order"] = alone + weight * shifts
        print(f"| {weight} | {figures(lists, 'order')} | {difference(lists, before)} | ", end="")
        cells = [
            f"{source} {gains(first_golden(rows, 'order')).mean():.3f}" for source, rows in lists.groupby("source")
        ]
        measured = "" if labelled is None else f"{auc(labelled.label.to_numpy(), own + weight * moves):.4f}"
        print(f"{', '.join(cells)} | {measured} |")
    for order in ("bm25", "overlap"):
        print(f"| {order} | {figures(lists, order)} | {difference(lists, before, order)} | | |")


def difference(lists: pd.DataFrame, before: pd.Series, order: str = "order") -> str:
    """Of MRR, with its interval."""
    found = gains(first_golden(lists, order)) - before
    low, high = interval(found)
    return f"{found.mean():+.3f} ({low:+.3f} to {high:+.3f})"


if __name__ == "__main__":
    main()
