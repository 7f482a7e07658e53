"""What `mkdm benchmark` measured, as its JSON holds it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa

from mkdm.columns import GOLDEN_LABEL, PAIR_KEY, SCORE
from mkdm.errors import InputError
from udfs.quality import auc


@dataclass(frozen=True)
class Machine:
    """Where it was measured.

    Attributes:
        device: cpu or cuda.
        name: of the CPU or GPU.
        cores: of the CPU that the process may use.
        peaks: by precision, GFLOP/s of the fastest matrix product measured between the rounds.
    """

    device: str
    name: str
    cores: int
    memory_gb: float
    peaks: dict[str, float]


@dataclass(frozen=True)
class Quality:
    """Scores beside those of the plain fp32 model on the same pairs.

    Attributes:
        max_drift, mean_drift: of |score − reference|.
        auc, auc_drift: against golden labels, and less that of the reference; None without golden labels of both kinds.
        missing: pairs without a score.
    """

    max_drift: float
    mean_drift: float
    auc: float | None
    auc_drift: float | None
    missing: int


@dataclass(frozen=True)
class SideResult:
    """One side.

    Attributes:
        side: its name, see `jobs.reports.benchmark_sides.Side`.
        precision: as it was settled, or as asked.
        pairs: how many it scored.
        pair_gflop: what one of them costs in a plain model.
        seconds: of each round, see `jobs.reports.benchmark_sides.Once`.
        command_seconds: of each round, the whole process.
        fixed_seconds: of a whole side with next to no pairs; None for the others, whose seconds have no such part.
        fixed_pairs: how many those were.
        memory_mb: peaks, see `jobs.reports.measured_process.Finished`.
        model_mb: weights on disk.
    """

    side: str
    precision: str
    pairs: int
    pair_gflop: float
    seconds: list[float]
    command_seconds: list[float]
    fixed_seconds: float | None
    fixed_pairs: int
    memory_mb: dict[str, float]
    model_mb: float | None
    quality: Quality

    @property
    def rates(self) -> list[float]:
        """Pairs/s of each round."""
        return [self.pairs / seconds for seconds in self.seconds]

    @property
    def rate(self) -> float:
        """Their median."""
        return median(self.rates)

    @property
    def growing_rate(self) -> float | None:
        """Pairs/s beyond the seconds that do not grow with the pairs.

        None where those are more than half of all, and their noise would drown what remains: score more pairs.
        """
        if self.fixed_seconds is None:
            return self.rate
        seconds, pairs = median(self.seconds) - self.fixed_seconds, self.pairs - self.fixed_pairs
        return pairs / seconds if seconds > self.fixed_seconds else None

    @property
    def gflops(self) -> float:
        """The plain model's GFLOP of the pairs, by second."""
        return self.rate * self.pair_gflop


@dataclass(frozen=True)
class LatencyResult:
    """One pair at a time, with a model of some number of layers and random weights.

    Attributes:
        qps: pairs/s of each round.
        p50_ms, p99_ms: of one pair, over all rounds.
    """

    side: str
    precision: str
    layers: int
    qps: list[float]
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True)
class BenchmarkResults:
    """A whole benchmark.

    Attributes:
        student: hidden_size, num_layers, max_length, mean_tokens, and the folder and how it was widened; with separate
            layers separate_layers, and text_h2 and pair_h2 of `mkdm.benchmark.flops.lean_cost`.
    """

    machine: Machine
    student: dict[str, Any]
    rounds: int
    sides: list[SideResult]
    latency: list[LatencyResult]

    def side(self, name: str) -> SideResult | None:
        """The side of that name, if it was measured."""
        return next((one for one in self.sides if one.side == name), None)

    @property
    def student_shape(self) -> str:
        """Layers × hidden size, and what separate layers leave to do for a token."""
        shape = f"{self.student['num_layers']} × {self.student['hidden_size']}"
        if not self.student.get("separate_layers"):
            return shape
        pair, text = self.student["pair_h2"], self.student["text_h2"]
        return f"{shape}, {self.student['separate_layers']} separate ({pair} H² a token of a pair, {text} of a text)"

    def write(self, path: Path) -> None:
        """Write as JSON."""
        path.write_text(json.dumps(asdict(self), indent=1, allow_nan=False) + "\n", encoding="utf-8")

    @classmethod
    def read(cls, path: str) -> "BenchmarkResults":
        """Read what `write` wrote.

        Raises:
            InputError: there is no such file, or it holds something else.
        """
        try:
            told = json.loads(Path(path).read_text(encoding="utf-8"))
            sides = [SideResult(**{**side, "quality": Quality(**side["quality"])}) for side in told["sides"]]
            latency = [LatencyResult(**one) for one in told["latency"]]
            return cls(Machine(**told["machine"]), told["student"], told["rounds"], sides, latency)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path} is no benchmark.json of `mkdm benchmark`: {error}") from error


def quality(scores: pa.Table, reference: pa.Table, golden_labels: pa.Table | None) -> Quality:
    """Compare a side's scores with the reference's.

    Args:
        scores: query_id, passage_id, score.
        reference: the same, of all pairs that the side was given.
        golden_labels: query_id, passage_id, golden_label; of any pairs.

    Raises:
        InputError: no pair of the reference has a score.
    """
    keys = list(PAIR_KEY)
    both = reference.to_pandas().merge(scores.to_pandas(), on=keys, suffixes=("_reference", ""))
    if both.empty:
        raise InputError("a side returned scores for none of the pairs that it was given")
    drift = np.abs(both[SCORE] - both[f"{SCORE}_reference"])
    area = before = float("nan")
    if golden_labels is not None:
        labelled = both.merge(golden_labels.to_pandas(), on=keys)
        golden = labelled[GOLDEN_LABEL].to_numpy(np.int64)
        area = auc(golden, labelled[SCORE].to_numpy())
        before = auc(golden, labelled[f"{SCORE}_reference"].to_numpy())
    known = area == area
    return Quality(
        max_drift=float(drift.max()),
        mean_drift=float(drift.mean()),
        auc=area if known else None,
        auc_drift=area - before if known else None,
        missing=reference.num_rows - len(both),
    )
