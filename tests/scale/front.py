"""What a pair costs by (k, s): k layers of which the first s read a text once, at two reuses of the texts.

    python tests/scale/front.py --encoder DIR --pairs FILE --work DIR [--shapes 3,0 3,1 12,10] [--precision fp32]

Students of each shape start from the encoder's first k layers, with headers of random weights: rates do not depend on
them. Each is given blocks of all pairs of 250 queries with 12 passages, so that a passage is in as many pairs as in the
shared funnel, and of a tenth of the queries; a query's own tokens are next to nothing. Sides have a process of their
own and take turns. `CrossEncoder.predict` has the plain model of the first shape; how often a text comes is nothing
to it.
"""

import argparse
import statistics
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
import pyarrow as pa

from jobs.reports import run_json
from mkdm import Scorer
from mkdm.benchmark.flops import lean_cost
from mkdm.benchmark.setup import export_openvino
from mkdm.model import PASSAGE_POSITION, MkdmModel, Separation, load_checkpoint, load_tokenizer, save_checkpoint
from mkdm.scoring import pair_encoder

PASSAGES, QUERIES = 12, {"the funnel's": 250, "a tenth of it": 25}
PEER_PAIRS, CALIBRATION_PAIRS = 600, 60
SHAPES = ["3,0", "3,1", "4,0", "4,2", "6,0", "6,4", "12,0", "12,9", "12,10"]


def student(encoder: str, layers: int, separate: int, work: Path, calibration: pa.Table | None) -> Path:
    """The folder of a shape's student, with int8 files where there are pairs to calibrate them on; written once."""
    folder = work / f"student-{layers}-{separate}"
    if not (folder / "config.json").exists():
        tokenizer = load_tokenizer(encoder)
        separation = Separation(separate, PASSAGE_POSITION, tokenizer.sep_token_id) if separate else None
        save_checkpoint(MkdmModel.from_encoder(encoder, layers, (), 0.9, 160, separation), tokenizer, folder)
    if calibration is not None and not (folder / "openvino").exists():
        model, tokenizer, _ = load_checkpoint(folder)
        inputs = pair_encoder(tokenizer, model.max_length, separation=model.separation)
        export_openvino(folder, ["int8"], calibration, inputs)
    return folder


def block_rates(folder: str, precision: str, queries: list[str], passages: list[str]) -> dict[str, float]:
    """Pairs a second of blocks, by reuse; a small one warms up."""
    scorer = Scorer.load(folder, precision=precision)
    scorer.score_block(queries[:4], passages)
    found = {}
    for name, size in QUERIES.items():
        began = time.perf_counter()
        scorer.score_block(queries[-size:], passages)
        found[name] = size * len(passages) / (time.perf_counter() - began)
    return found


def peer_rate(folder: Path, pairs: pd.DataFrame, precision: str, work: Path) -> float:
    """Pairs a second of `CrossEncoder.predict`."""
    few, plain = work / "peer.parquet", work / f"plain-of-{folder.name}"
    pairs.to_parquet(few, index=False)
    if not (plain / "plain").exists():
        run_json("mkdm.benchmark.setup", *_flags(model=folder, pairs=few, peer_pairs=few, output=plain))
    flags = {"models": plain / "plain", "pairs": few, "precision": precision, "scores": work / "scores.parquet"}
    return len(pairs) / run_json("mkdm.benchmark.sides", *_flags(side="CrossEncoder", **flags))["seconds"]


def _flags(**flags: object) -> list[str]:
    return [text for name, value in flags.items() for text in (f"--{name}", str(value))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", required=True, help="folder of a pretrained encoder")
    parser.add_argument("--pairs", required=True, help="Parquet file with query_id, query, passage_id, passage")
    parser.add_argument("--work", required=True, type=Path, help="folder for the students")
    parser.add_argument("--shapes", nargs="+", default=SHAPES, help="k,s of each; others are told by the first")
    parser.add_argument("--precision", default="fp32", help="int8 exports the students first; the peer's is fp32 then")
    parser.add_argument("--rounds", type=int, default=1)
    given = parser.parse_args()
    given.work.mkdir(parents=True, exist_ok=True)
    shapes = [(int(k), int(s)) for k, s in (shape.split(",") for shape in given.shapes)]
    pairs = pd.read_parquet(given.pairs)
    chosen = pairs.sample(CALIBRATION_PAIRS, random_state=0)[["query_id", "query", "passage_id", "passage"]]
    calibration = pa.Table.from_pandas(chosen, preserve_index=False) if given.precision == "int8" else None
    folders = [student(given.encoder, *shape, given.work, calibration) for shape in shapes]
    texts = [
        pairs.drop_duplicates(f"{name}_id").sample(many, random_state=0)[name].tolist()
        for name, many in (("query", max(QUERIES.values())), ("passage", PASSAGES))
    ]
    peer: list[float] = []
    rates: dict[tuple[int, int], list[dict[str, float]]] = {shape: [] for shape in shapes}
    for _ in range(given.rounds):
        of_peer = "fp32" if given.precision == "int8" else given.precision
        peer.append(peer_rate(folders[0], pairs.sample(PEER_PAIRS, random_state=0), of_peer, given.work))
        print(f"CrossEncoder.predict, {shapes[0]}: {peer[-1]:.1f} pairs/s", flush=True)
        for shape, folder in zip(shapes, folders, strict=True):
            with ProcessPoolExecutor(1, get_context("spawn")) as alone:
                rates[shape].append(alone.submit(block_rates, str(folder), given.precision, *texts).result())
            print(shape, rates[shape][-1], flush=True)
    print(f"\n| (k, s) | H² a pair | of a text | {' | '.join(f'{name}, pairs/s | ×' for name in QUERIES)} |")
    print(f"|{'---|' * (3 + 2 * len(QUERIES))}")
    medians = {
        shape: {name: statistics.median(one[name] for one in found) for name in QUERIES}
        for shape, found in rates.items()
    }
    for shape, found in medians.items():
        cost = lean_cost(*shape)
        cells = [f"{found[name]:.1f} | {found[name] / medians[shapes[0]][name]:.2f}" for name in QUERIES]
        print(f"| {shape} | {cost['pair_h2']} | {cost['text_h2']} | {' | '.join(cells)} |")
    print(f"| CrossEncoder.predict, {shapes[0]} | | | {statistics.median(peer):.1f} | |")


if __name__ == "__main__":
    main()
