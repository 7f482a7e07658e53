"""Chooses unlabelled pairs for soft labels so that answers are not one in seventy.

    python tests/device/choice.py --pairs DIR --set DIR --labels DIR --output DIR [--rows 300000]

`--pairs` holds the candidates, `--set` is the set made of them, `--labels` has the first student's scores of it under
the id `first` (`labels.py label --teacher first`). Of each query are taken the candidates that this student scores
highest, those that BM25 ranks highest, and some drawn from the rest, in thirds: answers, look-alikes, and the rest.
"""

import argparse
from pathlib import Path

import numpy as np
import pandas as pd
from labels import complete
from sets import KEY, KEYS

from mkdm.errors import InputError

FIRST = "first"


def choose(candidates: pd.DataFrame, rows: int, seed: int = 0) -> pd.DataFrame:
    """The chosen candidates, as they stand.

    Args:
        candidates: query_id, passage_id, first (the first student's score), bm25_rank (NaN where it has none).
        rows: how many at most.
    """
    drawn = np.random.default_rng(seed).random(len(candidates))
    keyed = candidates[["query_id"]].assign(
        first=-candidates["first"].to_numpy(), bm25=candidates.bm25_rank.fillna(np.inf).to_numpy(), drawn=drawn
    )
    ranks = pd.DataFrame({name: _places(keyed, name) for name in ("first", "bm25", "drawn")})
    round_of = ranks.min(axis=1) + drawn / 2  # a query's best by any of the three come first, then the next best
    return candidates.iloc[np.sort(np.argsort(round_of.to_numpy(), kind="stable")[:rows])]


def _places(keyed: pd.DataFrame, name: str) -> "pd.Series[int]":
    """Of each row, its place within its query by a column."""
    return keyed.groupby("query_id")[name].rank(method="first")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=Path, required=True, help="folder with pairs.parquet of the candidates")
    parser.add_argument("--set", type=Path, required=True, help="training set of the candidates")
    parser.add_argument("--labels", type=Path, required=True, help="folder of the labels' parts")
    parser.add_argument("--output", type=Path, required=True, help="folder for pairs.parquet of the chosen ones")
    parser.add_argument("--rows", type=int, default=300_000)
    given = parser.parse_args()
    chosen = choose_files(given.pairs, given.set, given.labels, given.output, given.rows)
    print(f"{len(chosen):,} pairs, of which the first student takes {(chosen['first'] > 0.5).mean():.1%} for answers")


def choose_files(pairs: Path, set_folder: Path, labels: Path, output: Path, rows: int) -> pd.DataFrame:
    """Choose, and write the pairs of the chosen ones.

    Raises:
        InputError: the first student has not scored the candidates.
    """
    found = complete(set_folder, labels)
    if FIRST not in found:
        raise InputError(f"{labels} lacks scores of {set_folder} by the first student: run labels.py label first")
    scored = pd.read_parquet(set_folder / KEYS).assign(first=found[FIRST][1])
    texts = pd.read_parquet(pairs / "pairs.parquet")
    if "bm25_rank" not in texts:
        texts = texts.assign(bm25_rank=np.nan)
    chosen = choose(scored.merge(texts, on=KEY), rows)
    output.mkdir(parents=True, exist_ok=True)
    chosen.drop(columns=["first"]).to_parquet(output / ".pairs.part", index=False)
    (output / ".pairs.part").replace(output / "pairs.parquet")
    return chosen


if __name__ == "__main__":
    main()
