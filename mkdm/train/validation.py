"""How good a student is by now: accuracy and AUC on the validation pairs, pooled and by source."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mkdm.errors import InputError
from mkdm.evaluation import accuracy, auc
from mkdm.model import MkdmModel
from mkdm.scoring import Template, to_tensors, token_budget_batches
from mkdm.train.arrow_feed import row_groups
from mkdm.train.config import TrainConfig
from mkdm.train.micro_batches import padded_batch
from mkdm.train.processes import Processes
from mkdm.train.rows import NO_GOLDEN_LABEL, TrainingRows
from mkdm.train.training_set import TrainingSet

VALID = "valid"


@dataclass(frozen=True)
class Validation:
    """The validation pairs that have a golden label, in memory.

    Attributes:
        rows: the same on all processes, which share the work.
        sources: by number, what the rows' sources are called.
    """

    rows: TrainingRows
    sources: list[str]
    template: Template
    token_budget: int
    processes: Processes

    @classmethod
    def read(cls, valid_set: TrainingSet, config: TrainConfig, processes: Processes) -> "Validation":
        """Read the split `valid`.

        Raises:
            InputError: it is empty, changed, or its golden labels are not both 0 and 1.
        """
        valid_set.check_files(VALID)
        parts = [
            part.take(np.flatnonzero(part.golden_labels != NO_GOLDEN_LABEL))
            for part in row_groups(valid_set, VALID, seed=0, epoch=0, shuffle=False)
        ]
        rows = TrainingRows.concat(parts)
        if config.valid_rows is not None:
            rows = rows.take(np.arange(min(len(rows), config.valid_rows)))
        if set(rows.golden_labels.tolist()) != {0, 1}:
            raise InputError(
                f"the split {VALID} of {valid_set.folder} needs pairs with the golden label 0 and with 1, to choose "
                f"the best checkpoint; of {len(rows):,} labelled pairs {(rows.golden_labels == 1).sum():,} have 1: "
                f"export it with a larger share, or pass --valid-set"
            )
        return cls(rows, valid_set.sources, valid_set.template, config.token_budget, processes)

    @torch.inference_mode()
    def measure(self, student: MkdmModel, bf16: bool) -> dict[str, Any]:
        """`auc`, `accuracy` and `auc_by_source` of the student's output (6)."""
        student.eval()
        device = self.processes.device
        scores = torch.zeros(len(self.rows), device=device)
        batches = token_budget_batches(self.rows.lengths, self.token_budget)
        for batch in batches[self.processes.rank :: self.processes.world]:
            inputs = to_tensors(padded_batch(self.rows.take(batch), self.template), device)
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
                output = student(**inputs)
            scores[torch.from_numpy(batch).to(device)] = output.score.float()
        found = self.processes.total(scores).cpu().numpy()
        golden, of_source = self.rows.golden_labels.astype(np.int64), self.rows.sources
        by_source = {
            name: round(auc(golden[of_source == number], found[of_source == number]), 6)
            for number, name in enumerate(self.sources)
            if name and (of_source == number).any()
        }
        return {
            "auc": round(auc(golden, found), 6),
            "accuracy": round(accuracy(golden, found), 6),
            "auc_by_source": by_source,
        }
