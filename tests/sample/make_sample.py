"""Makes the shipped sample from labelled pairs: `python tests/sample/make_sample.py LABELLED_PAIRS.parquet`.

Takes whole queries, by a stable hash of query_id, until a source has its share of pairs.
"""

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from mkdm.columns import GOLDEN_LABEL
from mkdm.train.training_set import stable_share

PAIRS_OF_A_SOURCE = 750
HERE = Path(__file__).parent


def main(labelled_pairs: str) -> None:
    rows = pq.read_table(labelled_pairs).to_pylist()
    chosen = []
    for source in sorted({row["source"] for row in rows}):
        of_source = [row for row in rows if row["source"] == source]
        of_source.sort(key=lambda row: (stable_share(row["query_id"]), row["passage_id"]))
        last_query = of_source[PAIRS_OF_A_SOURCE - 1]["query_id"]
        end = PAIRS_OF_A_SOURCE
        while end < len(of_source) and of_source[end]["query_id"] == last_query:
            end += 1
        chosen += of_source[:end]
    write("pairs", chosen, {"query_id": "query_id", "passage_id": "passage_id", "query": "query", "passage": "passage"})
    labels = {
        "query_id": "query_id",
        "passage_id": "passage_id",
        "golden_label": "label",
        "label_source": "label_source",
    }
    write("golden_labels", chosen, labels)
    print(f"{len(chosen)} pairs of {len({row['query_id'] for row in chosen})} queries")


def write(name: str, rows: list[dict], columns: dict[str, str]) -> None:
    """Write the columns, renamed, as one Parquet file."""
    table = pa.table({new: [row[old] for row in rows] for new, old in columns.items()})
    if GOLDEN_LABEL in columns:
        table = table.set_column(2, GOLDEN_LABEL, table[GOLDEN_LABEL].cast(pa.int32()))
    pq.write_table(table, HERE / f"{name}.parquet", compression="zstd")


if __name__ == "__main__":
    main(sys.argv[1])
