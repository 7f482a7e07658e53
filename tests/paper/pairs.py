"""Turns the shared real data into pairs and golden labels for `mkdm export-training-set`, a folder for each set.

    python tests/paper/pairs.py --data DIR --output DIR [--share 1.0] [--without-each]

`labelled`: the train split's labelled pairs, and for each of its queries one passage drawn from its other top
documents, assumed not to answer it (`assumed_top_documents`): mined negatives teach nothing of easier passages.
`unlabelled`: passages of the train split's queries that nobody labelled, mined by BM25 or drawn from top documents.
`valid`, `test`: the labelled pairs of those splits as they are.
`labelled-without-SOURCE`, `valid-without-SOURCE`, with --without-each: all but one source, for `left_out.yaml`.
"""

import argparse
from pathlib import Path

import pandas as pd

from mkdm.train.training_set import stable_share

PAIR = ["query_id", "passage_id"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the shared data")
    parser.add_argument("--output", type=Path, required=True, help="folder of the sets")
    parser.add_argument(
        "--share", type=float, default=1.0, help="share of the train and valid queries, by a stable hash"
    )
    parser.add_argument("--unlabelled", type=int, default=400_000, help="unlabelled pairs at most, before --share")
    parser.add_argument("--without-each", action="store_true", help="also sets without each of the sources")
    given = parser.parse_args()

    passages = pd.read_parquet(given.data / "passages.parquet")
    queries = pd.read_parquet(given.data / "queries.parquet")
    splits = {}
    for split in ("train", "valid", "test"):
        rows = pd.read_parquet(given.data / "labelled_pairs" / f"{split}.parquet")
        splits[split] = rows.rename(columns={"label": "golden_label"})
    train = splits["train"]
    judged = set(zip(train.query_id, train.passage_id, strict=True))

    other = pd.read_parquet(given.data / "query_documents.parquet").merge(
        queries.loc[queries.split == "train", ["query_id", "query", "source"]], on="query_id"
    )
    of_golden = train.loc[train.golden_label == 1, ["query_id", "doc_id"]].assign(golden=True)
    other = other.merge(of_golden, on=["query_id", "doc_id"], how="left")
    other = other[other.golden.isna()].sample(frac=1, random_state=0).groupby("query_id").head(5)
    drawn = passages[["passage_id", "doc_id", "passage"]].sample(frac=1, random_state=1)
    drawn["place"] = drawn.groupby("doc_id").cumcount()
    counts = drawn.groupby("doc_id").size().rename("passages")
    other = other.merge(counts, on="doc_id")
    other["place"] = [
        int(stable_share(f"{query}/{doc}") * n)
        for query, doc, n in zip(other.query_id, other.doc_id, other.passages, strict=True)
    ]
    other = other.merge(drawn, on=["doc_id", "place"])
    other = other[[key not in judged for key in zip(other.query_id, other.passage_id, strict=True)]]
    other = other.drop_duplicates(PAIR)
    first = ~other.duplicated("query_id")
    negatives = other[first].assign(golden_label=0, label_source="assumed_top_documents")

    mined = pd.read_parquet(given.data / "unlabelled_pairs.parquet").merge(
        queries.loc[queries.split == "train", ["query_id", "query", "source"]], on="query_id"
    )
    mined = mined[[key not in judged for key in zip(mined.query_id, mined.passage_id, strict=True)]]
    mined = mined.merge(passages[["passage_id", "passage"]], on="passage_id")
    unlabelled = pd.concat([mined, other[~first]]).drop_duplicates(PAIR)
    unlabelled = unlabelled.sample(n=min(given.unlabelled, len(unlabelled)), random_state=2)

    sets = {"labelled": pd.concat([train, negatives]), "unlabelled": unlabelled} | {
        split: splits[split] for split in ("valid", "test")
    }
    if given.without_each:
        for name in ("labelled", "valid"):
            for source in sorted(sets[name].source.unique()):
                sets[f"{name}-without-{source}"] = sets[name][sets[name].source != source]
    for name, rows in sets.items():
        if given.share < 1 and name != "test":
            rows = rows[rows.query_id.map(stable_share) < given.share]
        folder = given.output / name
        folder.mkdir(parents=True, exist_ok=True)
        rows = rows.reset_index(drop=True)
        told = [name for name in ("bm25_rank",) if name in rows]  # by which the unlabelled ones are chosen
        rows[[*PAIR, "query", "passage", "source", *told]].to_parquet(folder / "pairs.parquet", index=False)
        if name != "unlabelled":
            labels = rows[[*PAIR, "golden_label", "label_source"]].astype({"golden_label": "int8"})
            labels.to_parquet(folder / "golden_labels.parquet", index=False)
        print(f"{name}: {len(rows):,} pairs of {rows.query_id.nunique():,} queries")


if __name__ == "__main__":
    main()
