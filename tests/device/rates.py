"""Pairs a second of students on this machine, beside `CrossEncoder.predict` over the first one's weights."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

BLOCK = (250, 370)
"""Queries and passages of the block: a passage, and a query, is in about as many pairs as in the shared funnel."""
PEER_PAIRS = 20_000
FILE = "rates.json"


def write_block(test_pairs: pd.DataFrame, file: Path, block: tuple[int, int] = BLOCK) -> pd.DataFrame:
    """Write every pair of some test queries with some test passages, as many of each source; returns them."""
    rows = []
    each, (queries, passages) = test_pairs.source.nunique(), block
    for _, source in test_pairs.groupby("source"):
        some = source.drop_duplicates("query_id")[["query_id", "query"]].head(-(-queries // each))
        texts = source.drop_duplicates("passage_id")[["passage_id", "passage"]].head(-(-passages // each))
        rows.append((some, texts))
    crossed = pd.concat([one for one, _ in rows]).merge(pd.concat([one for _, one in rows]), how="cross")
    crossed.to_parquet(file, index=False)
    return crossed


def measure_rates(
    runs: list[Path], pairs: Path, work: Path, left: Callable[[], float], shape: tuple[int, int] = BLOCK
) -> dict[str, Any]:
    """Measure what is missing in `rates.json` below the work folder.

    Args:
        runs: folders of students; the first one's weights are the peer's.
        pairs: folder with the test split's pairs.
        left: seconds that there are.
        shape: queries and passages of the block.
    """
    file, block = work / FILE, work / "block.parquet"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    if not block.exists():
        write_block(pd.read_parquet(pairs / "test" / "pairs.parquet"), block, shape)
    size = len(pd.read_parquet(block, columns=["query_id"]))
    for run in runs:
        if run.name not in found:
            told = _side("scorer", run, block, "auto", work, left())
            found[run.name] = {"precision": told["precision"], "pairs_per_s": round(size / told["seconds"], 1)}
            file.write_text(json.dumps(found, indent=1) + "\n")
    if runs and "CrossEncoder" not in found:
        few, plain = work / "peer.parquet", work / "plain"
        pd.read_parquet(block).sample(min(PEER_PAIRS, size), random_state=0).to_parquet(few, index=False)
        if not (plain / "plain").exists():
            setup = ["--model", str(runs[0]), "--pairs", str(few), "--peer_pairs", str(few), "--output", str(plain)]
            _python("mkdm.benchmark.setup", setup, left())
        precision = found[runs[0].name]["precision"]
        told = _side("CrossEncoder", plain / "plain", few, precision, work, left())
        rate = round(min(PEER_PAIRS, size) / told["seconds"], 1)
        found["CrossEncoder"] = {"precision": precision, "pairs_per_s": rate, "model": runs[0].name}
        file.write_text(json.dumps(found, indent=1) + "\n")
    return found


def _side(side: str, model: Path, pairs: Path, precision: str, work: Path, seconds: float) -> dict[str, Any]:
    flags = {"side": side, "models": model, "pairs": pairs, "precision": precision, "scores": work / "scores.parquet"}
    told = _python(
        "mkdm.benchmark.sides", [text for name, value in flags.items() for text in (f"--{name}", str(value))], seconds
    )
    measured: dict[str, Any] = json.loads(told.splitlines()[-1])
    return measured


def _python(module: str, flags: list[str], seconds: float) -> str:
    command = [sys.executable, "-m", module, *flags]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=seconds).stdout
