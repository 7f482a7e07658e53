import numpy as np
import pytest
import yaml
from tiny_models import spread_scores, tiny_config
from transformers import AutoModelForSequenceClassification

from jobs import label
from jobs.engine.ledger import COMPLETE, Ledger
from jobs.label import LabelConfig, _setting, _versioned, main, run
from jobs.runs import RunsConfig
from jobs.runs import run as run_runs
from mkdm.errors import ConfigError, RejectRateError, RunFailedError
from mkdm.model.folder import model_version
from mkdm.scoring.scorer import Scorer
from udfs import labelling
from udfs.model import read_zoo
from udfs.scoring import check_model


@pytest.fixture(scope="module")
def zoo(tmp_path_factory, tokenizers, student_folder) -> str:
    """Three teachers: one header, two headers and 48 tokens, and a student of ours."""
    folder = tmp_path_factory.mktemp("zoo")
    for name, headers in (("one", 1), ("two", 2)):
        config = tiny_config("bert", tokenizers["bert"])
        config.num_labels = headers
        spread_scores(AutoModelForSequenceClassification.from_config(config)).save_pretrained(folder / name)
        tokenizers["bert"].save_pretrained(folder / name)
    teachers = [
        {"id": "one", "model": "one", "precision": "fp32"},
        {"id": "two", "model": "two", "precision": "fp32", "max_tokens": 48},
        {"id": "ours", "model": student_folder},
    ]
    (folder / "zoo.yaml").write_text(yaml.safe_dump({"teachers": teachers}))
    return str(folder / "zoo.yaml")


def test_all_teachers_label_in_one_pass_and_one_more_is_added(
    spark, warehouse, zoo, sample_pairs, texts, capsys, monkeypatch
):
    first = run(spark, LabelConfig(zoo=zoo, warehouse=warehouse.root, teachers="one,two"))
    assert [report.totals.model_loads for report in first] == [2]
    assert (first[0].totals.rows_read, first[0].totals.rows_written) == (300, 600)
    second = run(spark, LabelConfig(zoo=zoo, warehouse=warehouse.root))
    assert [report.totals.rows_written for report in second] == [300]
    told = capsys.readouterr().err
    assert "labelling with ours\n" in told
    settled = second[0].run.settings["teacher ours"].partition(" runs_as=")[2]
    assert settled.startswith("torch:")
    assert f"ours: auto is {settled} for this run" in told
    monkeypatch.setattr(label, "settle_in_a_task", None)  # what goes on asks no more
    state = Ledger(warehouse.table("runs")).states(run_id=second[0].run.run_id)[0]
    (ours,) = [one for one in read_zoo(zoo) if one.id == "ours"]
    checked = check_model(ours.model, "auto", ours.precision)
    assert label._as_in(state, ours, checked).runs_as == settled
    assert label._as_in(state, ours, checked).model_version == checked.model_version
    folder = zoo.removesuffix("/zoo.yaml")
    scorers = {
        "one": Scorer.load(f"{folder}/one", precision="fp32"),
        "two": Scorer.load(f"{folder}/two", precision="fp32", max_length=48),
    }
    labels = warehouse.table("soft_labels").read().toPandas().set_index(["query_id", "passage_id"])
    assert labels.groupby("teacher_id").size().to_dict() == {"one": 300, "two": 300, "ours": 300}
    keys = [(pair["query_id"], pair["passage_id"]) for pair in sample_pairs]
    for teacher, scorer in scorers.items():
        mine = labels[labels["teacher_id"] == teacher].loc[keys]
        np.testing.assert_allclose(mine["soft_label"], scorer.score(*texts), atol=1e-5)
        np.testing.assert_allclose(1 / (1 + np.exp(-mine["logit"])), mine["soft_label"], atol=1e-5)
        assert set(mine["teacher_version"]) == {model_version(f"{folder}/{teacher}")}
    version = warehouse.table("soft_labels").latest_version()
    again = run(spark, LabelConfig(zoo=zoo, warehouse=warehouse.root))
    assert "all 3 teachers have labelled these pairs" in capsys.readouterr().err
    assert again[0].run.run_id == second[0].run.run_id
    assert warehouse.table("soft_labels").latest_version() == version


