"""Fixtures: one Spark session, real sample texts, a warehouse with them, and a tiny student made on the spot."""

import os
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch
from connect_server import connect_server, connect_session
from tiny_models import SAMPLE, byte_level, tiny_student, unigram, wordpiece
from transformers import PreTrainedTokenizerFast

from cluster.session import ClusterConfig, start_session
from jobs.engine import Warehouse
from jobs.engine.schemas import TABLES
from mkdm.model.checkpoint import save_checkpoint

PAIRS = "query_id string, passage_id string, query string, passage string"
os.environ["HF_HUB_OFFLINE"] = "1"
torch.set_num_threads(1)  # quicker for models this small


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow, of several minutes")
    parser.addoption("--connect", action="store_true", help="all tests with one session of a Spark Connect server")


def pytest_collection_modifyitems(config, items):
    marks = {"slow": "slow: needs --slow"} if not config.getoption("--slow") else {}
    if config.getoption("--connect"):
        marks["classic"] = "looks into the JVM of a classic session"
    for item in items:
        for mark, reason in marks.items():
            if item.get_closest_marker(mark):
                item.add_marker(pytest.mark.skip(reason=reason))


QUICK = {
    "spark.ui.enabled": "false",
    "spark.sql.codegen.factoryMode": "NO_CODEGEN",  # tables here are tiny
    "spark.sql.codegen.wholeStage": "false",
    "spark.sql.adaptive.enabled": "false",  # one job a query, not one a stage; on where drivers are processes
    "spark.sql.shuffle.partitions": "1",
}


@pytest.fixture(scope="session")
def spark(request, tmp_path_factory):
    """A session as `mkdm` starts it on one machine, with what makes tests quicker; with --connect, a server's."""
    if request.config.getoption("--connect"):
        with connect_server(tmp_path_factory.mktemp("server"), QUICK) as url, connect_session(url) as session:
            yield session
        return
    session = start_session(ClusterConfig(driver_memory="2g"), "tests", QUICK)
    yield session
    session.stop()


@pytest.fixture(scope="session")
def sample_pairs() -> list[dict[str, str]]:
    """300 real pairs of the shipped sample, of all four sources."""
    return pq.read_table(SAMPLE / "pairs.parquet").to_pylist()[::10][:300]


@pytest.fixture(scope="session")
def tables(spark, tmp_path_factory, sample_pairs) -> Path:
    """A warehouse with the engine's tables, empty, and 300 real pairs at version 0. To be copied, not used."""
    warehouse = Warehouse(spark, str(tmp_path_factory.mktemp("tables") / "warehouse"))
    for name, kind in TABLES.items():
        if not kind.built:
            warehouse.output(name)
    pairs = spark.createDataFrame(sample_pairs, PAIRS).coalesce(1).write.format("delta")
    pairs.option("delta.enableChangeDataFeed", "true").save(warehouse.table("pairs").location)
    return Path(warehouse.root)


@pytest.fixture
def warehouse(spark, tmp_path, tables) -> Warehouse:
    """A warehouse of the test's own with 300 real pairs at version 0."""
    return Warehouse(spark, str(shutil.copytree(tables, tmp_path / "warehouse")))


@pytest.fixture(scope="session")
def texts(sample_pairs) -> tuple[list[str], list[str]]:
    """Their queries and their passages."""
    return [pair["query"] for pair in sample_pairs], [pair["passage"] for pair in sample_pairs]


@pytest.fixture(scope="session")
def tokenizers(texts) -> dict[str, PreTrainedTokenizerFast]:
    """By family, a small tokenizer of its kind, trained on the sample's texts."""
    corpus = [*texts[0], *texts[1]]
    bert = wordpiece(corpus)
    return {
        "bert": bert,
        "electra": bert,
        "distilbert": wordpiece(corpus, ["input_ids", "attention_mask"]),
        "roberta": byte_level(corpus),
        "xlm-roberta": unigram(corpus),
    }


@pytest.fixture(scope="session")
def student_folder(tmp_path_factory, tokenizers) -> str:
    """A saved tiny BERT student with two soft headers."""
    folder = tmp_path_factory.mktemp("models") / "student"
    save_checkpoint(tiny_student("bert", tokenizers["bert"], ("bge", "e5")), tokenizers["bert"], folder)
    return str(folder)
