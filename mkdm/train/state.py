"""The state of a training run on disk: whole at any moment, whenever the process is killed.

A state, and the best student so far, are each written into a folder of another name, synced, and renamed; only then is
an older one removed. Tensors are safetensors, the rest is JSON: nothing is unpickled.
"""

import json
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mkdm.errors import ConfigError, TrainingError

_STATE, _BEST, _FINISHED = "state-", "best-", "finished.json"


class StateFolder:
    """Where a run keeps its state: `training_state` in the folder of its student.

    Args:
        output: the folder of the student.
        identity: by name, all that decides what the run trains.
    """

    def __init__(self, output: Path, identity: dict[str, str]) -> None:
        self.output = output
        self.folder = output / "training_state"
        self.identity = identity

    def prepare(self) -> None:
        """Make the folder, and check that it holds no other run.

        Raises:
            ConfigError: it does; the text says what differs.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in [self.folder / _FINISHED, *(self.folder.glob(f"{_STATE}*[0-9]/state.json"))]:
            if path.exists():
                there = json.loads(path.read_text())["identity"]
                names = sorted(
                    name for name in there.keys() | self.identity.keys() if there.get(name) != self.identity.get(name)
                )
                if names:
                    differs = ", ".join(f"{name}: {there.get(name)} → {self.identity.get(name)}" for name in names)
                    raise ConfigError(
                        f"{self.output} holds another run ({differs}): give the settings that it was started with, or "
                        f"another --output"
                    )

    def finished(self) -> dict[str, Any] | None:
        """The best record of the run, if it is finished."""
        path = self.folder / _FINISHED
        return json.loads(path.read_text())["best"] if path.exists() else None

    def newest(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """The newest state: what `save` was given; None where there is none.

        Raises:
            TrainingError: it cannot be read.
        """
        folders = self._complete(_STATE)
        if not folders:
            return None
        try:
            return json.loads((folders[-1] / "state.json").read_text()), load_file(folders[-1] / "tensors.safetensors")
        except (OSError, ValueError, SafetensorError) as error:
            raise TrainingError(
                f"{folders[-1]} cannot be read ({error}): remove {self.folder} to start anew"
            ) from error

    def save(self, step: int, content: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        """Save a state; once it is whole on the disk, remove older ones and the students that only they know.

        Raises:
            TrainingError: it could not be written; the state before stays.
        """

        def write(folder: Path) -> None:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "tensors.safetensors")
            (folder / "state.json").write_text(json.dumps(content | {"identity": self.identity}, indent=1) + "\n")

        self._write(f"{_STATE}{step:08d}", write)
        for folder in [*self._complete(_STATE)[:-1], *self._complete(_BEST)]:
            if folder.name != content["best_folder"]:
                shutil.rmtree(folder, ignore_errors=True)

    def save_best(self, step: int, write: Callable[[Path], None]) -> str:
        """Save the best student so far; returns its folder's name, for the next state to hold.

        Raises:
            TrainingError: it could not be written.
        """
        return self._write(f"{_BEST}{step:08d}", write)

    def publish(self, best_folder: str, best: dict[str, Any]) -> None:
        """Put the best student in its place, and drop the state. A repeat, after a kill in between, does the same.

        Raises:
            TrainingError: it could not be written; the student stays in its folder below `training_state`.
        """

        def copy() -> None:
            for path in sorted((self.folder / best_folder).iterdir()):
                part = self.output / f".{path.name}.part"
                shutil.copyfile(path, part)
                _sync(part)
                part.replace(self.output / path.name)
            part = self.folder / f".{_FINISHED}.part"
            part.write_text(json.dumps({"identity": self.identity, "best": best}, indent=1) + "\n")
            _sync(part)
            part.replace(self.folder / _FINISHED)

        self._attempt(f"the student to {self.output}", copy)
        for folder in [*self._complete(_STATE), *self._complete(_BEST)]:
            shutil.rmtree(folder, ignore_errors=True)

    def _write(self, name: str, write: Callable[[Path], None]) -> str:
        part = self.folder / f".{name}.part"

        def whole() -> None:
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            write(part)
            for path in part.iterdir():
                _sync(path)
            shutil.rmtree(self.folder / name, ignore_errors=True)  # of a run that was cut off after it, and came again
            part.rename(self.folder / name)
            _sync(self.folder)

        self._attempt(f"{self.folder / name}", whole)
        return name

    def _attempt(self, what: str, write: Callable[[], None]) -> None:
        try:
            write()
        except (OSError, SafetensorError) as error:
            for part in self.folder.glob(".*.part"):
                with suppress(OSError):
                    shutil.rmtree(part) if part.is_dir() else part.unlink()
            kept = self._complete(_STATE)
            last = f"the last state is whole, at {kept[-1]}" if kept else "there is no earlier state"
            raise TrainingError(
                f"cannot write {what} ({error}); {last}: free space, then the same command goes on from there"
            ) from error

    def _complete(self, prefix: str) -> list[Path]:
        return sorted(self.folder.glob(f"{prefix}*[0-9]"))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def training_tensors(module: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """All tensors that a run needs to go on: parameters, the optimiser's moments, the state of torch's generator."""
    tensors = {f"module.{name}": tensor for name, tensor in module.state_dict().items()}
    for number, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{number}.{name}": value for name, value in state.items()}
    return tensors | {"generator": torch.get_rng_state()}


def restore(module: nn.Module, optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Put `training_tensors` back."""
    prefix = "module."
    module.load_state_dict({name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)})
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimiser."):
            _, number, moment = name.split(".")
            state.setdefault(int(number), {})[moment] = tensor
    optimiser.load_state_dict(optimiser.state_dict() | {"state": state})
    torch.set_rng_state(tensors["generator"])
