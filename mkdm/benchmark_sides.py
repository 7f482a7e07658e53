"""One side of `mkdm benchmark`, alone in its process: `python -m mkdm.benchmark_sides --side scorer …`.

Prints one line of JSON with what it measured.
"""

import json
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow.parquet as pq
import torch
from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

from mkdm.checkpoint import load_checkpoint, save_checkpoint
from mkdm.config import parse_config, run_command
from mkdm.errors import ModelError
from mkdm.model import MkdmConfig, MkdmModel
from mkdm.scorer import Scorer

WARM_UP = 64


@dataclass(frozen=True)
class SideConfig:
    """Measure one side, or make a random student to measure with."""

    side: Literal["scorer", "cross_encoder", "make_student"]
    """scorer: `Scorer.score`; cross_encoder: `sentence_transformers.CrossEncoder.predict` with the same weights."""
    model: str
    """Folder of the student; for make_student, the one whose tokenizer and length the random one gets."""
    pairs: str = ""
    """Parquet file with query and passage."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of the scorer."""
    hidden_size: int = 768
    """Hidden size of the random student; 64 to a head, 4 × as much in the feed-forward layers."""
    output: str = ""
    """Folder for the random student."""


def cross_encoder(model: str) -> Callable[[list[str], list[str]], Any]:
    """`CrossEncoder.predict`, batch size 32, over the student's own encoder weights.

    Raises:
        ModelError: the student's encoder is no BERT.
    """
    from sentence_transformers import CrossEncoder

    student, tokenizer, _ = load_checkpoint(model)
    config = student.encoder.config
    if not isinstance(config, BertConfig):
        raise ModelError(f"the encoder at {model} is {type(config).__name__}; this side measures BERT students")
    config.num_labels = 1
    plain = BertForSequenceClassification(config)
    plain.bert.load_state_dict(student.encoder.state_dict(), strict=False)  # all but the pooler, which students lack
    with tempfile.TemporaryDirectory() as folder:
        plain.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        encoder = CrossEncoder(folder, max_length=student.max_length, local_files_only=True)
    return lambda queries, passages: encoder.predict(list(zip(queries, passages, strict=True)), batch_size=32)


def make_student(config: SideConfig) -> None:
    """Write a random 3-layer BERT student of the given hidden size."""
    like = MkdmConfig.from_pretrained(config.model)
    tokenizer = AutoTokenizer.from_pretrained(config.model, local_files_only=True)
    encoder_config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.hidden_size,
        num_hidden_layers=3,
        num_attention_heads=config.hidden_size // 64,
        intermediate_size=4 * config.hidden_size,
    )
    torch.manual_seed(0)
    student = MkdmModel(MkdmConfig(encoder_config=encoder_config, max_length=like.max_length))
    save_checkpoint(student, tokenizer, config.output)


def measure(config: SideConfig) -> dict[str, float | str]:
    """Load, warm up, then time all pairs once."""
    started = time.perf_counter()
    precision = "fp32"
    if config.side == "scorer":
        scorer = Scorer.load(config.model, precision=config.precision)
        score: Callable[[list[str], list[str]], Any] = scorer.score
        precision = scorer.backend.precision
    else:
        score = cross_encoder(config.model)
    table = pq.read_table(config.pairs, columns=["query", "passage"]).to_pydict()
    queries, passages = table["query"], table["passage"]
    score(queries[:WARM_UP], passages[:WARM_UP])
    ready = time.perf_counter()
    score(queries, passages)
    seconds = time.perf_counter() - ready
    return {
        "precision": precision,
        "load_seconds": ready - started,
        "pairs_per_s": len(queries) / seconds,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Measure and print."""
    (config,) = parse_config("python -m mkdm.benchmark_sides", argv, SideConfig)
    if config.side == "make_student":
        make_student(config)
    else:
        print(json.dumps(measure(config)))


if __name__ == "__main__":
    run_command(main)
