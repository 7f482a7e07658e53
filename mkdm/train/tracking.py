"""What a training run tells: a progress bar, a JSON Lines log that survives kills, and MLflow where configured."""

import json
import math
import os
import re
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tqdm import tqdm

from mkdm.errors import ConfigError
from mkdm.model import allow_files, import_mlflow

MLFLOW_EVERY = 10
"""Steps between two that are logged to MLflow, besides those with a validation: each is a request to its server."""
_FOREIGN = re.compile(r"[^\w\-. :/]")
"""What MLflow takes in no name."""


class Tracker:
    """Follows a run from its start, or from where it goes on.

    Args:
        log: JSON Lines file; records of steps that the run has to do again are taken out of it.
        settings: of the run, for the log's first line and MLflow's parameters.
        total: steps of the whole run.
        step: steps that are done.
        mlflow: tracking URI; None follows $MLFLOW_TRACKING_URI; without either, nothing is logged there.
        run_id: MLflow's run to go on with, where there is one.
        active: False on all ranks but the first, which then tell nothing.
    """

    def __init__(
        self,
        log: Path,
        settings: dict[str, Any],
        total: int,
        step: int,
        mlflow: str | None,
        experiment: str,
        run_id: str | None,
        active: bool,
    ) -> None:
        self.mlflow_run: str | None = None
        self._active = active
        if not active:
            return
        kept = [json.dumps(settings)]
        if step:
            kept += [line for line in _lines(log)[1:] if _is_before(line, step)]
        part = log.with_suffix(".part")
        part.write_text("".join(f"{line}\n" for line in kept))
        part.replace(log)
        self._log = log.open("a")
        self._bar = tqdm(total=total, initial=step, unit="step", disable=None)
        uri = mlflow or os.environ.get("MLFLOW_TRACKING_URI")
        self._mlflow: Any = _start_mlflow(uri, experiment, run_id, settings) if uri else None
        self.mlflow_run = self._mlflow.active_run().info.run_id if self._mlflow else None

    def step(self, record: dict[str, Any]) -> None:
        """Log a step: `step`, `loss`, `losses` by header, `pairs_per_s`, `padding` (share), and validation figures."""
        if not self._active:
            return
        self._log.write(json.dumps(record) + "\n")
        self._log.flush()
        losses = {name: f"{value:.4f}" for name, value in record["losses"].items()}
        self._bar.set_postfix(losses | {"pairs/s": f"{record['pairs_per_s']:.0f}"}, refresh=False)
        self._bar.update()
        if self._mlflow and ("auc" in record or record["step"] % MLFLOW_EVERY == 0):
            self._mlflow.log_metrics(numbers(record), step=record["step"])

    def say(self, line: str) -> None:
        """Tell the user something, above the bar."""
        if self._active:
            tqdm.write(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._active:
            self._bar.close()
            self._log.close()
            if self._mlflow:
                self._mlflow.end_run("FINISHED" if kind is None else "FAILED")


def _lines(log: Path) -> list[str]:
    return log.read_text().splitlines() if log.exists() else []


def _is_before(line: str, step: int) -> bool:
    try:
        return int(json.loads(line)["step"]) <= step
    except (ValueError, KeyError):  # the last line of a run that was killed while it wrote
        return False


def _start_mlflow(uri: str, experiment: str, run_id: str | None, settings: dict[str, Any]) -> Any:
    mlflow = import_mlflow("--mlflow")
    allow_files(uri)
    try:
        mlflow.set_tracking_uri(uri)
        mlflow.set_experiment(experiment)
        mlflow.start_run(run_id=run_id)
        if run_id is None:
            flat = settings | settings["config"]
            mlflow.log_params({name: str(flat[name])[:500] for name in flat.keys() - {"config"}})
    except mlflow.exceptions.MlflowException as error:
        raise ConfigError(f"MLflow at {uri}: {' '.join(str(error).split())}") from error
    return mlflow


def numbers(record: dict[str, Any], prefix: str = "") -> dict[str, float]:
    """The numbers of a record, those of inner mappings under joined names."""
    found: dict[str, float] = {}
    for name, value in record.items():
        if isinstance(value, dict):
            found |= numbers(value, f"{prefix}{name}/")
        elif isinstance(value, int | float) and math.isfinite(value):
            found[_FOREIGN.sub(".", prefix + name)] = float(value)
    return found
