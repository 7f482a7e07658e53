import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from pyspark.sql import functions as F
from tiny_models import SAMPLE
from training_sets import columns

from jobs.__main__ import main as mkdm
from jobs.engine import Table, Warehouse
from jobs.engine.ledger import COMPLETE, FAILED, Identity, Ledger
from jobs.export_training_set import ExportConfig, run
from jobs.training_set.labels import read_soft_labels
from jobs.training_set.splits import split_of, stable_share
from mkdm.errors import ConfigError, InputError, RejectRateError
from mkdm.model.folder import tokenizer_version
from mkdm.train import arrow_feed, petastorm_feed, training_set
from mkdm.train.rows import TrainingRows
from mkdm.train.training_set import TrainingSet

PAIRS = "query_id string, passage_id string, query string, passage string"
SOFT = "query_id string, passage_id string, teacher_id string, teacher_version string, logit float, soft_label float, "
SOFT += "run_id string, labelled_at timestamp"
NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)
MAX_LENGTH = 64
CUT = 0.5


def key(pair: dict[str, str]) -> tuple[str, str]:
    return pair["query_id"], pair["passage_id"]


@pytest.fixture(scope="module")
def pairs() -> list[dict[str, str]]:
    """300 real pairs of about 60 queries."""
    rows = pq.read_table(SAMPLE / "pairs.parquet").to_pylist()
    return [row for start in range(0, 3000, 100) for row in rows[start : start + 10]]


@pytest.fixture(scope="module")
def golden(pairs) -> dict[tuple[str, str], int]:
    """Golden labels of the first 200 pairs."""
    labels = {key(row): row["golden_label"] for row in pq.read_table(SAMPLE / "golden_labels.parquet").to_pylist()}
    return {key(pair): labels[key(pair)] for pair in pairs[:200]}


@pytest.fixture(scope="module")
def soft(pairs) -> dict[str, dict[tuple[str, str], float]]:
    """What each teacher says: bge of the pairs 20 to 280, e5 of every second one. The last 10 odd ones go without."""
    labels = np.random.default_rng(0).random(300).astype(np.float32).tolist()
    return {
        "bge": {key(pairs[i]): labels[i] for i in range(20, 280)},
        "e5": {key(pairs[i]): labels[-i] for i in range(0, 300, 2)},
    }


@pytest.fixture(scope="module")
def labelled(spark, tables, tmp_path_factory, pairs, golden, soft) -> Path:
    """A warehouse with labels: to be copied, not used. Stale labels, and those of a run that failed, are among them."""
    root = shutil.copytree(tables, tmp_path_factory.mktemp("labelled") / "warehouse")
    warehouse = Warehouse(spark, str(root))
    warehouse.table("pairs").overwrite(spark.createDataFrame(pairs, PAIRS).coalesce(1))
    ledger = Ledger(warehouse.table("runs"))
    for name, state in (("done", COMPLETE), ("broken", FAILED)):
        ledger.record(ledger.start(Identity("label", {"name": name}, {}, "m"), name, 300, 1).run, state)
    rows = [(*pair, "bge", "v2", 0.0, value, "done", NOON) for pair, value in soft["bge"].items()]
    rows += [(*pair, "e5", "v1", 0.0, value, "done", NOON) for pair, value in soft["e5"].items()]
    some = list(soft["bge"])[:50]
    rows += [(*pair, "bge", "v1", 0.0, 0.5, "done", NOON - timedelta(days=2)) for pair in some]
    rows += [(*pair, "bge", "v2", 0.0, 0.5, "done", NOON - timedelta(days=1)) for pair in some]
    rows += [(*pair, "bge", "v3", 0.0, 0.5, "broken", NOON + timedelta(days=1)) for pair in some]
    warehouse.table("soft_labels").append(spark.createDataFrame(rows, SOFT).coalesce(1), "labels")
    rows = [(*pair, value, "test") for pair, value in golden.items()]
    frame = spark.createDataFrame(rows, "query_id string, passage_id string, golden_label int, label_source string")
    frame.coalesce(1).write.format("delta").save(warehouse.table("golden_labels").location)
    return root


