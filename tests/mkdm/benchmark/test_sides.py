import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_models import separate_student, tiny_student
from transformers import BertForSequenceClassification

from mkdm.benchmark import gemm_peak
from mkdm.benchmark import sides as benchmark_sides
from mkdm.benchmark.flops import pair_gflop
from mkdm.benchmark.setup import SetupConfig, prepare
from mkdm.benchmark.sides import SideConfig, latency
from mkdm.errors import InputError, ModelError
from mkdm.model.checkpoint import save_checkpoint
from mkdm.scoring.encoding import PairEncoder
from mkdm.scoring.scorer import Scorer


@pytest.fixture
def pairs_file(tmp_path, sample_pairs) -> str:
    pq.write_table(pa.Table.from_pylist(sample_pairs[:40]), tmp_path / "pairs.parquet")
    return str(tmp_path / "pairs.parquet")


def test_setup_makes_models_of_one_score(student_folder, pairs_file, tokenizers, sample_pairs, tmp_path):
    output = tmp_path / "work"
    told = prepare(SetupConfig(student_folder, pairs_file, pairs_file, str(output), widen=2, layers=(1, 2)))

    reference = pq.read_table(output / "reference.parquet")
    queries, passages = ([pair[name] for pair in sample_pairs[:40]] for name in ("query", "passage"))
    narrow = Scorer.load(student_folder, precision="fp32").score(queries, passages)
    wide = Scorer.load(output / "student", precision="fp32").score(queries, passages)
    np.testing.assert_allclose(reference["score"].to_numpy(), narrow, rtol=0, atol=1e-5)
    np.testing.assert_allclose(wide, narrow, rtol=0, atol=1e-5)
    assert reference["passage_id"].to_pylist() == [pair["passage_id"] for pair in sample_pairs[:40]]
    lengths = PairEncoder(tokenizers["bert"], 128).encode(queries, passages).lengths
    shape = tiny_student("bert", tokenizers["bert"]).config.encoder_config
    shape.hidden_size, shape.intermediate_size = 64, 128
    assert told["pair_gflop"] == told["peer_pair_gflop"] == pair_gflop(shape, lengths)
    assert (told["hidden_size"], told["num_layers"], told["max_length"]) == (64, 4, 128)
    assert told["mean_tokens"] == lengths.mean()
    assert json.loads((output / "student_2" / "config.json").read_text())["encoder_config"]["num_hidden_layers"] == 2
    assert json.loads((output / "plain_1" / "config.json").read_text())["num_hidden_layers"] == 1


def test_student_with_separate_layers_is_measured_as_it_reads(pairs_file, tokenizers, sample_pairs, tmp_path):
    student = separate_student("bert", tokenizers["bert"], 4, 1, 60)
    save_checkpoint(student, tokenizers["bert"], tmp_path / "separate")
    told = prepare(SetupConfig(str(tmp_path / "separate"), pairs_file, pairs_file, str(tmp_path / "work"), widen=2))
    assert (told["separate_layers"], told["text_h2"], told["pair_h2"]) == (1, 12, 21)
    assert told["pair_gflop"] < told["peer_pair_gflop"], "peers read each text anew for each pair"
    queries, passages = ([pair[name] for pair in sample_pairs[:40]] for name in ("query", "passage"))
    expected = Scorer.load(tmp_path / "separate", precision="fp32").score(queries, passages)
    wide = Scorer.load(tmp_path / "work" / "student", precision="fp32").score(queries, passages)
    np.testing.assert_allclose(wide, expected, rtol=0, atol=1e-5)
    reference = pq.read_table(tmp_path / "work" / "reference.parquet")
    np.testing.assert_allclose(reference["score"].to_numpy(), expected, rtol=0, atol=1e-5)


def test_setup_refuses_what_it_cannot_measure(student_folder, pairs_file, tokenizers, tmp_path):
    config = tiny_student("bert", tokenizers["bert"]).config.encoder_config
    save_checkpoint(BertForSequenceClassification(config), tokenizers["bert"], tmp_path / "teacher")
    with pytest.raises(ModelError, match="is no student of ours"):
        prepare(SetupConfig(str(tmp_path / "teacher"), pairs_file, pairs_file, str(tmp_path / "work")))
    pair = {"query_id": "q", "passage_id": "p", "query": "what", "passage": ""}
    pq.write_table(pa.Table.from_pylist([pair]), tmp_path / "empty.parquet")
    with pytest.raises(InputError, match=r"row 0 of the pairs cannot be scored: the passage has no token"):
        prepare(SetupConfig(student_folder, str(tmp_path / "empty.parquet"), pairs_file, str(tmp_path / "work")))


def test_scorer_side_writes_scores_and_prints_its_figures(student_folder, pairs_file, tmp_path, capsys, sample_pairs):
    scores = tmp_path / "scores.parquet"
    flags = ["--side", "scorer", "--models", student_folder, "--pairs", pairs_file, "--precision", "fp32"]
    benchmark_sides.main([*flags, "--scores", str(scores)])
    told = json.loads(capsys.readouterr().out)
    assert told["precision"] == "fp32"
    assert told["seconds"] > 0
    rows = pq.read_table(scores)
    assert rows.column_names == ["query_id", "passage_id", "score"]
    queries, passages = ([pair[name] for pair in sample_pairs[:40]] for name in ("query", "passage"))
    expected = Scorer.load(student_folder, precision="fp32").score(queries, passages)
    np.testing.assert_allclose(rows["score"].to_numpy(), expected, rtol=0, atol=1e-6)


def test_latency_times_each_pair_with_each_model(student_folder, pairs_file):
    told = latency(SideConfig("scorer", student_folder, pairs_file, "fp32"))
    assert told["precision"] == "fp32"
    assert [len(times) for times in told["milliseconds"].values()] == [40]
    assert min(told["milliseconds"][student_folder]) > 0


def test_torch_peaks_by_precision(monkeypatch):
    monkeypatch.setattr(gemm_peak, "CPU_SHAPES", ((16, 8, 8), (8, 8, 8)))
    peaks = gemm_peak.torch_peaks("cpu")
    assert set(peaks) == {"fp32", "bf16"}
    assert min(peaks.values()) > 0


def test_gflops_come_from_the_quickest_run():
    seconds = iter([2.0, 0.5, *[1.0] * gemm_peak.TIMES])
    assert gemm_peak._gflops((1000, 1000, 500), lambda: next(seconds)) == 2.0
