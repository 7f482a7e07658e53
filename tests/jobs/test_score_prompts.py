"""`mkdm score` asks a model as it is told to: prompt, template and label, by the names that a zoo has for them."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_teachers import chat_tokenizer, save_generator

from jobs.score import ScoreConfig, run
from mkdm.config import parse_config
from mkdm.errors import ConfigError
from mkdm.model import Prompting, model_version
from mkdm.scoring import Scorer

TEMPLATE = "A: {query}\nB: {passage}\n{prompt}"
PROMPT = "Does B answer A?"


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