@pytest.fixture
def root(labelled, tmp_path) -> str:
    return str(shutil.copytree(labelled, tmp_path / "warehouse"))


def settings(student_folder: str, root: Path | str, **changes) -> ExportConfig:
    splits = f"train={CUT},valid={1 - CUT},never=0"
    chosen = {"max_length": MAX_LENGTH, "row_group_rows": 50, "splits": splits} | changes
    return ExportConfig(tokenizer=student_folder, warehouse=str(root), **chosen)


@pytest.fixture(scope="module")
def exported(spark, student_folder, labelled, tmp_path_factory) -> tuple[TrainingSet, str]:
    """A training set of the labelled warehouse, in a folder with a space, and what the command says of it."""
    root = shutil.copytree(labelled, tmp_path_factory.mktemp("exported") / "warehouse")
    report = run(spark, settings(student_folder, root, output=str(root / "a training set")))
    return TrainingSet.read(str(root / "a training set")), str(report)


@pytest.fixture(scope="module")
def rows(exported) -> TrainingRows:
    whole, _ = exported
    groups = [g for split in ("train", "valid") for g in arrow_feed.row_groups(whole, split, seed=0, epoch=0)]
    return TrainingRows.concat(groups)


@pytest.fixture(scope="module")
def pair_hashes(spark, pairs) -> dict[int, dict[str, str]]:
    keys = spark.createDataFrame([key(pair) for pair in pairs], "query_id string, passage_id string")
    hashed = [row["pair"] for row in keys.select(F.xxhash64("query_id", "passage_id").alias("pair")).collect()]
    return dict(zip(hashed, pairs, strict=True))


def test_every_labelled_pair_is_encoded_as_its_tokenizer_does(rows, pair_hashes, tokenizers, exported):
    whole, _ = exported
    tokenizer = tokenizers["bert"]
    assert len(rows) == len(set(rows.pairs.tolist())) == 290
    in_order = [pair_hashes[pair] for pair in rows.pairs.tolist()]
    plain = tokenizer(
        [pair["query"] for pair in in_order],
        [pair["passage"] for pair in in_order],
        truncation="only_second",
        max_length=MAX_LENGTH,
        padding="max_length",
        return_tensors="np",
    )
    assert (rows.input_ids == plain["input_ids"]).all()
    assert (rows.lengths == plain["attention_mask"].sum(axis=1)).all()
    assert rows.query_lengths.tolist() == [len(tokenizer.tokenize(pair["query"])) for pair in in_order]
    template = whole.template
    position = np.arange(MAX_LENGTH)
    second = (position >= template.second_type_start + rows.query_lengths[:, None]) & (position < rows.lengths[:, None])
    assert (np.where(second, template.second_type, 0) == plain["token_type_ids"]).all()
    assert whole.tokenizer == tokenizer_version(tokenizer)


def test_what_a_pair_lacks_is_masked(rows, pair_hashes, golden, soft, exported):
    whole, _ = exported
    assert whole.teacher_ids == ["bge", "e5"]
    assert whole.teacher_versions == ["v2", "v1"]
    for row, pair in enumerate(rows.pairs.tolist()):
        name = key(pair_hashes[pair])
        assert rows.golden_labels[row] == golden.get(name, -1)
        for teacher, labels in enumerate(soft.values()):
            assert rows.soft_labels[row, teacher] == pytest.approx(labels.get(name, np.nan), nan_ok=True)
        assert whole.sources[rows.sources[row]] == name[0].split(":")[0]
    assert whole.counts["left_out"] == 10
    assert whole.counts["golden_labels"] == 200
    assert whole.counts["soft_labels"] == {"bge": 260, "e5": 150}


