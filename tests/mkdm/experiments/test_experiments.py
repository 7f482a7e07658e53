"""The runs of a small plan, one task after the other in this process."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from experiment_plans import PLAN, RUN, write_inputs, write_plan
from training_sets import write_training_set

from mkdm.errors import ConfigError, InputError
from mkdm.evaluation.metrics import accuracy, auc
from mkdm.experiments.loop import ExperimentsConfig
from mkdm.experiments.plan import Plan
from mkdm.experiments.results import GoldenSplit, results
from mkdm.experiments.tasks import Workplace, score_set, tasks_of
from mkdm.model.checkpoint import load_checkpoint
from mkdm.train.training_set import TrainingSet


def do_all(config: ExperimentsConfig) -> None:
    for task in tasks_of(Plan.read(config.plan), config.place(), None):
        task.function(*task.arguments)


@pytest.fixture(scope="module")
def config(tmp_path_factory, tokenizers) -> ExperimentsConfig:
    folder = tmp_path_factory.mktemp("experiments")
    config = ExperimentsConfig(write_plan(folder / "plan.yaml"), **write_inputs(folder, tokenizers["bert"]))
    do_all(config)
    return config


def test_figures_are_those_of_the_students(config):
    place, golden = config.place(), GoldenSplit.read(config.place().sets["test"])
    found = [row for table, row in results(config) if table == "experiments" and row["split"] == "test"]
    pooled = {f"{row['run']}-{row['seed']}": row for row in found if row["source"] == "all"}
    assert len(pooled) == 9  # 7 runs and 2 ensembles
    test_set, labelled = TrainingSet.read(place.sets["test"]), golden.golden_labels >= 0
    scores = {
        name: score_set(place.run_folder(name), test_set) for name in ("mkdm-1", "1-o-1-bge-a-1", "golden-1", "bge-a-0")
    }
    scores["ensemble-1"] = (scores["1-o-1-bge-a-1"] + scores["golden-1"]) / 2
    for name, given in scores.items():
        row = pooled[name]
        assert row["auc"] == pytest.approx(auc(golden.golden_labels[labelled], given[labelled]), abs=1e-3)
        assert row["accuracy"] == pytest.approx(accuracy(golden.golden_labels[labelled], given[labelled]), abs=0.02)
        assert row["pairs"] == labelled.sum()
        assert row["auc_low"] <= row["auc"] <= row["auc_high"]
    assert pooled["ensemble-0"]["parameters"] == 2 * pooled["golden-0"]["parameters"] + 33  # one has a soft header
    assert sum(row["pairs"] for row in found if row["run"] == "bge-a" and row["source"] != "all") == labelled.sum()


def test_teachers_label_the_sets(config):
    place = config.place()
    base = TrainingSet.read(place.sets["labelled"])
    made = TrainingSet.read(place.set_folder("labelled", True))
    labels = np.load(place.label_file("labelled", Plan.read(config.plan).run("bge-a")))
    np.testing.assert_allclose(labels, score_set(place.run_folder("bge-a-0"), base), atol=1e-5)
    assert (made.teacher_ids, made.teacher_versions) == (["bge-a"], [load_checkpoint(place.run_folder("bge-a-0"))[2]])
    assert made.rows("train") == 160
    assert base.fingerprint != made.fingerprint
    made.check_files("train")


def test_what_is_done_is_not_done_again(config):
    kept = [*Path(config.output).glob("runs/*/model.safetensors"), *Path(config.output).glob("scores/*.npz")]
    before = {path: path.stat().st_mtime_ns for path in kept}
    assert len(before) == 14
    do_all(config)
    assert {path: path.stat().st_mtime_ns for path in kept} == before


def test_figures_of_other_sets_are_refused(config, tmp_path):
    write_training_set(tmp_path / "other", {"test": [50]}, 24)
    manifest = tmp_path / "other" / "manifest.json"
    manifest.write_text(manifest.read_text().replace("f" * 32, "e" * 32))
    sets = config.sets.rpartition("=")[0] + f"={tmp_path / 'other'}"
    with pytest.raises(InputError, match=r"npz was measured on other sets than --sets names"):
        list(results(ExperimentsConfig(config.plan, sets, config.encoders, config.output)))


def test_a_teacher_that_was_trained_anew_labels_anew(config, tmp_path):
    place, plan = config.place(), Plan.read(config.plan)
    before = place.label_file("labelled", plan.run("bge-a"))
    moved = Workplace(str(shutil.copytree(config.output, tmp_path / "output")), config.sets, config.encoders)
    shutil.rmtree(moved.run_folder("bge-a-0"))
    shutil.copytree(moved.run_folder("golden-1"), moved.run_folder("bge-a-0"))
    after = moved.label_file("labelled", plan.run("bge-a"))
    assert after.name != before.name
    assert not after.exists()


def test_a_run_that_was_cut_off_has_its_steps_and_no_figures(config, tmp_path):
    plan = write_plan(tmp_path / "plan.yaml", runs=PLAN["runs"] | {"late": RUN})
    folder = config.place().run_folder("late-0")
    folder.mkdir(parents=True)
    log = (config.place().run_folder("golden-0") / "training_log.jsonl").read_text().splitlines()
    folder.joinpath("training_log.jsonl").write_text("\n".join(log[:5]) + "\n")
    late = [
        (table, row)
        for table, row in results(ExperimentsConfig(plan, config.sets, config.encoders, config.output))
        if row["run"] == "late"
    ]
    assert [row["step"] for table, row in late if table == "experiment_steps"] == [4]
    assert [row["state"] for table, row in late if table == "experiments"] == ["cut off after step 4"]


def test_teachers_of_the_sets_as_they_are_given(config, tmp_path):
    """The sets have labels of bge and e5; nothing is labelled anew."""
    runs = {"both": RUN | {"teachers": ["bge", "e5"]}}
    plan = write_plan(tmp_path / "plan.yaml", runs=runs, ensembles={}, latency=[])
    given = ExperimentsConfig(plan, config.sets, config.encoders, str(tmp_path / "output"))
    do_all(given)
    assert load_checkpoint(given.place().run_folder("both-0"))[0].model.config.teacher_ids == ["bge", "e5"]
    assert not (tmp_path / "output" / "labels").exists()


def test_another_set_chooses_the_best_checkpoint(config, tmp_path):
    """As where a source is left out of it."""
    other = tmp_path / "valid-without"
    write_training_set(other, {"valid": [70]}, 24, tokenizer=TrainingSet.read(config.place().sets["valid"]).tokenizer)
    runs = {"a": RUN | {"valid_set": "valid-without"}, "b": RUN}
    plan = write_plan(tmp_path / "plan.yaml", runs=runs, ensembles={}, latency=[])
    sets = f"{config.sets},valid-without={other}"
    place = ExperimentsConfig(plan, sets, config.encoders, str(tmp_path / "output"))
    do_all(place)
    figures = {}
    for name in ("a-0", "b-0"):
        state = place.place().run_folder(name) / "training_state" / "finished.json"
        figures[name] = json.loads(state.read_text())["identity"]["valid set"]
    assert figures["a-0"] == TrainingSet.read(str(other)).fingerprint
    assert figures["b-0"] == TrainingSet.read(config.place().sets["valid"]).fingerprint
    assert len(np.load(place.place().scores_file("a-0"))["valid"]) == 120  # measured on the whole set


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"runs": {"a": RUN | {"settings": {"lerning_rate": 1}}}}, r"'lerning_rate' of a is no setting of mkdm train"),
        ({"runs": {"a": RUN | {"teachers": ["b"]}, "b": RUN}}, r"a learns from b, which must stand before it"),
        ({"runs": {"a": RUN}, "latency": ["z"]}, r"there is no run 'z'; the runs are a"),
        ({"runs": {"a": {"encoder": "tiny"}}}, r"is no plan of runs: .*training_set"),
        ({"runs": {"a": RUN | {"encoder": "big"}}}, r"a starts from 'big': name its folder with --encoders"),
        ({"runs": {"a": RUN | {"valid_set": "less"}}}, r"the plan uses the set 'less': name its folder with --sets"),
        ({"runs": {"a": RUN | {"training_set": "more"}}}, r"the plan uses the set 'more': name its folder with --sets"),
    ],
)
def test_a_plan_at_fault_starts_nothing(config, tmp_path, changes, message):
    changes = {"ensembles": {}, "latency": []} | changes
    plan = write_plan(tmp_path / "plan.yaml", **changes)
    with pytest.raises(ConfigError, match=message):
        do_all(ExperimentsConfig(plan, config.sets, config.encoders, str(tmp_path / "output")))
    assert not (tmp_path / "output").exists()


def test_names_without_folders(tmp_path):
    with pytest.raises(ConfigError, match=r"--sets is 'labelled'; it takes NAME=FOLDER"):
        ExperimentsConfig("plan.yaml", "labelled", "tiny=x", str(tmp_path))
