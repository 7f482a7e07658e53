"""Trains teachers and students: `mkdm train`, which equals `python -m mkdm.train`, and `torchrun -m mkdm.train`.

One loop for all: a teacher (all layers, no teacher of its own), a student on golden labels, one of one teacher (1-o-1),
MKDM with n teachers, and TS-MKDM, whose first stage learns soft labels alone.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mkdm.config import parse_config
from mkdm.errors import TrainingError
from mkdm.model import MkdmModel, folder_of, keep_cls_only, load_tokenizer, model_version, save_checkpoint
from mkdm.scoring import fastest_precision
from mkdm.train.config import ELSEWHERE, SEPARATE, TrainConfig
from mkdm.train.losses import LabelCounts
from mkdm.train.micro_batches import micro_batches
from mkdm.train.processes import Processes
from mkdm.train.registering import register_student, registration_of
from mkdm.train.rows import TrainingRows
from mkdm.train.separate_rows import cut_passages, separation_of
from mkdm.train.stage import Stage, TrainingLoss, learning_rate, stages_of, teachers_of
from mkdm.train.state import StateFolder, restore, training_tensors
from mkdm.train.tracking import Tracker
from mkdm.train.training_set import TrainingSet
from mkdm.train.validation import Validation

__all__ = ["TrainConfig", "main", "train"]


@dataclass
class Position:
    """How far a run has come; what a state holds besides tensors.

    Attributes:
        stage: number of the stage.
        epoch: of the stage, from 0.
        epoch_step: steps of the epoch that are done.
        step: steps of the run that are done.
        best: the record of the best validation of the stage; empty before the first.
        best_folder: where its student is.
        waited: validations since then.
        ended: whether the stage is at its end.
    """

    stage: int = 0
    epoch: int = 0
    epoch_step: int = 0
    step: int = 0
    pairs_seen: int = 0
    seconds: float = 0.0
    waited: int = 0
    ended: bool = False
    best: dict[str, Any] = field(default_factory=dict)
    best_folder: str = ""
    mlflow_run: str | None = None


def train(config: TrainConfig) -> dict[str, Any]:
    """Train, and write the checkpoint of the highest validation AUC to `config.output`.

    Killed at any moment and called again with the same settings, it goes on from its last state, in mid-epoch, with the
    batches that it would have seen; called again when it is finished, it does nothing.

    Returns:
        The validation figures of the kept checkpoint.

    Raises:
        ConfigError: a setting that cannot work, a teacher that the training set lacks, or an output of another run.
        InputError: a training set is missing, changed, empty, or was encoded by another tokenizer.
        ModelError: the encoder or its tokenizer does not load.
        TrainingError: the loss is no number, or a state could not be written; the last good state stays.
    """
    registration = registration_of(config)
    with Processes() as processes:
        run = _Run(config, processes)
        best = run.complete()
        if registration is not None and processes.first:
            print(f"registered as {register_student(config, registration, best, run.at.mlflow_run)}")
        return best


class _Run:
    def __init__(self, config: TrainConfig, processes: Processes) -> None:
        self.config, self.processes = config, processes
        encoder = folder_of(config.encoder)
        tokenizer = load_tokenizer(encoder)
        main_set = TrainingSet.read(config.training_set)
        teacher_ids = teachers_of(config, main_set)
        self.stages = stages_of(config, main_set, tokenizer, teacher_ids, processes)
        valid_set = TrainingSet.read(config.valid_set or config.training_set)
        valid_set.check_tokenizer(tokenizer)
        validation = Validation.read(valid_set, config, processes)
        torch.manual_seed(config.seed)  # the same headers on every rank
        layers = None if config.num_layers == "all" else int(config.num_layers)
        separation = separation_of(config, tokenizer)
        self.student = MkdmModel.from_encoder(
            encoder, layers, tuple(teacher_ids), config.alpha, main_set.max_length, separation
        )
        self.validation = replace(
            validation, rows=cut_passages(validation.rows, self.student.config, valid_set.template)
        )
        if config.random_start:
            self.student = MkdmModel(self.student.config)  # type: ignore[arg-type]
        self.tokenizer = tokenizer
        keep_cls_only(self.student.encoder)
        for module in self.student.modules():
            if isinstance(module, nn.Dropout):
                module.p = config.dropout
        self.student.to(processes.device)  # type: ignore[arg-type]
        bf16 = (fastest_precision(processes.device) if config.precision == "auto" else config.precision) == "bf16"
        if bf16 and processes.device.type == "cpu":  # where torch's fused kernel is slow backwards
            self.student.encoder.set_attn_implementation("eager")
        self.loss = TrainingLoss(self.student, config, bf16)
        self.optimiser = torch.optim.AdamW(_groups(self.loss, config.weight_decay), lr=config.learning_rate, fused=True)
        left_out = ELSEWHERE if config.separate_layers else (*ELSEWHERE, *SEPARATE)
        chosen = {name: str(value) for name, value in asdict(config).items() if name not in left_out}
        sets = {"valid set": valid_set.fingerprint} | {
            stage.name: stage.training_set.fingerprint for stage in self.stages
        }
        places = ("encoder", "training_set", "valid_set", "stage_one_set")  # known by content, wherever they lie
        identity = {name: value for name, value in chosen.items() if name not in places} | sets
        identity |= {"encoder": model_version(encoder), "processes": str(processes.world)}
        self.state = StateFolder(Path(config.output), identity)
        self.settings = {"config": asdict(config), "processes": processes.world, "pairs": main_set.rows("train")}
        self.at = Position()

    def complete(self) -> dict[str, Any]:
        """Do what is missing of the run."""
        if self.processes.first:
            self.state.prepare()
        self.processes.wait()
        finished = self.state.finished()
        if finished is not None:
            if self.processes.first:
                print(f"the run in {self.config.output} is finished: nothing to do")
            return finished
        saved = self.state.newest()
        torch.manual_seed(self.config.seed + self.processes.rank)  # other dropout on every rank
        if saved is not None:
            content, tensors = saved
            self.at = Position(**{name: content[name] for name in Position.__dataclass_fields__})
            restore(self.loss, self.optimiser, tensors)
            if not self.processes.first:  # the saved generator is that of the first
                torch.manual_seed((self.config.seed + self.processes.rank) * 1_000_003 + self.at.step)
        trained = self.processes.wrap(self.loss)
        total = sum(sum(stage.steps) for stage in self.stages)
        with Tracker(
            Path(self.config.output, "training_log.jsonl"),
            self.settings,
            total,
            self.at.step,
            self.config.mlflow,
            self.config.mlflow_experiment,
            self.at.mlflow_run,
            self.processes.first,
        ) as tracker:
            self.at.mlflow_run = tracker.mlflow_run
            if saved is not None:
                tracker.say(f"going on from step {self.at.step:,} of {total:,}")
            while self.at.stage < len(self.stages):
                self._stage(self.stages[self.at.stage], trained, tracker)
        if self.processes.first:
            self.state.publish(self.at.best_folder, self.at.best)
        self.processes.wait()
        return self.at.best

    def _stage(self, stage: Stage, trained: nn.Module, tracker: Tracker) -> None:
        self.student.config.alpha = stage.alpha
        first = sum(sum(earlier.steps) for earlier in self.stages[: self.at.stage])
        while self.at.epoch < len(stage.steps) and not self.at.ended:
            steps = stage.feed.epoch(self.at.epoch, skip=self.at.epoch_step)
            try:
                while self.at.epoch_step < stage.steps[self.at.epoch] and not self.at.ended:
                    started, done = time.monotonic(), self.at.step - first
                    for group in self.optimiser.param_groups:
                        group["lr"] = learning_rate(self.config, done, sum(stage.steps))
                    last = done + 1 == sum(stage.steps)
                    self._step(stage, next(steps), trained, tracker, started, last)
            finally:
                steps.close()
            if not self.at.ended:
                self.at.epoch, self.at.epoch_step = self.at.epoch + 1, 0
        self.at.stage, self.at.epoch, self.at.epoch_step, self.at.ended = self.at.stage + 1, 0, 0, False
        if self.at.stage < len(self.stages):
            self.at.best, self.at.waited = {}, 0  # the next stage chooses among its own
            self.at.step = first + sum(stage.steps)
            self.optimiser.state.clear()

    def _step(
        self, stage: Stage, rows: TrainingRows, trained: nn.Module, tracker: Tracker, started: float, last: bool
    ) -> None:
        """One optimiser step, with what follows on it; `started` before its rows were asked for."""
        record = self._descend(stage, rows, trained)
        self.at.step, self.at.epoch_step = self.at.step + 1, self.at.epoch_step + 1
        pairs = record.pop("pairs")
        self.at.pairs_seen += pairs
        seconds = time.monotonic() - started
        record = {"step": self.at.step, "stage": stage.name, "epoch": self.at.epoch} | record
        record["pairs_seen"] = self.at.pairs_seen
        self.at.ended = last
        if last or self.at.step % self.config.evaluate_every == 0:
            record |= self.validation.measure(self.student, self.loss.bf16)
            if record["auc"] > self.at.best.get("auc", -1.0):
                self.at.waited = 0
                if self.processes.first:
                    self.at.best_folder = self.state.save_best(self.at.step, self._save_student)
                self.at.best = {name: value for name, value in record.items() if name != "losses"}
            else:
                self.at.waited += 1
            self.at.ended = last or 0 < self.config.patience <= self.at.waited
        self.at.seconds += time.monotonic() - started
        record["seconds"] = round(self.at.seconds, 1)
        record["pairs_per_s"] = round(pairs / seconds, 1)
        tracker.step(record)
        if self.processes.first and ("auc" in record or self.at.step % self.config.checkpoint_every == 0):
            self.state.save(self.at.step, asdict(self.at), training_tensors(self.loss, self.optimiser))

    def _save_student(self, folder: Path) -> None:
        save_checkpoint(self.student, self.tokenizer, folder, torch.float16)

    def _descend(self, stage: Stage, rows: TrainingRows, trained: nn.Module) -> dict[str, Any]:
        """Accumulate the gradients of one step's loss (5), micro-batch by micro-batch, and follow them."""
        self.loss.train()
        rows = cut_passages(rows, self.student.config, stage.training_set.template)
        device = self.processes.device
        labels = [tensor.to(device) for tensor in stage.labels(rows)]
        counts = self.processes.sum(LabelCounts.of(*labels))
        pairs = self.processes.sum_of(len(rows))
        world = self.processes.world
        shares = LabelCounts(*(count / world for count in counts))  # the gradients of all ranks are averaged
        parts = micro_batches(
            rows, self.config.token_budget, stage.training_set.template if stage.feed.whole_queries else None
        )
        padded = sum(len(part) * int(part.lengths.max()) for part in parts)
        sums: Tensor = torch.zeros(2 + stage.teachers, device=device)
        for number, part in enumerate(parts):
            with self.processes.accumulate(trained, last=number == len(parts) - 1):
                losses = trained(
                    stage.inputs(part, self.loss.matcher is not None, device), shares, stage.alpha, pairs / world
                )
                losses.total.backward()
            found = torch.cat((losses.total.detach()[None], losses.golden[None], losses.soft))
            sums += found
            if not bool(torch.isfinite(found).all()):
                self._stop(stage, part, "the loss is no number")
        norm = nn.utils.clip_grad_norm_(self.loss.parameters(), self.config.clip_norm)
        if not bool(torch.isfinite(norm)):
            self._stop(stage, rows, "the gradient is no number")
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        total, golden, *soft = (self.processes.mean(sums)).tolist()
        names = [f"soft[{teacher}]" for teacher in self.student.config.teacher_ids]
        losses_by_header = {"golden": golden} if stage.alpha < 1 else {}
        losses_by_header |= dict(zip(names, soft, strict=True))
        return {
            "loss": round(total, 6),
            "losses": {name: round(value, 6) for name, value in losses_by_header.items()},
            "learning_rate": self.optimiser.param_groups[0]["lr"],
            "padding": round(1 - int(rows.lengths.sum()) / padded, 4),
            "pairs": pairs,
        }

    def _stop(self, stage: Stage, rows: TrainingRows, what: str) -> None:
        """End the run before the step changes a weight.

        Raises:
            TrainingError: always.
        """
        path = Path(self.config.output, f"bad_batch_{self.processes.rank}.json")
        hashes = rows.pairs.tolist()
        path.write_text(json.dumps({"step": self.at.step + 1, "stage": stage.name, "xxhash64": hashes}) + "\n")
        raise TrainingError(
            f"{what} at step {self.at.step + 1:,}, epoch {self.at.epoch} of {stage.name}, among {len(rows)} pairs, "
            f"of which the first has xxhash64(query_id, passage_id) = {hashes[0]} (all: {path}); the state of step "
            f"{self.at.step - self.at.step % self.config.checkpoint_every:,} or later stays: look at these pairs, or "
            f"lower --learning-rate in a new --output"
        )


def _groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    parameters = list(module.parameters())
    matrices = [parameter for parameter in parameters if parameter.dim() > 1]
    vectors = [parameter for parameter in parameters if parameter.dim() <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]


def main(argv: Sequence[str] | None = None) -> None:
    """Train from the command line and print the kept student's validation figures."""
    (config,) = parse_config("mkdm train", argv, TrainConfig)
    best = train(config)
    if Processes.is_first():
        print(json.dumps(best, indent=2))
        print(f"student saved in {config.output}")
