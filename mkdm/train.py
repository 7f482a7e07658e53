"""Fine-tunes a student on golden labels: `mkdm train`, which equals `python -m mkdm.train`.

The seed of the full trainer: one loop for every kind of student, of which this version feeds golden labels alone.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tqdm import tqdm
from transformers import get_linear_schedule_with_warmup

from mkdm.batching import token_budget_batches
from mkdm.checkpoint import load_tokenizer, save_checkpoint
from mkdm.cls_only import keep_cls_only
from mkdm.config import parse_config, run_command
from mkdm.encoding import Batch, PairEncoder
from mkdm.errors import ConfigError
from mkdm.feed import LabelledPairs, read_labelled_pairs, training_steps
from mkdm.matching import TokenMatcher
from mkdm.metrics import accuracy, auc
from mkdm.model import MkdmModel
from mkdm.torch_backend import fastest_precision, to_tensors


@dataclass(frozen=True)
class TrainConfig:
    """Fine-tune the first layers of a pretrained encoder on golden labels.

    Raises:
        ConfigError: a number outside its range.
    """

    encoder: str
    """Folder of the pretrained encoder to start from."""
    train_pairs: str
    """Parquet file of labelled pairs to train on: query_id, query, passage, golden label."""
    valid_pairs: str
    """Parquet file of labelled pairs by which the best checkpoint is chosen."""
    output: str
    """Folder for the student: weights, tokenizer, training log."""
    golden_label_column: str = "golden_label"
    """Column of the 0/1 golden labels in both files."""
    num_layers: int = 3
    """k, the layers of the encoder to keep."""
    max_length: int = 256
    """Tokens of a pair, special tokens included."""
    epochs: int = 1
    """Passes over the training pairs."""
    train_query_share: float = 1.0
    """Share of the training queries to take, by a stable hash."""
    valid_query_share: float = 1.0
    """Share of the validation queries to take, by a stable hash."""
    learning_rate: float = 3e-5
    """Peak learning rate of AdamW."""
    warmup_share: float = 0.1
    """Share of the steps over which the learning rate rises; it then falls linearly to 0."""
    dropout: float = 0.1
    """Dropout in encoder and headers; on a CPU, drawing it takes as long as the rest of the step."""
    match_weight: float = 0.0
    """Weight of an auxiliary loss: which query tokens occur in the passage, told from the layer before the last."""
    weight_decay: float = 0.01
    """Weight decay of matrices; biases and norms have none."""
    batch_size: int = 256
    """Pairs of one optimiser step."""
    token_budget: int = 4096
    """Padded tokens of one forward and backward pass; a step accumulates as many as it needs."""
    clip_norm: float = 1.0
    """Gradients are scaled down to this norm."""
    evaluate_every: int = 100
    """Steps between validations; the student of the highest validation AUC is kept."""
    seed: int = 0
    """Decides initial headers, order of the pairs and dropout."""

    def __post_init__(self) -> None:
        for name in ("train_query_share", "valid_query_share"):
            if not 0 < getattr(self, name) <= 1:
                raise ConfigError(f"--{name.replace('_', '-')} is {getattr(self, name)}; it must lie in (0, 1]")
        for name in ("num_layers", "max_length", "epochs", "batch_size", "token_budget", "evaluate_every"):
            if getattr(self, name) < 1:
                raise ConfigError(f"--{name.replace('_', '-')} is {getattr(self, name)}; it must be at least 1")


def train(config: TrainConfig) -> dict[str, Any]:
    """Train a student and write it, with the checkpoint of the highest validation AUC, to `config.output`.

    Returns:
        The validation figures of the kept checkpoint.

    Raises:
        InputError: a file is missing, lacks a column, or has other golden labels than both 0 and 1.
        ModelError: the encoder or its tokenizer does not load.
    """
    torch.manual_seed(config.seed)
    student = MkdmModel.from_encoder(config.encoder, config.num_layers, max_length=config.max_length)
    tokenizer = load_tokenizer(config.encoder)
    keep_cls_only(student.encoder)
    for module in student.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = config.dropout
    encoder = PairEncoder(tokenizer, config.max_length)
    files = (config.train_pairs, config.train_query_share), (config.valid_pairs, config.valid_query_share)
    training, validation = (read_labelled_pairs(p, encoder, config.golden_label_column, share) for p, share in files)

    student.to(torch.device("cuda" if torch.cuda.is_available() else "cpu"))  # type: ignore[arg-type]
    matcher = TokenMatcher(student, encoder) if config.match_weight else None
    groups = _parameter_groups([student, *([matcher] if matcher else [])], config.weight_decay)
    optimiser = torch.optim.AdamW(groups, lr=config.learning_rate)
    steps = config.epochs * -(-len(training) // config.batch_size)
    schedule = get_linear_schedule_with_warmup(optimiser, int(config.warmup_share * steps), steps)
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    best: dict[str, Any] = {"auc": -1.0}
    started, step, seen = time.monotonic(), 0, 0
    with (output / "training_log.jsonl").open("w") as log, tqdm(total=steps, unit="step", disable=None) as bar:
        log.write(json.dumps({"config": asdict(config), "pairs": len(training), "valid": len(validation)}) + "\n")
        for epoch in range(config.epochs):
            for micro_batches in training_steps(
                training, encoder, config.batch_size, config.token_budget, config.seed, epoch
            ):
                loss = _train_step(student, micro_batches, matcher, config.match_weight)
                torch.nn.utils.clip_grad_norm_(student.parameters(), config.clip_norm)
                optimiser.step()
                schedule.step()
                optimiser.zero_grad(set_to_none=True)
                step, seen = step + 1, seen + sum(len(labels) for _, labels in micro_batches)
                seconds = time.monotonic() - started
                bar.update()
                bar.set_postfix(loss=f"{loss:.4f}", pairs_per_s=f"{seen / seconds:.0f}")
                record = {"step": step, "loss": round(loss, 5), "seconds": round(seconds, 1), "pairs_seen": seen}
                if step % config.evaluate_every == 0 or step == steps:
                    record |= validate(student, validation, encoder, config.token_budget)
                    if record["auc"] > best["auc"]:
                        version = save_checkpoint(student, tokenizer, output, torch.float16)
                        best = {**record, "model_version": version}
                log.write(json.dumps(record) + "\n")
                log.flush()
    return best


def _train_step(
    student: MkdmModel,
    micro_batches: list[tuple[Batch, NDArray[np.int64]]],
    matcher: TokenMatcher | None,
    match_weight: float,
) -> float:
    """Accumulate the gradients of one step's mean loss, micro-batch by micro-batch; returns the golden loss (2)."""
    student.train()
    pairs = sum(len(labels) for _, labels in micro_batches)
    bf16 = fastest_precision(student.device) == "bf16"
    step_loss = 0.0
    for batch, golden_labels in micro_batches:
        with torch.autocast(student.device.type, torch.bfloat16, enabled=bf16):
            golden_logits = student(**to_tensors(batch, student.device)).golden_logits
        labels = torch.from_numpy(golden_labels).to(student.device)
        golden = F.cross_entropy(golden_logits.float(), labels, reduction="sum") / pairs  # (2)
        loss = golden if matcher is None else golden + match_weight * matcher.loss(batch) * len(labels) / pairs
        loss.backward()
        step_loss += float(golden.detach())
    return step_loss


