"""What `--precision auto` is for a run: as the run that it goes on with had it, else settled by a probe, once.

What was settled stands among the settings of a run, in its first row of `runs`, and is part of its fingerprint. So the
same command finds its run again whatever a probe would say by then, and an incremental run adds to scores of one kind.
"""

from dataclasses import replace

from cluster.session import task_slots
from jobs.engine.chunked_run import say
from jobs.engine.incremental import base_of
from jobs.engine.ledger import REMOVED, Identity, RunState
from jobs.engine.pairs_job import PairsJob
from udfs.imports import import_ahead
from udfs.precision import settle_in_a_task, untimed
from udfs.scoring import RUNS_AS, ScoringSettings

AUTO = "auto"
TIMED_FROM = 1000
"""Pairs from which a timed run of some seconds can be worth it."""


def settled_model(
    job: PairsJob, asked: Identity, model: ScoringSettings, run_id: str | None = None, incremental: bool = False
) -> ScoringSettings:
    """The model of a run with `runs_as`, if its precision was left to `auto`.

    Args:
        asked: the run's identity as far as flags tell it.
        run_id: as the user named the run.
        incremental: whether it is to add to an earlier one.

    Raises:
        ModelError: the model does not load on an executor, or has no file that may be run.
        InputError: there are no pairs.
    """
    if model.precision != AUTO:
        return model
    earlier = settled_before(job, asked, run_id, incremental)
    if earlier is None:
        import_ahead(job.spark, model, task_slots(job.spark))
        rows = job.pairs.count()  # which a new run asks for, while torch is imported
        if rows < TIMED_FROM and (exact := untimed(model)) is not None:
            return replace(model, runs_as=exact)
        runs_as, told = settle_in_a_task(job.spark, model)
        earlier = settled_before(job, asked, run_id, incremental)  # by another driver, meanwhile
        if earlier is None:
            say(told)
            return replace(model, runs_as=runs_as)
    # None of a run by an engine that settled nothing: it goes on as it began
    return replace(model, runs_as=earlier.run.settings.get(RUNS_AS))


def settled_before(job: PairsJob, asked: Identity, run_id: str | None, incremental: bool) -> RunState | None:
    """The run that settled it: the one of that name, or of the same input, or which an incremental run will add to."""
    states = [
        state
        for state in job.ledger.states(job=asked.job, model_version=asked.model_version)
        if state.state != REMOVED and _asked(state) == asked.settings
    ]
    states.sort(key=lambda state: state.run.started_at, reverse=True)
    for state in states:
        if state.run.run_id == run_id:
            return state
    for state in states:
        if asked.input_versions.items() <= state.run.input_versions.items():
            return state
    bases = []
    if incremental:
        for settings in {_key(state): state.run.settings for state in reversed(states)}.values():
            base = base_of(job.ledger, replace(asked, settings=settings), job.pairs)
            bases += [] if base is None else [base]
    return max(bases, key=lambda base: int(base.run.input_versions["pairs"].partition("@")[2]), default=None)


def _asked(state: RunState) -> dict[str, str]:
    return {name: value for name, value in state.run.settings.items() if name != RUNS_AS}


def _key(state: RunState) -> str | None:
    return state.run.settings.get(RUNS_AS)
