"""A stage of training: its rows, its α, its steps, and the loss of a batch as one module."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mkdm.errors import ConfigError
from mkdm.model import MkdmModel
from mkdm.scoring import to_tensors
from mkdm.train.config import TrainConfig
from mkdm.train.list_loss import list_loss
from mkdm.train.losses import LabelCounts, Losses, mkdm_losses
from mkdm.train.matching import TokenMatcher, query_tokens
from mkdm.train.micro_batches import StageFeed, padded_batch, query_numbers, teacher_columns
from mkdm.train.processes import Processes
from mkdm.train.rows import NO_GOLDEN_LABEL, TrainingRows
from mkdm.train.training_set import TrainingSet

TRAIN = "train"


@dataclass(frozen=True)
class Stage:
    """One stage of a run.

    Attributes:
        name: "stage one" (soft labels alone) or "training".
        alpha: α of (5) in this stage.
        steps: steps of each epoch.
    """

    name: str
    alpha: float
    feed: StageFeed
    steps: list[int]

    @property
    def training_set(self) -> TrainingSet:
        """Where its rows come from."""
        return self.feed.training_set

    @property
    def teachers(self) -> int:
        """n, the soft headers."""
        return len(self.feed.columns)

    def labels(self, rows: TrainingRows) -> tuple[Tensor, Tensor]:
        """int64[B] golden labels, -1 for none or where the stage takes none; float32[B, n] soft ones, NaN for none."""
        golden = torch.from_numpy(rows.golden_labels.astype(np.int64))
        if not self.feed.golden:
            golden = torch.full_like(golden, NO_GOLDEN_LABEL)
        return golden, torch.from_numpy(np.ascontiguousarray(rows.soft_labels[:, list(self.feed.columns)]))

    def inputs(self, rows: TrainingRows, matching: bool, device: torch.device) -> dict[str, Tensor]:
        """What `TrainingLoss` takes of a batch."""
        template = self.training_set.template
        tensors = to_tensors(padded_batch(rows, template), device)
        golden_labels, soft_labels = (tensor.to(device) for tensor in self.labels(rows))
        tensors |= {"golden_labels": golden_labels, "soft_labels": soft_labels}
        if self.feed.whole_queries:
            tensors["query"] = torch.from_numpy(query_numbers(rows, template)).to(device)
        if matching:
            is_query, occurs = (torch.from_numpy(array).to(device) for array in query_tokens(rows, template))
            tensors |= {"is_query": is_query, "occurs": occurs}
        return tensors


class TrainingLoss(nn.Module):
    """Student and loss as one module, so that DDP sees one forward pass.

    Args:
        config: weights of the losses.
        bf16: whether the encoder runs in bf16; headers and losses are fp32.
    """

    def __init__(self, student: MkdmModel, config: TrainConfig, bf16: bool) -> None:
        super().__init__()
        self.student, self.config, self.bf16 = student, config, bf16
        self.matcher = TokenMatcher(student) if config.match_weight else None

    def forward(self, batch: dict[str, Tensor], counts: LabelCounts, alpha: float, pairs: float) -> Losses:
        """The share of a batch in a step's losses.

        Args:
            batch: of `Stage.inputs`.
            counts: the labels of the step.
            pairs: the pairs of the step.
        """
        names = ("input_ids", "attention_mask", "token_type_ids")
        inputs = {name: batch[name] for name in names if name in batch}
        golden, soft = batch["golden_labels"], batch["soft_labels"]
        share = len(batch["input_ids"]) / pairs
        with torch.autocast(self.student.device.type, torch.bfloat16, enabled=self.bf16):
            output = self.student(**inputs)
        losses = mkdm_losses(output.golden_logits, output.soft_logits, golden, soft, alpha, counts)
        total = losses.total
        if self.matcher is not None:
            total = total + self.config.match_weight * share * self.matcher.loss(batch["is_query"], batch["occurs"])
        if self.config.list_weight:
            lists = list_loss(output.golden_logits, output.soft_logits, golden, soft, batch["query"], alpha)
            total = total + self.config.list_weight * share * lists
        return losses._replace(total=total)


def teachers_of(config: TrainConfig, training_set: TrainingSet) -> list[str]:
    """The ids of the teachers to learn from.

    Raises:
        ConfigError: the training set lacks one, or α leaves nothing to learn.
    """
    if config.teachers == "none":
        chosen: list[str] = []
    elif config.teachers == "all":
        chosen = training_set.teacher_ids
    else:
        chosen = [name.strip() for name in config.teachers.split(",")]
    teacher_columns(training_set, chosen)
    if not chosen and config.stage_one_set:
        raise ConfigError(
            "--stage-one-set trains on soft labels, but there is no teacher: leave it out, or give --teachers"
        )
    if not chosen and config.alpha == 1:
        raise ConfigError("--alpha is 1, but there is no teacher to learn from: lower it, or give --teachers")
    return list(chosen)


def stages_of(
    config: TrainConfig, main_set: TrainingSet, tokenizer: Any, teacher_ids: list[str], processes: Processes
) -> list[Stage]:
    """The stages of a run: one, or with --stage-one-set two; their training sets are checked.

    Raises:
        ConfigError: a training set lacks a teacher.
        InputError: a training set is missing, changed, empty, or was encoded by another tokenizer.
    """
    planned = []
    if config.stage_one_set and config.stage_one_epochs:
        planned.append(("stage one", 1.0, TrainingSet.read(config.stage_one_set), config.stage_one_epochs))
    planned.append(("training", config.alpha, main_set, config.epochs))
    stages = []
    for name, alpha, training_set, epochs in planned:
        training_set.check_tokenizer(tokenizer)
        training_set.check_files(TRAIN)
        feed = StageFeed(
            training_set=training_set,
            split=TRAIN,
            columns=teacher_columns(training_set, teacher_ids),
            golden=alpha < 1,
            batch_size=config.batch_size,
            name=config.feed,
            workers=config.workers,
            seed=config.seed,
            rank=processes.rank,
            world=processes.world,
            whole_queries=config.list_weight > 0,
        )
        stages.append(Stage(name, alpha, feed, feed.steps_of_epochs(epochs)))
    return stages


def learning_rate(config: TrainConfig, done: int, total: int) -> float:
    """The rate of the step after `done` of `total`: it rises linearly, then falls linearly towards 0."""
    warmup = int(config.warmup_share * total)
    if done < warmup:
        return config.learning_rate * (done + 1) / warmup
    return config.learning_rate * (total - done) / max(1, total - warmup)
