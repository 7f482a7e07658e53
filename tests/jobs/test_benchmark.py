import dataclasses
import sys
from math import isclose

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_models import SAMPLE

from jobs import benchmark
from jobs.benchmark import BenchmarkConfig, run
from jobs.reports.benchmark_results import BenchmarkResults, quality
from jobs.reports.benchmark_sides import BASE, OPENVINO_PEER, PEER_PRECISIONS, Side, default_sides
from jobs.reports.measured_process import run_process
from mkdm.errors import ConfigError, InputError, RunFailedError

PAIRS = str(SAMPLE / "pairs.parquet")
LABELS = str(SAMPLE / "golden_labels.parquet")


@pytest.mark.slow
def test_all_sides_on_the_same_pairs(student_folder, tmp_path, monkeypatch):
    pytest.importorskip("ray")
    pytest.importorskip("onnxruntime")
    pytest.importorskip("ctranslate2")
    monkeypatch.setattr(benchmark, "FOLDER", tmp_path / "work")
    sides = [
        "job:torch:fp32",
        "scorer:torch:fp32",
        *(f"{peer}:{precisions[0]}" for peer, precisions in PEER_PRECISIONS.items() if peer != OPENVINO_PEER),
    ]
    config = BenchmarkConfig(
        model=student_folder,
        pairs=PAIRS,
        labels=LABELS,
        sides=",".join([*sides, "onnxruntime:int8"]),
        rows=60,
        peer_rows=30,
        rounds=1,
        widen=2,
        latency="also",
        layers="1,2",
        latency_pairs=5,
        output=str(tmp_path / "output"),
    )
    results = run(config)

    found = {one.side: one for one in results.sides}
    assert list(found) == [*sides, "onnxruntime:int8"]
    for side in sides:
        assert found[side].quality.max_drift < 1e-5, side
        assert found[side].quality.missing == 0, side
        assert found[side].rate > 0
        assert found[side].memory_mb["python"] > 50
    assert found["onnxruntime:int8"].quality.max_drift > 1e-5
    assert found["onnxruntime:int8"].model_mb < found["onnxruntime:fp32"].model_mb
    assert {side: one.pairs for side, one in found.items() if one.pairs != 60} == {
        side: 30
        for side in found
        if side.partition(":")[0] in ("CrossEncoder", "pipeline", "onnxruntime", "ctranslate2")
    }
    assert {side for side, one in found.items() if one.fixed_seconds} == {
        "job:torch:fp32",
        "predict_batch_udf:fp32",
        "ray:fp32",
    }
    assert found["job:torch:fp32"].memory_mb["jvm"] > 100
    assert {(one.side, one.layers) for one in results.latency} >= {("scorer:torch:fp32", 1), ("CrossEncoder:fp32", 2)}
    assert BenchmarkResults.read(str(tmp_path / "output" / "benchmark.json")) == results
    assert (tmp_path / "output" / "benchmark.png").stat().st_size > 10_000


@pytest.mark.slow
def test_side_that_fails_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "FOLDER", tmp_path / "work")
    monkeypatch.setattr(benchmark, "_machine", lambda: benchmark.Machine("cpu", "none", 1, 1.0, {}))
    with pytest.raises(RunFailedError, match="exited 2: error: no model folder at nowhere"):
        run(BenchmarkConfig(model="nowhere", pairs=PAIRS, rows=1, sides="scorer:torch:fp32"))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"rows": 0}, "--rows is 0; it must be at least 1"),
        ({"peer_rows": 0}, "--peer-rows is 0"),
        ({"widen": 0}, "--widen is 0"),
        ({"layers": "3,none"}, "--layers is '3,none'"),
        ({"sides": "scorer:torch"}, "--sides has 'scorer:torch'; a side is job:BACKEND:PRECISION"),
        ({"sides": "CrossEncoder:int8"}, "--sides has 'CrossEncoder:int8'"),
        ({"sides": "CrossEncoder-openvino:fp32"}, "needs a Python of its own: optimum-intel .* transformers < 5.6"),
        (
            {"sides": "CrossEncoder-openvino:int8", "peer_python": "nowhere"},
            "--peer-python is nowhere, which is no program: optimum-intel",
        ),
        ({"sides": "vllm:fp32"}, "--sides has 'vllm:fp32'"),
    ],
)
def test_flags_that_cannot_work(flags, message):
    with pytest.raises(ConfigError, match=message):
        BenchmarkConfig(**({"model": "m", "pairs": "p", "sides": BASE} | flags))