def test_queries_are_split_whole_by_their_stable_share(exported, pair_hashes, spark):
    whole, _ = exported
    for split in ("train", "valid"):
        groups = list(arrow_feed.row_groups(whole, split, seed=0, epoch=0))
        queries = {pair_hashes[pair]["query_id"] for group in groups for pair in group.pairs.tolist()}
        assert {training_set.stable_share(f"split/{query}") < CUT for query in queries} == {split == "train"}
        assert whole.counts["splits"][split]["queries"] == len(queries)
        assert whole.rows(split) == sum(map(len, groups))
    with pytest.raises(InputError, match=r"no row of the split 'never'"):
        whole.rows("never")
    names = [f"q{i}" for i in range(2000)] + ["ümlaut", "", "日本 語"]
    frame = spark.createDataFrame([(name,) for name in names], "query_id string")
    split = split_of({"a": 0.1, "none": 0.0, "b": 0.2, "c": 0.7})
    for row in frame.select("query_id", stable_share().alias("share"), split.alias("split")).collect():
        assert row["share"] == training_set.stable_share(f"split/{row['query_id']}")
        assert row["split"] == ("a" if row["share"] < 0.1 else "b" if row["share"] < 0.1 + 0.2 else "c")


def test_files_are_whole_sorted_one_row_group_each_and_as_the_test_helper_writes_them(exported):
    whole, report = exported
    for split in ("train", "valid"):
        whole.check_files(split)
    assert len([file for file in whole.files if file.split == "train"]) > 2
    for file in whole.files:
        read = pq.ParquetFile(Path(whole.folder) / file.path)
        assert [read.metadata.row_group(i).num_rows for i in range(read.num_row_groups)] == file.row_groups
        assert file.rows == file.row_groups[0]
        assert abs(file.rows - 50) <= 30
        table = read.read()
        assert table["pair"].to_pylist() == sorted(table["pair"].to_pylist())
        kinds = {field.name: str(field.type).replace("element", "item") for field in table.schema}
        assert kinds == {field.name: str(field.type) for field in columns(3, MAX_LENGTH, 2, seed=0).schema}
    assert set(whole.columns) == set(kinds)
    for word in ("290", "10 left out", "split train", "source amazon", "teacher e5", "150 soft labels", whole.folder):
        assert word in report


def test_both_feeds_read_it(exported):
    whole, _ = exported
    choice = {"seed": 1, "epoch": 2, "rank": 1, "world": 2, "workers": 2}
    one, other = (
        TrainingRows.concat(list(feed.row_groups(whole, "train", **choice))) for feed in (arrow_feed, petastorm_feed)
    )
    assert (one.input_ids == other.input_ids).all()
    assert np.array_equal(one.soft_labels, other.soft_labels, equal_nan=True)
    assert one.golden_labels.dtype == other.golden_labels.dtype == np.int8
    assert one.pairs.tolist() == other.pairs.tolist()


def test_again_is_no_work_other_input_is_refused_and_overwrite_replaces(spark, root, student_folder, capsys):
    config = settings(student_folder, root, teachers="e5", splits="all=1")
    first = run(spark, config).training_set
    folder = Path(root) / "training_set"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    runs = Table(spark, f"{root}/runs").latest_version()
    assert run(spark, config).training_set == first
    assert "already" in capsys.readouterr().err
    assert before == {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert Table(spark, f"{root}/runs").latest_version() == runs
    (state,) = Ledger(Table(spark, f"{root}/runs")).states(job="export-training-set")
    assert (state.state, state.totals.rows_read, state.totals.rows_written) == (COMPLETE, 300, first.rows("all"))

    other = settings(student_folder, root, teachers="none", splits="all=1")
    with pytest.raises(InputError, match=r"another training set \(.*teachers: e5@v1 → .*--overwrite true"):
        run(spark, other)
    assert TrainingSet.read(str(folder)) == first
    second = run(spark, settings(student_folder, root, teachers="none", splits="all=1", overwrite=True)).training_set
    assert TrainingSet.read(str(folder)) == second
    second.check_files("all")
    assert (second.teacher_ids, second.rows("all"), second.counts["left_out"]) == ([], 200, 100)
    assert sorted(path.name for path in folder.iterdir()) == sorted([second.fingerprint[:16], "manifest.json"])

    (folder / "manifest.json").unlink()  # as a killed export leaves it
    third = run(spark, other).training_set
    assert [file.rows for file in third.files] == [file.rows for file in second.files]
    third.check_files("all")


def test_faulty_rows_are_rejected_and_counted(spark, root, student_folder, pairs):
    rows = [(*key(pair), pair["query"], pair["passage"], "mine") for pair in pairs[:40]]
    rows += [rows[0], (None, "p", "q", "p", "mine"), ("q1", "p1", None, "a passage", "mine"), ("q2", "p2", "a", "", "")]
    schema = "query_id string, passage_id string, query string, passage string, source string"
    spark.createDataFrame(rows, schema).coalesce(1).write.parquet(f"{root}/some.parquet")
    labels = [(*row[:2], str(i % 2)) for i, row in enumerate(rows[:40])]
    labels[3] = (*labels[3][:2], "0.5")
    labels[4] = (*labels[4][:2], "yes")
    labels += [(*labels[6][:2], "0"), (*labels[7][:2], "0"), ("q1", "p1", "1"), ("q2", "p2", "1"), ("no", "pair", "1")]
    frame = spark.createDataFrame(labels, "query_id string, passage_id string, golden_label string")
    frame.coalesce(1).write.option("header", True).csv(f"{root}/golden.csv")
    changes = {"pairs": f"{root}/some.parquet", "golden_labels": f"{root}/golden.csv", "teachers": "none"}
    changes |= {"splits": "all=1", "max_length": 24}
    with pytest.raises(RejectRateError, match=r"2 invalid_golden_label.*rejected_pairs where run_id"):
        run(spark, settings(student_folder, root, **changes))
    assert not (Path(root) / "training_set").exists()
    whole = run(spark, settings(student_folder, root, max_reject_rate=0.5, **changes)).training_set
    rejected = Table(spark, f"{root}/rejected_pairs").read().collect()
    codes = {row["query_id"]: row["error_code"] for row in rejected if row["query_id"] in ("q1", "q2", None)}
    assert codes == {"q1": "null_query", "q2": "empty_passage", None: "null_key"}
    count = whole.counts["rejects"]
    assert {row["error_code"] for row in rejected} == set(count)
    assert len(rejected) == whole.counts["rejected"] == sum(count.values())
    assert (count["invalid_golden_label"], count["conflicting_golden_label"], count["duplicate_key"]) == (2, 1, 1)
    assert whole.counts["exported"] + whole.counts["rejected"] == 44
    assert whole.sources == ["mine"]


def test_labels_from_elsewhere_count_without_a_ledger(spark, labelled, capsys):
    nowhere = Ledger(Table(spark, f"{labelled}/nowhere"))
    soft = read_soft_labels(Table(spark, f"{labelled}/soft_labels"), None, False, nowhere, "all")
    assert "knows no labelling run" in capsys.readouterr().err
    assert soft.teachers == {"bge": "v3", "e5": "v1"}  # which the run that failed had written
    assert soft.by_key.where("soft_label_0 IS NOT NULL").count() == 50
    assert read_soft_labels(Table(spark, f"{labelled}/nowhere"), None, False, nowhere, "all").by_key is None


def test_what_is_not_there_is_told(spark, root, student_folder, tmp_path):
    with pytest.raises(InputError, match=r"no soft label of teacher 'minilm'; it has bge, e5"):
        run(spark, settings(student_folder, root, teachers="bge,minilm"))
    with pytest.raises(InputError, match=r"no Delta table at .*/nowhere"):
        run(spark, settings(student_folder, root, golden_labels=f"{root}/nowhere"))
    with pytest.raises(ConfigError, match="--output"):
        run(spark, settings(student_folder, "spark_catalog.default"))
    shutil.rmtree(f"{root}/golden_labels")
    with pytest.raises(InputError, match="none of the 300 pairs has a golden label"):
        run(spark, settings(student_folder, root, teachers="none"))
    assert not (Path(root) / "training_set").exists()


@pytest.mark.parametrize("splits", ["train=0.9", "train=0.5,train=0.5", "train", "a/b=1", "train=1.5,valid=-0.5", ""])
def test_splits_must_be_shares(splits):
    with pytest.raises(ConfigError, match="--splits"):
        ExportConfig(tokenizer="x", splits=splits)


def test_the_command_tells_its_flags(capsys):
    with pytest.raises(SystemExit):
        mkdm(["export-training-set", "--help"])
    assert "--row-group-rows" in capsys.readouterr().out
