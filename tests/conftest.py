"""Fixtures: one Spark session, real sample texts, and a tiny student made on the spot."""

import os

import pyarrow.parquet as pq
import pytest
import torch
from tiny_models import SAMPLE, byte_level, tiny_student, unigram, wordpiece
from transformers import PreTrainedTokenizerFast

from cluster.session import ClusterConfig, start_session
from mkdm.checkpoint import save_checkpoint

os.environ["HF_HUB_OFFLINE"] = "1"
torch.set_num_threads(1)  # quicker for models this small


@pytest.fixture(scope="session")
def spark():
    """A session as `mkdm` starts it on one machine, with what makes tests quicker."""
    session = start_session(ClusterConfig(driver_memory="2g"), "tests", {"spark.ui.enabled": "false"})
    yield session
    session.stop()


@pytest.fixture(scope="session")
def sample_pairs() -> list[dict[str, str]]:
    """300 real pairs of the shipped sample, of all four sources."""
    return pq.read_table(SAMPLE / "pairs.parquet").to_pylist()[::10][:300]


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