def test_side_without_its_package_is_told(monkeypatch):
    monkeypatch.setattr(benchmark, "find_spec", lambda name: None if name == "ray" else name)
    with pytest.raises(ConfigError, match=r"ray:fp32 needs ray: pip install 'mkdm\[bench,cpu\]'"):
        BenchmarkConfig(model="m", pairs="p", sides="scorer:torch:fp32,ray:fp32")


def test_default_sides_suit_the_machine():
    cpu, gpu = ([str(side) for side in default_sides(device)] for device in ("cpu", "cuda"))
    assert {"job:torch:fp32", "scorer:torch:bf16", BASE, "ray:fp32", "onnxruntime:int8"} <= set(cpu)
    assert "scorer:torch:fp16" in gpu
    assert {"ctranslate2:fp32", "ctranslate2:int8"} <= set(cpu)
    assert [str(side) for side in default_sides("cpu", openvino_peer=True)] == [
        *cpu,
        "CrossEncoder-openvino:fp32",
        "CrossEncoder-openvino:int8",
    ]
    assert not [side for side in gpu if any(name in side for name in ("openvino", "onnx", "ctranslate2"))]
    assert all(str(Side.parse(side)) == side for side in cpu + gpu)


def test_bad_input(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "FOLDER", tmp_path / "work")
    config = BenchmarkConfig(model="m", pairs="nowhere", sides=BASE)
    with pytest.raises(InputError, match="no Parquet file of pairs at nowhere"):
        run(config)
    pq.write_table(pa.table({"query_id": ["q"], "query": ["what"]}), tmp_path / "pairs.parquet")
    with pytest.raises(InputError, match="lacks passage_id, passage; it has query_id, query"):
        run(dataclasses.replace(config, pairs=str(tmp_path / "pairs.parquet")))
    with pytest.raises(InputError, match="no Parquet file of golden labels at nowhere"):
        run(dataclasses.replace(config, pairs=PAIRS, labels="nowhere"))


def test_parts_of_the_pairs_are_evenly_spread(tmp_path):
    rows = pa.table({"n": list(range(10))})
    assert benchmark._spread(rows, 4)["n"].to_pylist() == [0, 2, 5, 7]
    assert benchmark._spread(rows, 99)["n"].to_pylist() == list(range(10))


def test_quality_by_hand():
    keys = {"query_id": ["a", "a", "b", "b"], "passage_id": ["1", "2", "1", "2"]}
    reference = pa.table({**keys, "score": [0.9, 0.2, 0.6, 0.4]})
    scores = pa.table({**keys, "score": [0.9, 0.5, 0.6, 0.4]}).take([2, 0, 1])  # in any order; one is missing
    golden = pa.table({**keys, "golden_label": [1, 0, 0, 1]})
    found = quality(scores, reference, golden)
    assert isclose(found.max_drift, 0.3)
    assert isclose(found.mean_drift, 0.1)
    assert (found.auc, found.auc_drift, found.missing) == (1.0, 0.0, 1)
    whole = quality(pa.table({**keys, "score": [0.9, 0.5, 0.6, 0.3]}), reference, golden)
    assert (whole.auc, whole.auc_drift, whole.missing) == (0.5, -0.25, 0)  # 2 of 4 in order; 3 of 4 before
    assert quality(scores, reference, None).auc is None
    with pytest.raises(InputError, match="scores for none of the pairs"):
        quality(scores.slice(0, 0), reference, golden)


def test_process_is_watched():
    finished = run_process(
        [sys.executable, "-c", "import time; x = b'x' * 300_000_000; time.sleep(1.2); print('done')"]
    )
    assert finished.output == "done\n"
    assert finished.seconds > 1.2
    assert 290 < finished.memory_mb["python"] < 600
    assert finished.memory_mb["jvm"] == 0
    with pytest.raises(RunFailedError, match="exited 3: it printed nothing"):
        run_process([sys.executable, "-c", "raise SystemExit(3)"])
