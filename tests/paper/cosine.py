"""AUC by source of an encoder's own cosine of query and passage, before any training.

    python tests/paper/cosine.py --encoder DIR --pairs DIR [--pooling cls] [--query-prefix TEXT] [--passage-prefix TEXT]

`--pairs` has pairs.parquet and golden_labels.parquet, as `tests/paper/pairs.py` writes the set `test`. bge takes the
state of [CLS] and "Represent this sentence for searching relevant passages: ", e5 the mean, "query: " and "passage: ".
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from transformers import AutoModel, AutoTokenizer

from mkdm.evaluation import auc

BATCH = 32


@torch.inference_mode()
def embedded(folder: str, texts: list[str], pooling: str, max_length: int = 160) -> NDArray[np.float32]:
    """float32[n, H], of length 1 each."""
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).float().eval()
    order = np.argsort([len(text) for text in texts])
    found = np.zeros((len(texts), model.config.hidden_size), dtype=np.float32)
    for start in range(0, len(order), BATCH):
        rows = order[start : start + BATCH]
        inputs = tokenizer(
            [texts[row] for row in rows], padding=True, truncation=True, max_length=max_length, return_tensors="pt"
        )
        states = model(**inputs).last_hidden_state  # [B, L, H]
        mask = inputs["attention_mask"][..., None]
        pooled = states[:, 0] if pooling == "cls" else (states * mask).sum(1) / mask.sum(1)
        found[rows] = torch.nn.functional.normalize(pooled, dim=-1).numpy()
    return found


def cosines(folder: str, rows: pd.DataFrame, pooling: str, prefixes: tuple[str, str]) -> NDArray[np.float32]:
    """float32[pairs]; each text is read once."""
    vectors = []
    for column, prefix in zip(("query", "passage"), prefixes, strict=True):
        texts, number = np.unique(rows[column].to_numpy(str), return_inverse=True)
        vectors.append(embedded(folder, [prefix + text for text in texts], pooling)[number])
    cosine: NDArray[np.float32] = (vectors[0] * vectors[1]).sum(axis=1)
    return cosine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoder", required=True, help="folder of the encoder")
    parser.add_argument("--pairs", type=Path, required=True, help="folder of the pairs")
    parser.add_argument("--pooling", choices=("cls", "mean"), default="cls")
    parser.add_argument("--query-prefix", default="")
    parser.add_argument("--passage-prefix", default="")
    given = parser.parse_args()
    rows = pd.read_parquet(given.pairs / "pairs.parquet").merge(pd.read_parquet(given.pairs / "golden_labels.parquet"))
    scores = cosines(given.encoder, rows, given.pooling, (given.query_prefix, given.passage_prefix))
    golden = rows.golden_label.to_numpy(np.int64)
    of_source = {"all": np.ones(len(rows), dtype=bool)}
    of_source |= {source: (rows.source == source).to_numpy() for source in sorted(rows.source.unique())}
    print(json.dumps({source: round(auc(golden[mine], scores[mine]), 4) for source, mine in of_source.items()}))


if __name__ == "__main__":
    main()