@torch.inference_mode()
def validate(student: MkdmModel, labelled: LabelledPairs, encoder: PairEncoder, token_budget: int) -> dict[str, Any]:
    """Accuracy and AUC of the student's output (6) on labelled pairs, pooled and by source."""
    student.eval()
    scores = np.zeros(len(labelled), dtype=np.float32)
    for rows in token_budget_batches(labelled.pairs.lengths, token_budget):
        batch = encoder.batch(labelled.pairs, rows)
        scores[rows] = student(**to_tensors(batch, student.device)).score.float().cpu().numpy()
    labels, sources = labelled.golden_labels, np.array(labelled.sources)
    by_source = {source: auc(labels[sources == source], scores[sources == source]) for source in sorted(set(sources))}
    return {"auc": auc(labels, scores), "accuracy": accuracy(labels, scores), "auc_by_source": by_source}


def _parameter_groups(modules: list[torch.nn.Module], weight_decay: float) -> list[dict[str, Any]]:
    parameters = [parameter for module in modules for parameter in module.parameters()]
    matrices = [parameter for parameter in parameters if parameter.dim() > 1]
    vectors = [parameter for parameter in parameters if parameter.dim() <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def main(argv: Sequence[str] | None = None) -> None:
    """Train from the command line and print the kept student's validation figures."""
    (config,) = parse_config("mkdm train", argv, TrainConfig)
    best = train(config)
    print(json.dumps(best, indent=2))
    print(f"student saved in {config.output}")


if __name__ == "__main__":
    run_command(main)
