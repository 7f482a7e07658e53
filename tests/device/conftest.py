"""The scripts of this folder by their names, as where they run; pairs of the shipped sample; a tiny encoder."""

import sys
from pathlib import Path

import pandas as pd
import pytest
import torch
from tiny_models import SAMPLE
from transformers import BertConfig, BertModel

from mkdm.model import load_tokenizer
from mkdm.train.training_set import stable_share

sys.path.append(str(Path(__file__).parent))


@pytest.fixture(scope="session")
def sample_rows() -> pd.DataFrame:
    """Pairs with golden label and source."""
    rows = pd.read_parquet(SAMPLE / "pairs.parquet").merge(pd.read_parquet(SAMPLE / "golden_labels.parquet"))
    return rows.assign(source=rows.query_id.str.partition(":")[0])


@pytest.fixture(scope="session")
def pairs_folder(tmp_path_factory, sample_rows) -> Path:
    """A folder a set, as `tests/paper/pairs.py` writes them, from a sixth of the sample."""
    folder = tmp_path_factory.mktemp("pairs")
    share = sample_rows.query_id.map(lambda key: stable_share(f"sixth/{key}")) * 6
    bounds = {"labelled": (0, 0.4), "valid": (0.4, 0.55), "test": (0.55, 0.7), "unlabelled": (0.7, 1)}
    for name, (low, high) in bounds.items():
        rows = sample_rows[(share >= low) & (share < high)].reset_index(drop=True)
        (folder / name).mkdir()
        columns = ["query_id", "passage_id", "query", "passage", "source"]
        rows = rows.assign(bm25_rank=rows.groupby("query_id").cumcount() + 1.0)
        rows[[*columns, "bm25_rank"]].to_parquet(folder / name / "pairs.parquet", index=False)
        if name != "unlabelled":
            rows[["query_id", "passage_id", "golden_label"]].to_parquet(folder / name / "golden_labels.parquet")
    return folder


@pytest.fixture(scope="session")
def encoders(tmp_path_factory) -> Path:
    """A folder with two encoders of 12 layers and hidden size 32, with the tokenizer of the sample student."""
    folder, tokenizer = tmp_path_factory.mktemp("weights"), load_tokenizer(SAMPLE / "student")
    for seed, name in enumerate(("bge-small-en-v1.5", "e5-small-v2")):
        torch.manual_seed(seed)
        shape = {"hidden_size": 32, "num_hidden_layers": 12, "num_attention_heads": 4, "intermediate_size": 64}
        BertModel(BertConfig(vocab_size=len(tokenizer), **shape)).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder
