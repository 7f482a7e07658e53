"""The sets and the plan that leave one source out, and what their figures stand beside."""

import json
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tiny_models import SAMPLE
from transformers import BertConfig, BertModel

from mkdm.experiments import Plan
from mkdm.model import load_tokenizer
from mkdm.train.training_set import stable_share

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """The shared data's files, from the shipped sample."""
    folder = tmp_path_factory.mktemp("data")
    rows = pd.read_parquet(SAMPLE / "pairs.parquet").merge(pd.read_parquet(SAMPLE / "golden_labels.parquet"))
    rows = rows.rename(columns={"golden_label": "label"}).assign(
        source=rows.query_id.str.partition(":")[0],
        doc_id=rows.passage_id.str.partition("#")[0],
        split=rows.query_id.map(lambda key: ("train", "valid", "test")[int(3 * stable_share(f"third/{key}"))]),
    )
    (folder / "labelled_pairs").mkdir()
    for split, of_split in rows.groupby("split"):
        of_split.to_parquet(folder / "labelled_pairs" / f"{split}.parquet", index=False)
    queries = rows.drop_duplicates("query_id")[["query_id", "query", "source", "split"]]
    queries.to_parquet(folder / "queries.parquet", index=False)
    passages = rows.drop_duplicates("passage_id")[["passage_id", "doc_id", "passage"]]
    passages.to_parquet(folder / "passages.parquet", index=False)
    documents = passages.doc_id.unique()
    top = pd.DataFrame({"query_id": queries.query_id.repeat(3).to_numpy()})
    top["doc_id"] = documents[np.arange(len(top)) % len(documents)]
    top.to_parquet(folder / "query_documents.parquet", index=False)
    mined = top.iloc[::2].merge(passages[["doc_id", "passage_id"]]).drop(columns="doc_id")
    mined.assign(bm25_rank=1, bm25_score=1.0).to_parquet(folder / "unlabelled_pairs.parquet", index=False)
    return folder


def test_a_left_out_source_is_in_no_set_of_its_runs(data, tmp_path):
    command = [sys.executable, str(HERE / "pairs.py"), "--data", str(data), "--output", str(tmp_path)]
    subprocess.run([*command, "--without-each"], check=True, stdout=subprocess.DEVNULL)
    runs = {run.name: run for run in Plan.read(str(HERE / "left_out.yaml")).runs}
    sources = {"amazon", "medquad", "newwiki", "squad"}
    assert set(runs) == {"all-sources", *(f"without-{source}" for source in sources)}
    for source in sources:
        run = runs[f"without-{source}"]
        for name in (run.training_set, run.valid_set):
            assert set(pd.read_parquet(tmp_path / name / "pairs.parquet").source) == sources - {source}
        assert run.teachers == ()
    assert set(pd.read_parquet(tmp_path / "test" / "pairs.parquet").source) == sources
    assert "bm25_rank" in pd.read_parquet(tmp_path / "unlabelled" / "pairs.parquet")


def test_a_cosine_is_that_of_the_encoder(data, tmp_path, monkeypatch, capsys):
    tokenizer = load_tokenizer(SAMPLE / "student")
    torch.manual_seed(0)
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
    model = BertModel(BertConfig(vocab_size=len(tokenizer), **shape)).eval()
    model.save_pretrained(tmp_path / "encoder")
    tokenizer.save_pretrained(tmp_path / "encoder")
    rows = pd.read_parquet(data / "labelled_pairs" / "test.parquet").head(40)
    rows[["query_id", "passage_id", "query", "passage", "source"]].to_parquet(tmp_path / "pairs.parquet")
    labels = rows.rename(columns={"label": "golden_label"})[["query_id", "passage_id", "golden_label"]]
    labels.to_parquet(tmp_path / "golden_labels.parquet")
    folders = ["--encoder", str(tmp_path / "encoder"), "--pairs", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["cosine.py", *folders, "--pooling", "mean"])
    capsys.readouterr()
    runpy.run_path(str(HERE / "cosine.py"), run_name="__main__")
    told = json.loads(capsys.readouterr().out.splitlines()[-1])

    def vector(text: str) -> torch.Tensor:
        with torch.inference_mode():
            inputs = tokenizer(text, truncation=True, max_length=160, return_tensors="pt")
            return model(**inputs).last_hidden_state[0].mean(0)

    scores = [
        float(torch.cosine_similarity(vector(one["query"]), vector(one["passage"]), dim=0))
        for _, one in rows.iterrows()
    ]
    positive = [score for score, label in zip(scores, rows.label, strict=True) if label == 1]
    negative = [score for score, label in zip(scores, rows.label, strict=True) if label == 0]
    wins = np.mean([(a > b) + 0.5 * (a == b) for a in positive for b in negative])
    assert told["all"] == pytest.approx(wins, abs=2e-3)