@pytest.mark.slow
def test_run_that_was_cut_off_goes_on_before_a_new_teacher_is_added(spark, warehouse, zoo, sample_pairs, monkeypatch):
    table = warehouse.table("pairs")
    table.overwrite(spark.createDataFrame(sample_pairs[:40]).coalesce(1))
    config = LabelConfig(zoo=zoo, warehouse=warehouse.root, teachers="one", chunks=2, side_by_side="never")
    complete_chunk = Ledger.complete_chunk

    def fail_at_the_second(self, run_, chunk, *told):
        if self.rows(run_id=run_.run_id, state=COMPLETE):
            raise RunFailedError("cut off")
        complete_chunk(self, run_, chunk, *told)

    monkeypatch.setattr(Ledger, "complete_chunk", fail_at_the_second)
    with pytest.raises(RunFailedError, match="cut off"):
        run(spark, config)
    monkeypatch.undo()
    reports = run(spark, LabelConfig(zoo=zoo, warehouse=warehouse.root, teachers="one,two", chunks=1))
    assert [sorted(name for name in report.run.settings if " " in name) for report in reports] == [
        ["teacher one"],
        ["teacher two"],
    ]
    labels = warehouse.table("soft_labels").read().toPandas()
    assert labels.groupby("teacher_id").size().to_dict() == {"one": 40, "two": 40}
    assert not labels.duplicated(["query_id", "passage_id", "teacher_id"]).any()
    states = {state.run.run_id: state.state for state in Ledger(warehouse.table("runs")).states(job="label")}
    assert list(states.values()) == [COMPLETE, COMPLETE]
    run_runs(spark, RunsConfig(warehouse=warehouse.root, remove=reports[1].run.run_id))
    labels = warehouse.table("soft_labels").read().groupBy("teacher_id").count().collect()
    assert [tuple(row) for row in labels] == [("one", 40)]


def test_rejects_name_their_teacher(spark, warehouse, zoo):
    rows = [("q1", "p1", "gasket " * 20, "a seal"), ("q1", "p2", "what is it", "a seal"), ("q2", "p1", None, "a seal")]
    warehouse.table("pairs").overwrite(
        spark.createDataFrame(rows, "query_id string, passage_id string, query string, passage string")
    )
    config = LabelConfig(zoo=zoo, warehouse=warehouse.root, teachers="one,two")
    with pytest.raises(RejectRateError, match=r"50.0% of the pairs were rejected \(2 null_query, 1 query_too_long\)"):
        run(spark, config)
    rejects = warehouse.table("rejected_pairs").read().where("error_code = 'query_too_long'").collect()
    assert [(row.query_id, row.job) for row in rejects] == [("q1", "label")]
    assert rejects[0].error_message.startswith("teacher two: the query's ")


def test_check_prints_twenty_pairs_and_labels_none(spark, warehouse, zoo, texts, tmp_path, capsys, monkeypatch):
    folder = zoo.removesuffix("/zoo.yaml")
    teachers = [
        {"id": "one", "model": f"{folder}/one", "precision": "fp32"},
        {"id": "asked", "model": f"{folder}/one", "precision": "fp32", "prompt": "is it so: ", "backend": "torch"},
        {"id": "turned", "model": f"{folder}/two", "precision": "fp32", "label": "LABEL_0"},
    ]
    (tmp_path / "zoo.yaml").write_text(yaml.safe_dump({"teachers": teachers}))
    monkeypatch.setattr("jobs.label.start_session", lambda cluster, name: spark)
    main(["--zoo", str(tmp_path / "zoo.yaml"), "--warehouse", warehouse.root, "--check", "true"])
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["one", "asked", "turned", "query", "|", "passage"]
    assert len(lines) == 20
    found = np.array([[float(one) for one in line.split()[:3]] for line in lines])
    queries, passages = texts[0][:20], texts[1][:20]
    one, two = (Scorer.load(f"{folder}/{name}", "torch", "fp32") for name in ("one", "two"))
    asked = one.score([f"is it so: {query}" for query in queries], passages)
    expected = np.stack([one.score(queries, passages), asked, 1 - two.score(queries, passages)], axis=1)
    np.testing.assert_allclose(found, expected, atol=6e-5)
    assert not warehouse.table("soft_labels").read().count()


def test_how_a_teacher_is_asked_is_part_of_its_version(zoo, tmp_path):
    """Which stands in the run's fingerprint, and beside each label."""
    plain = {"id": "two", "model": f"{zoo.removesuffix('/zoo.yaml')}/two"}
    entries = [plain, plain | {"prompt": "is it so: "}, plain | {"label": "LABEL_0"}]
    entries += [plain | {"template": "{query} {passage}"}, plain | {"template": "{query}\n{passage}"}]
    versions, settings = set(), set()
    for entry in entries:
        (tmp_path / "zoo.yaml").write_text(yaml.safe_dump({"teachers": [entry]}))
        ((teacher, checked),) = _versioned(LabelConfig(zoo=str(tmp_path / "zoo.yaml"), warehouse="w"))
        versions.add(checked.model_version)
        settings.add(_setting(teacher, checked))
    assert len(versions) == len(settings) == len(entries)
    assert model_version(plain["model"]) in versions


def test_teacher_that_the_zoo_lacks(spark, warehouse, zoo):
    with pytest.raises(ConfigError, match="has no teacher 'three'; it has one, two, ours"):
        run(spark, LabelConfig(zoo=zoo, warehouse=warehouse.root, teachers="one,three"))


def test_side_by_side_as_the_memory_allows(zoo, student_folder, monkeypatch):
    settings = (labelling.ScoringSettings(student_folder, ""),) * 2
    assert labelling.fit_in_memory(settings)
    monkeypatch.setattr(labelling, "_free_bytes", lambda: 1e5)
    assert not labelling.fit_in_memory(settings)
