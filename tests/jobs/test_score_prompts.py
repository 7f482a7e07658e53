"""`mkdm score` asks a model as it is told to: prompt, template and label, by the names that a zoo has for them."""

from dataclasses import replace

import numpy as np
import pytest
import yaml
from tiny_models import spread_scores
from tiny_models import tiny_config as bert_config
from tiny_teachers import chat_tokenizer, save_generator
from transformers import AutoModelForSequenceClassification

from jobs import run as whole
from jobs.label import LabelConfig, _versioned
from jobs.run import RunConfig
from jobs.score import ScoreConfig, checked_model, run
from mkdm.config import parse_config
from mkdm.errors import ConfigError, ModelError
from mkdm.model import Prompting, model_version
from mkdm.scoring import Scorer

TEMPLATE = "A: {query}\nB: {passage}\n{prompt}"
PROMPT = "Does B answer A?"


@pytest.fixture(scope="module")
def teacher(tmp_path_factory, tokenizers) -> str:
    folder = tmp_path_factory.mktemp("teacher")
    config = bert_config("bert", tokenizers["bert"])
    config.num_labels = 2
    model = spread_scores(AutoModelForSequenceClassification.from_config(config))
    model.save_pretrained(folder)
    tokenizers["bert"].save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def generator(tmp_path_factory, texts) -> str:
    """One that answers in words, and that nothing tells how to ask."""
    folder = tmp_path_factory.mktemp("generator")
    save_generator(folder, "llama", chat_tokenizer(texts[1]), max_position_embeddings=300)
    return str(folder)


def test_model_is_asked_by_the_flags(spark, warehouse, generator, texts, tmp_path, capsys):
    pairs = warehouse.table("pairs").read().limit(20)
    pairs.write.parquet(str(tmp_path / "pairs"))
    told = {"prompt": PROMPT, "template": TEMPLATE, "label": "Yes"}
    flags = [f"--{name}={value}" for name, value in told.items()]
    flags += [f"--model={generator}", f"--warehouse={warehouse.root}", f"--pairs={tmp_path / 'pairs'}"]
    (config,) = parse_config("mkdm score", [*flags, "--precision=fp32", "--chunks=1"], ScoreConfig)
    report = run(spark, config)
    found = warehouse.table("scores").read().toPandas().set_index(["query_id", "passage_id"])["score"]
    rows = spark.read.parquet(str(tmp_path / "pairs")).collect()
    scorer = Scorer.load(generator, "torch", "fp32", prompting=Prompting(**told))
    expected = scorer.score([row["query"] for row in rows], [row["passage"] for row in rows])
    assert np.ptp(expected) > 1e-3
    np.testing.assert_allclose(found[[(row.query_id, row.passage_id) for row in rows]], expected, rtol=0, atol=1e-5)
    assert told.items() <= report.run.settings.items()
    assert report.run.model_version == scorer.model_version != model_version(generator)
    capsys.readouterr()
    version = warehouse.table("scores").latest_version()
    assert run(spark, config).run.run_id == report.run.run_id
    assert warehouse.table("scores").latest_version() == version
    with pytest.raises(ConfigError, match="prompt: Does B answer A\\? → Is A in B\\?"):
        run(spark, replace(config, prompt="Is A in B?", run_id=report.run.run_id))


def test_version_is_that_of_a_zoos_entry_that_says_the_same(teacher, tmp_path):
    versions = set()
    for told in ({}, {"prompt": "is it so: "}, {"template": "{query} {passage}"}, {"label": "LABEL_0"}):
        entry = {"id": "one", "model": teacher, **told}
        (tmp_path / "zoo.yaml").write_text(yaml.safe_dump({"teachers": [entry]}))
        ((_, labelling),) = _versioned(LabelConfig(zoo=str(tmp_path / "zoo.yaml"), warehouse="w"))
        scoring = checked_model(ScoreConfig(model=teacher, **told))
        assert scoring == labelling
        versions.add(scoring.model_version)
    assert len(versions) == 4
    assert model_version(teacher) in versions


def test_what_does_not_fit_is_refused_before_a_session_is_asked(teacher, generator, student_folder):
    for model, told, message in (
        (student_folder, {"prompt": PROMPT}, "is a student of ours, which takes no prompt, template or label"),
        (f"{teacher},{student_folder}", {"label": "1"}, "is a student of ours, which takes no prompt"),
        (teacher, {"prompt": PROMPT, "template": "{query} {passage}"}, "has no place for its prompt"),
        (teacher, {"template": "chat"}, "has no chat template .*; as a flag of mkdm score"),
        (teacher, {"label": "relevant"}, r"has no label 'relevant' .*; it has 0 \(LABEL_0\), 1 \(LABEL_1\)"),
        (generator, {}, "give the label that means relevant, one of yes, Yes,.*; as a flag of mkdm score, or in its"),
        (generator, {"label": "Yes"}, "give a template .*; as a flag of mkdm score, or in its entry of a zoo"),
    ):
        with pytest.raises(ModelError, match=message) as refused:
            run(None, ScoreConfig(model=model, **told))
        assert "\n" not in str(refused.value)
    with pytest.raises(ConfigError, match="IR files answer for the model's own label"):
        run(None, ScoreConfig(model=teacher, label="LABEL_0", backend="openvino"))
    with pytest.raises(ConfigError, match="--template is empty: leave it out"):
        ScoreConfig(model=teacher, template="")


def test_settings_of_mkdm_run_have_them(teacher, tmp_path):
    told = {"prompt": PROMPT, "template": TEMPLATE, "label": "1"}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump({"score": told}))
    _, score, _ = whole._configs(RunConfig(teacher, "W", str(tmp_path / "settings.yaml")))
    assert score.prompting == Prompting(**told)
