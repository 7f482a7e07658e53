"""The average of several models' scores: the paper's ensemble of students that had one teacher each."""

from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from mkdm.model import PLAIN, Prompting, ensemble_version, model_folders
from mkdm.scoring.block import Block
from mkdm.scoring.precision_choice import JOIN, by_version, require_machine
from mkdm.scoring.scorer import PairScorer, Scorer, WindowScores


class Ensemble(PairScorer):
    """Scores a pair by the mean of its members' scores; a pair that one member cannot score has none.

    Attributes:
        members: loaded scorers, which may differ in tokenizer, length and precision.
    """

    def __init__(self, members: Sequence[Scorer]) -> None:
        self.members = list(members)
        self.model_version = ensemble_version([member.model_version for member in members])
        self.window = min(member.window for member in members)
        self.precision = "+".join(sorted({member.precision for member in members}))

    def score_blocks(self, blocks: Iterable[Block]) -> Iterator[WindowScores]:
        """See `PairScorer.score_blocks`; tokens are those of all members together, the logit is that of the mean."""
        for block in blocks:
            yield self._mean([next(member.score_blocks(iter((block,)))) for member in self.members])

    @staticmethod
    def _mean(parts: list[WindowScores]) -> WindowScores:
        errors = {row: error for part in reversed(parts) for row, error in part.errors.items()}
        scores = np.mean([part.scores for part in parts], axis=0, dtype=np.float64).astype(np.float32)
        scores[list(errors)] = np.nan
        inside = np.clip(scores.astype(np.float64), 1e-7, 1 - 1e-7)
        return WindowScores(
            scores=scores,
            logits=np.log(inside / (1 - inside)).astype(np.float32),
            tokens=np.sum([part.tokens for part in parts], axis=0, dtype=np.int32),
            padded_tokens=np.sum([part.padded_tokens for part in parts], axis=0, dtype=np.int32),
            errors=errors,
        )


def load_scorer(
    models: str,
    backend: str = "auto",
    precision: str = "auto",
    max_length: int | None = None,
    token_budget: int | None = None,
    threads: int | None = None,
    prompting: Prompting = PLAIN,
    streams: int | None = None,
    runs_as: str | None = None,
) -> PairScorer:
    """Load one model, or an ensemble of several.

    Args:
        models: a folder, or several joined by commas; the rest as for `Scorer.load`.
        runs_as: what `settle` settled for the run, in place of backend and precision.

    Raises:
        ModelError: a folder is missing, incomplete, changed, named twice, or no model that scores pairs.
        ConfigError: a setting that a model or the machine cannot meet.
        MachineError: the machine cannot run what was settled.
    """
    if runs_as is None:
        ways = [(folder, backend, precision) for folder in model_folders(models)]
    else:
        settled = [require_machine(one) for one in runs_as.split(JOIN)]
        pairs = zip(by_version(models), settled, strict=True)
        ways = [(folder, way.backend, way.precision) for folder, way in pairs]
    members = [
        Scorer.load(folder, backend, precision, max_length, token_budget, threads, streams, prompting)
        for folder, backend, precision in ways
    ]
    return members[0] if len(members) == 1 else Ensemble(members)
