import json
import shutil
from itertools import chain

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_models import SAMPLE, tiny_config
from transformers import AutoModel

from mkdm.encoding import PairEncoder
from mkdm.errors import ConfigError, InputError, ModelError
from mkdm.feed import read_labelled_pairs, training_steps
from mkdm.scorer import Scorer
from mkdm.train import TrainConfig, main, train


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> str:
    """300 sample pairs whose golden label is whether the passage is short, which a tiny model learns."""
    pairs = pq.read_table(SAMPLE / "pairs.parquet").slice(0, 300)
    passages = [passage[:120] if row % 2 else passage for row, passage in enumerate(pairs["passage"].to_pylist())]
    table = pairs.set_column(3, "passage", pa.array(passages))
    table = table.append_column("golden_label", pa.array([row % 2 for row in range(300)]))
    path = tmp_path_factory.mktemp("labelled") / "pairs.parquet"
    pq.write_table(table, path)
    return str(path)


@pytest.fixture(scope="module")
def encoder_folder(tmp_path_factory, tokenizers) -> str:
    folder = tmp_path_factory.mktemp("encoder")
    AutoModel.from_config(tiny_config("bert", tokenizers["bert"])).save_pretrained(folder)
    tokenizers["bert"].save_pretrained(folder)
    return str(folder)


def test_student_learns_and_its_folder_scores(labelled, encoder_folder, tmp_path):
    config = TrainConfig(
        encoder=encoder_folder,
        train_pairs=labelled,
        valid_pairs=labelled,
        output=str(tmp_path / "student"),
        num_layers=2,
        max_length=96,
        epochs=6,
        learning_rate=3e-3,
        batch_size=32,
        evaluate_every=10,
    )
    best = train(config)
    assert best["auc"] > 0.9
    log = [json.loads(line) for line in (tmp_path / "student" / "training_log.jsonl").read_text().splitlines()]
    assert log[0]["pairs"] == 300
    assert [record["step"] for record in log[1:]] == list(range(1, 61))
    assert log[-1]["loss"] < log[1]["loss"]
    scorer = Scorer.load(config.output)
    assert scorer.model_version == best["model_version"]
    assert scorer.max_length == 96
    assert scorer.score(["what is a gasket"], ["a seal"]).shape == (1,)


def test_same_seed_same_student(labelled, encoder_folder, tmp_path):
    flags = ["--encoder", encoder_folder, "--train-pairs", labelled, "--valid-pairs", labelled, "--num-layers", "1"]
    flags += ["--max-length", "48", "--train-query-share", "0.3", "--valid-query-share", "0.3"]
    versions = []
    for name in ("first", "second"):
        main([*flags, "--output", str(tmp_path / name)])
        versions.append(Scorer.load(tmp_path / name).model_version)
        shutil.rmtree(tmp_path / name)
    assert versions[0] == versions[1]


def test_epoch_has_every_pair_once_in_another_order(labelled, tokenizers):
    encoder = PairEncoder(tokenizers["bert"], 64)
    pairs = read_labelled_pairs(labelled, encoder)

    def rows(epoch: int) -> list[list[bytes]]:
        steps = training_steps(pairs, encoder, batch_size=64, token_budget=512, seed=0, epoch=epoch)
        return [[ids[ids > 0].tobytes() for batch, _ in step for ids in batch.input_ids] for step in steps]

    first, again, second = rows(0), rows(0), rows(1)
    assert [len(step) for step in first] == [64, 64, 64, 64, 44]
    assert first == again
    assert first != second
    assert sorted(chain(*first)) == sorted(chain(*second))


def test_missing_column_is_named(encoder_folder, tokenizers):
    with pytest.raises(InputError, match="lacks golden_label; it has query_id"):
        read_labelled_pairs(SAMPLE / "pairs.parquet", PairEncoder(tokenizers["bert"], 64))


def test_labels_other_than_zero_and_one_are_refused(labelled, tokenizers, tmp_path):
    table = pq.read_table(labelled).drop(["golden_label"]).append_column("golden_label", pa.array([None, 2] * 150))
    pq.write_table(table, tmp_path / "pairs.parquet")
    with pytest.raises(InputError, match="must hold both 0 and 1 and nothing else; it holds 2, None"):
        read_labelled_pairs(tmp_path / "pairs.parquet", PairEncoder(tokenizers["bert"], 64))


def test_encoder_that_is_not_there(labelled, tmp_path):
    config = TrainConfig(encoder="nowhere", train_pairs=labelled, valid_pairs=labelled, output=str(tmp_path))
    with pytest.raises(ModelError, match="no encoder at nowhere"):
        train(config)


def test_number_outside_its_range_is_refused():
    with pytest.raises(ConfigError, match="--train-query-share is 0"):
        TrainConfig(encoder="", train_pairs="", valid_pairs="", output="", train_query_share=0)
