"""What it takes to get from a pair's texts to its token ids, four ways, on pairs as the funnel makes them.

`python tests/scale/tokenising.py --model DIR --data shared/data [--rows 50000] [--rounds 3]`: each query with the
passages of its top documents, query by query, as a chunk of `mkdm score` holds them. Prints µs a pair, and the share of
the time that the scorer takes in all. Files are read from the page cache; one thread tokenises.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from zlib import crc32

os.environ["RAYON_NUM_THREADS"] = "1"
ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

import pyarrow as pa  # noqa: E402
import pyarrow.compute as pc  # noqa: E402
import pyarrow.parquet as pq  # noqa: E402

from mkdm.model.tokenizer import load_tokenizer  # noqa: E402
from mkdm.scoring.backend import WINDOW  # noqa: E402
from mkdm.scoring.encoding import PairEncoder  # noqa: E402
from mkdm.scoring.scorer import Scorer  # noqa: E402
from mkdm.scoring.token_cache import TokenCache  # noqa: E402


def funnel(data: str, rows: int) -> pa.Table:
    """query_id, passage_id, query, passage: queries drawn by the hash of their ids, with all their passages."""
    queries = pq.read_table(f"{data}/queries.parquet", columns=["query_id", "query"])
    links = pq.read_table(f"{data}/query_documents.parquet", columns=["query_id", "doc_id"])
    passages = pq.read_table(f"{data}/passages.parquet", columns=["doc_id", "passage_id", "passage"])
    chosen = sorted(queries["query_id"].to_pylist(), key=lambda query_id: crc32(query_id.encode()))[: rows // 200 + 50]
    links = links.filter(pc.is_in(links["query_id"], pa.array(chosen)))
    pairs = links.join(passages, "doc_id", join_type="inner").join(queries, "query_id").sort_by("query_id")
    return pairs.select(["query_id", "passage_id", "query", "passage"]).slice(0, rows)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", required=True)
    parser.add_argument("--data", required=True)
    parser.add_argument("--rows", type=int, default=50000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    table = funnel(arguments.data, arguments.rows)
    queries, passages = table["query"].to_pylist(), table["passage"].to_pylist()
    starts = range(0, len(queries), WINDOW)
    scorer = Scorer.load(arguments.model)
    tokenizer, length = load_tokenizer(arguments.model), scorer.max_length

    def plain() -> None:
        for start in starts:
            window = slice(start, start + WINDOW)
            tokenizer(queries[window], passages[window], truncation="only_second", max_length=length)

    def encoder(cached: bool) -> None:
        one = PairEncoder(load_tokenizer(arguments.model), length)
        one._cache = TokenCache() if cached else TokenCache(0)
        for start in starts:
            one.encode(queries[start : start + WINDOW], passages[start : start + WINDOW])

    with tempfile.TemporaryDirectory() as folder:
        one = PairEncoder(load_tokenizer(arguments.model), length)
        encoded = one.encode(queries, passages)
        ids = {"query_ids": encoded.query_ids, "passage_ids": encoded.passage_ids}
        pq.write_table(pa.table(ids), f"{folder}/ids.parquet", compression="zstd")
        pq.write_table(table.select(["query", "passage"]), f"{folder}/texts.parquet", compression="zstd")

        def stored(name: str) -> None:
            for batch in pq.ParquetFile(f"{folder}/{name}.parquet").iter_batches(WINDOW):
                for column in batch.columns:
                    column.to_numpy(zero_copy_only=False)

        ways: dict[str, Callable[[], None]] = {
            "tokenizer(query, passage), every pair": plain,
            "distinct texts of each window": lambda: encoder(cached=False),
            "and kept over windows (what the scorer does)": lambda: encoder(cached=True),
            "ids stored in Parquet, read": lambda: stored("ids"),
            "texts stored in Parquet, read": lambda: stored("texts"),
        }
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(arguments.rounds):
            for name, way in ways.items():
                started = time.perf_counter()
                way()
                seconds[name].append(time.perf_counter() - started)
        sizes = {name: Path(folder, f"{name}.parquet").stat().st_size / len(queries) for name in ("ids", "texts")}
    few = min(len(queries), 2 * WINDOW)
    scorer.score(queries[:64], passages[:64])
    started = time.perf_counter()
    scorer.score(queries[:few], passages[:few])
    whole = 1e6 * (time.perf_counter() - started) / few
    distinct = len(set(passages))
    print(f"{len(queries):,} pairs of {len(set(queries)):,} queries and {distinct:,} passages, {scorer.precision}")
    print(f"the scorer takes {whole:,.0f} µs a pair in all; stored, ids take {sizes['ids']:.0f} bytes, texts")
    print(f"{sizes['texts']:.0f} bytes a pair (zstd)")
    for name, found in seconds.items():
        micros = 1e6 * median(found) / len(queries)
        print(f"{name:<46}{micros:>8.1f} µs a pair {micros / whole:>7.2%} of the scorer")


if __name__ == "__main__":
    main()
