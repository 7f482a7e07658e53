"""Registers a model folder with MLflow: its files, a signature, figures, a card, and what scores a pandas frame."""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import pandas as pd

import mkdm
from mkdm.columns import PASSAGE, QUERY, SCORE
from mkdm.errors import ConfigError
from mkdm.model import (
    IR_FOLDER,
    asking,
    import_mlflow,
    is_chosen,
    model_version,
    own_files,
    read_export,
)

_CODE = Path(__file__).with_name("mlflow_pyfunc.py")
_NEEDED = ("fsspec", "numpy", "pandas", "PyYAML", "safetensors", "scipy", "torch", "transformers")
"""Packages that a scorer imports."""
CONTENT = "mkdm_content"
"""The tag of a registered version that tells what it holds: model version, and version of its IR files."""
_CARD = "README.md"
_PARTS = (".safetensors", ".json", ".jinja", ".txt", ".model")
_NO_PART = (".", "bad_batch_")
"""What of a folder's files is the model's."""
_FOREIGN = re.compile(r"[^\w\-./]")
EXAMPLE = {QUERY: ["what is a gasket"], PASSAGE: ["A gasket is a seal between two surfaces."]}
"""What MLflow shows, and scores once to see that the model works."""
LOOKED_AT = 20
"""Versions, newest first, among which one with the same content is looked for."""
MOST_TEXT = 4000
"""Characters of a card that the registry gets."""


@dataclass(frozen=True)
class Registration:
    """Where a model is to be registered.

    Attributes:
        name: of the registered model; in Unity Catalog CATALOG.SCHEMA.NAME.
        alias: that is set on the version, or None.
        uri: MLflow tracking URI; None follows the environment.
        experiment: of the run that a new version gets where there is none.
        run_id: MLflow's run that made the model, where there is one.

    Raises:
        ConfigError: MLflow is not installed, nobody said where its server is, or there is an alias without a name.
    """

    name: str
    alias: str | None = None
    uri: str | None = None
    experiment: str = "mkdm"
    run_id: str | None = None

    @classmethod
    def wanted(
        cls, name: str | None, alias: str | None, uri: str | None, experiment: str = "mkdm"
    ) -> "Registration | None":
        """What flags ask for; checked before anything is computed."""
        if name is None:
            if alias is not None:
                raise ConfigError("--register-alias names a version of --register NAME: give both")
            return None
        mlflow = import_mlflow("--register")
        if uri is None and not is_chosen(mlflow):
            raise ConfigError(f"--register {name}: give --mlflow URI, or set MLFLOW_TRACKING_URI to MLflow's server")
        return cls(name, alias, uri, experiment)


def register(folder: str | Path, wanted: Registration, figures: dict[str, float], about: dict[str, str]) -> str:
    """Register a model folder, unless a version of that name holds the same; and set the alias.

    Args:
        figures: of its quality; they become metrics of the run, and part of the card.
        about: what it was made with, for the card. A README.md of the folder goes before.

    Returns:
        Its location, models:/NAME/VERSION.

    Raises:
        ModelError: the folder is not whole, or MLflow refuses it.
    """
    folder = Path(folder)
    content = model_version(folder)
    export = read_export(folder)
    if export is not None:
        content += f" {export.version()}"
    with _asking(wanted) as mlflow:
        client = mlflow.MlflowClient()
        number = _version_with(client, wanted.name, content)
        if number is None:
            card = _card(folder, wanted.name, content, figures, about)
            number = _log(mlflow, folder, wanted, figures, card, content)
            client.update_model_version(wanted.name, number, description=card[:MOST_TEXT])
        if wanted.alias is not None:
            client.set_registered_model_alias(wanted.name, wanted.alias, number)
    return f"models:/{wanted.name}/{number}"


@contextmanager
def _asking(wanted: Registration) -> Iterator[Any]:
    mlflow = import_mlflow("--register")
    before = os.environ.get("MLFLOW_TRACKING_URI")  # which MLflow keeps equal to what was set in the process
    if wanted.uri is not None:
        mlflow.set_tracking_uri(wanted.uri)
    try:
        with asking(f"models:/{wanted.name}") as answering:
            yield answering
    finally:
        if wanted.uri is not None:
            mlflow.set_tracking_uri(None)
            if before is not None:
                os.environ["MLFLOW_TRACKING_URI"] = before


def _version_with(client: Any, name: str, content: str) -> str | None:
    """The newest version that holds that content."""
    found = sorted(client.search_model_versions(f"name='{name}'"), key=lambda one: int(one.version), reverse=True)
    for one in found[:LOOKED_AT]:
        tags = one.tags or client.get_model_version(name, one.version).tags  # Unity Catalog lists none
        if tags.get(CONTENT) == content:
            return str(one.version)
    return None


def _log(mlflow: Any, folder: Path, wanted: Registration, figures: dict[str, float], card: str, content: str) -> str:
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    signature = ModelSignature(
        Schema([ColSpec("string", QUERY), ColSpec("string", PASSAGE)]), Schema([ColSpec("float", SCORE)])
    )
    if wanted.run_id is None:
        mlflow.set_experiment(wanted.experiment)
    nested = mlflow.active_run() is not None
    with tempfile.TemporaryDirectory() as staged, mlflow.start_run(run_id=wanted.run_id, nested=nested):
        mlflow.log_metrics({_FOREIGN.sub(".", name): value for name, value in figures.items()})
        info = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(_CODE),
            artifacts={"model": str(_stage(folder, Path(staged), card))},
            code_paths=[str(Path(mkdm.__file__).parent)],
            pip_requirements=_requirements(folder),
            signature=signature,
            input_example=pd.DataFrame(EXAMPLE),
            metadata={CONTENT: content},
        )
        registered = mlflow.register_model(info.model_uri, wanted.name, tags={CONTENT: content})
    return str(registered.version)


def _stage(folder: Path, staged: Path, card: str) -> Path:
    """Copy what belongs to a model, and its card, into a folder of its own: not logs or states beside it."""
    target = staged / "model"
    taken = [path.name for path in folder.iterdir() if path.suffix in _PARTS and not path.name.startswith(_NO_PART)]
    for name in [*taken, *(f"{IR_FOLDER}/{name}" for name in own_files(folder))]:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, target / name)
    (target / _CARD).write_text(card)
    return target


def _requirements(folder: Path) -> list[str]:
    """What a machine that serves the model must install; the engine's own code goes with the model."""
    names = [*_NEEDED, "openvino"] if own_files(folder) else _NEEDED
    found = []
    for name in ("mlflow-skinny", *names):
        try:
            found.append(f"{name}=={version(name).partition('+')[0]}")
        except PackageNotFoundError:
            continue
    return found


def _card(folder: Path, name: str, content: str, figures: dict[str, float], about: dict[str, str]) -> str:
    """The model card, in Markdown."""
    own = (folder / _CARD).read_text() if (folder / _CARD).exists() else f"# {name}\n"
    lines = [own.rstrip(), "", f"Scores how well a passage answers a query, in [0, 1]. Content: {content}."]
    lines += ["", "| figure | |", "|---|---|", *(f"| {key} | {value:.6g} |" for key, value in figures.items())]
    lines += ["", "| made with | |", "|---|---|", *(f"| {key} | {value} |" for key, value in about.items())]
    return "\n".join(lines) + "\n"
