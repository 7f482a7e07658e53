"""The precision that `auto` takes for a run: what a model's files and this machine allow, each timed, settled once.

A more exact precision stays unless a less exact one is clearly quicker. What is settled goes by its name, such as
`openvino:int8`, into the run's fingerprint, and every executor runs that or says why it cannot.
"""

import gc
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mkdm.errors import MachineError, ModelError
from mkdm.model import PLAIN, Prompting, backend_for, folder_of, missing, model_folders, model_version, read_export
from mkdm.scoring.backend_choice import load_backend
from mkdm.scoring.machine import has_gpu, machine_name, multiplies_bf16, multiplies_int8
from mkdm.scoring.scorer import Scorer

GAIN = 1.1
"""How many times as quick a precision that passed the gate must be to be preferred over a more exact one."""
UNJUDGED_GAIN = 1.25
"""The same for one that no gate has judged: bf16 by torch."""
ROUND_SECONDS = 0.4
ROUNDS = 3
PROBE_TOKENS = 160
PROBE_QUERIES = 8
CUDA = "cuda"
JOIN = "+"


@dataclass(frozen=True)
class Candidate:
    """One way to run a model here.

    Attributes:
        gain: how many times as quick it must be as a more exact one.
        device: cuda, or empty for a CPU.
    """

    backend: str
    precision: str
    gain: float = GAIN
    device: str = ""

    def __str__(self) -> str:
        return ":".join(part for part in (self.backend, self.precision, self.device) if part)

    @classmethod
    def parse(cls, text: str) -> "Candidate":
        """From what `str` gave."""
        backend, precision, *device = text.split(":")
        return cls(backend, precision, device="".join(device))


@dataclass(frozen=True)
class Settled:
    """What was settled for a model, or for each member of an ensemble.

    Attributes:
        runs_as: the chosen candidate; of an ensemble all, joined by +, in the order of its members' versions.
        rates: by candidate, pairs/s; empty where there was but one.
        machine: where it was timed.
    """

    runs_as: str
    rates: dict[str, float]
    machine: str

    def __str__(self) -> str:
        timed = ", ".join(f"{name} {rate:,.1f}" for name, rate in self.rates.items())
        return f"auto is {self.runs_as} for this run" + (f": {timed} pairs/s on {self.machine}" if timed else "")


def settle(
    models: str,
    backend: str = "auto",
    max_length: int | None = None,
    token_budget: int | None = None,
    threads: int | None = None,
    prompting: Prompting = PLAIN,
) -> Settled:
    """Settle the precision of a model, or of each model of an ensemble, by a short timed run of each candidate here.

    Args:
        models: a folder, or several joined by commas; the rest as for `Scorer.load`.

    Raises:
        ModelError: a model does not load, or has no file that may be run by that backend.
        ConfigError: a setting that it cannot meet.
    """
    chosen: list[str] = []
    rates: dict[str, float] = {}
    folders = by_version(models)
    for folder in folders:
        ways = candidates(folder, backend, prompting)
        found: dict[Candidate, float] = {}
        for way in ways if len(ways) > 1 else ():
            loaded = load_backend(folder, _timed(way.backend), way.precision, threads, prompting=prompting)
            found[way] = pairs_per_second(Scorer(loaded, max_length, token_budget), loaded.tokenizer)
            del loaded
            gc.collect()  # one model at a time
        chosen.append(str(prefer(found) if found else ways[0]))
        of = f"{folder.name} " if len(folders) > 1 else ""
        rates |= {f"{of}{way}": rate for way, rate in found.items()}
    return Settled(JOIN.join(chosen), rates, machine_name())


def by_version(models: str) -> list[Path]:
    """The folders of a model or an ensemble, in the same order however they are named."""
    return sorted(model_folders(models), key=model_version)


def candidates(folder: str | Path, backend: str = "auto", prompting: Prompting = PLAIN) -> list[Candidate]:
    """The ways to run a model here, the most exact first.

    Of IR files those that passed their gate, int8 only where the CPU multiplies it; torch stands in for fp32 where
    there is no such file, and for bf16 where no export has judged that. On a GPU the one precision that suits it.

    Raises:
        ModelError: there is none; the text says what to do.
    """
    folder, backend = folder_of(folder, model_version), backend_for(backend, prompting)
    export = None if backend.startswith("torch") or find_spec("openvino") is None else read_export(folder)
    torch_like = backend if backend.startswith("torch") else "torch"
    if backend != "openvino" and has_gpu():
        import torch

        from mkdm.scoring.torch_precision import fastest_precision

        return [Candidate(torch_like, fastest_precision(torch.device(CUDA)), device=CUDA)]
    found = []
    if export is not None:
        from mkdm.scoring.openvino_backend import machine_precisions

        here = [name for name in machine_precisions() if name != "int8" or multiplies_int8()]
        found = [Candidate("openvino", name) for name in here if (one := export.exported.get(name)) and one.passed]
    if backend != "openvino" and find_spec("torch") is not None:
        there = {way.precision for way in found}
        found += [Candidate(torch_like, "fp32")] if "fp32" not in there else []
        if export is None and _has_bf16(torch_like) and not _refused(folder, "bf16"):
            found.append(Candidate(torch_like, "bf16", UNJUDGED_GAIN))
    if not found and export is not None and export.choose("auto") == "int8":
        raise ModelError(
            f"{folder} has no IR file but int8 for auto, and {machine_name()} does not multiply that exactly: run "
            f"mkdm export-model on it for fp32 too, or name --precision int8"
        )
    if not found:
        load_backend(folder, backend, "auto", prompting=prompting)  # says why
        raise ModelError(missing(folder, export, "auto"))
    return sorted(found, key=lambda way: ("fp32", "bf16", "int8").index(way.precision))


def _refused(folder: str | Path, precision: str) -> bool:
    """Whether a gate has refused that precision of the model, though its files are not what will run."""
    try:
        export = read_export(folder)
    except ModelError:  # of other weights
        return False
    if export is None:
        return False
    forced = export.exported.get(precision)
    return precision in export.refused or (forced is not None and not forced.passed)


def prefer(rates: dict[Candidate, float]) -> Candidate:
    """The first, unless a later one is clearly quicker than what is preferred before it.

    Args:
        rates: pairs/s of each, the most exact first.
    """
    best, *others = rates
    for other in others:
        if rates[other] >= other.gain * rates[best]:
            best = other
    return best


def pairs_per_second(scorer: Scorer, tokenizer: Any) -> float:
    """The rate over pairs of made-up texts of 160 tokens, or as many as the model takes: the best of three rounds.

    Rounds have as many pairs as make them last long enough to tell, so that every core has its share.
    """
    words = [word for token in tokenizer.get_vocab() if (word := token.strip("▁Ġ#")).isalpha()] or ["a"]
    draw = random.Random(0)
    words.sort()
    tokens = max(2, min(scorer.max_length, PROBE_TOKENS))

    def seconds(passages: int) -> float:
        queries = [_text(words, tokens // 16, draw) for _ in range(PROBE_QUERIES)][: max(1, passages)]
        texts = [_text(words, tokens - tokens // 16, draw) for _ in range(passages)]
        started = time.perf_counter()
        scorer.score_block(queries, texts)
        return time.perf_counter() - started

    passages = 1
    seconds(passages)  # what is done once, such as memory that is asked for
    while (took := seconds(passages)) < ROUND_SECONDS and passages < 4096:
        passages *= 2
    took = min([took, *(seconds(passages) for _ in range(ROUNDS - 1 if took < 4 * ROUND_SECONDS else 0))])
    return min(PROBE_QUERIES, passages) * passages / took


def _text(words: Sequence[str], size: int, draw: random.Random) -> str:
    return " ".join(draw.choices(words, k=max(1, size)))


def _timed(backend: str) -> str:
    """The backend whose precisions are timed for another: `torch-compile` would take half a minute for each."""
    return "torch" if backend == "torch-compile" else backend


def require_machine(runs_as: str) -> Candidate:
    """What was settled, after checking that this machine can run it.

    Raises:
        MachineError: it cannot; the text names the machine, what it lacks, and what to do.
    """
    way = Candidate.parse(runs_as)
    lacks = _lacks(way)
    if lacks is not None:
        raise MachineError(
            f"{machine_name()} {lacks}, and this run was settled to {runs_as}: give the job machines of one kind, or "
            f"run it anew with a --precision that all of them have, such as fp32"
        )
    return way


def _lacks(way: Candidate) -> str | None:
    """What this machine lacks for that."""
    if way.device == CUDA:
        return None if has_gpu() else "has no GPU"
    if way.precision == "int8" and not multiplies_int8():
        return "has no instruction that multiplies int8 exactly"
    if way.precision == "bf16" and not _has_bf16(way.backend):
        return "has no bf16"
    return None


def _has_bf16(backend: str) -> bool:
    if backend == "openvino":
        from mkdm.scoring.openvino_backend import machine_precisions

        return "bf16" in machine_precisions()
    return multiplies_bf16() or has_gpu()
