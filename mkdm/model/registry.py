"""Models of an MLflow registry, Unity Catalog's among them, and of MLflow runs: found, and their files taken.

What MLflow would load is never loaded here: of an MLflow model the safetensors folder in it is copied, by its files.
"""

import re
import shutil
from pathlib import Path
from typing import Any

import yaml

from mkdm.errors import ConfigError, ModelError
from mkdm.model.copies import MODEL, RUN, VERSION, Found
from mkdm.model.mlflow_server import asking, is_missing

_REGISTERED = re.compile(r"^models:/(?P<name>[^/@:#]+)(?:@(?P<alias>[^/@:#]+)|/(?P<version>\d+))$")
_OF_RUN = re.compile(r"^runs:/(?P<run>[^/#]+)/(?P<path>[^#]+)$")
_FORMS = "models:/NAME@ALIAS, models:/NAME/VERSION or runs:/RUN/PATH"
_ML_MODEL = "MLmodel"


def find(uri: str) -> Found:
    """The model of a URI at the version that it names now.

    Raises:
        ConfigError: it is no such URI; MLflow is not installed, or nobody said where its server is.
        ModelError: the registry has no such model, version or alias, or does not answer.
    """
    if (match := _REGISTERED.match(uri)) is not None:
        return _registered(uri, match["name"], match["alias"], match["version"])
    if (match := _OF_RUN.match(uri)) is not None:
        return _of_run(uri, match["run"], match["path"].strip("/"))
    raise ConfigError(f"{uri} is no model of MLflow: give {_FORMS}")


def _registered(uri: str, name: str, alias: str | None, number: str | None) -> Found:
    with asking(uri) as mlflow:
        client = mlflow.MlflowClient()
        try:
            if alias is None:
                version = client.get_model_version(name, number)
            else:
                version = client.get_model_version_by_alias(name, alias)
        except mlflow.exceptions.MlflowException as error:
            if not is_missing(error):
                raise
            raise ModelError(f"{uri}: {_what_is_there(client, name, alias)}") from error
        where, pinned = mlflow.get_registry_uri(), f"models:/{name}/{version.version}"
    stamps = (where, str(version.creation_timestamp), str(version.source), str(version.run_id))
    origin = {MODEL: name, VERSION: str(version.version)} | ({RUN: version.run_id} if version.run_id else {})
    return Found(pinned, stamps, origin, alias or "", lambda part: _fetch(pinned, part))


def _what_is_there(client: Any, name: str, alias: str | None) -> str:
    """Says what a registry has in place of what was not found."""
    try:
        model = client.get_registered_model(name)
    except Exception:
        return f"there is no registered model {name}: check its name, in Unity Catalog CATALOG.SCHEMA.NAME"
    if alias is None:
        return f"the registered model {name} has no such version"
    there = ", ".join(sorted(model.aliases)) or "none"
    return f"the registered model {name} has no alias {alias} (it has: {there})"


def _of_run(uri: str, run: str, path: str) -> Found:
    with asking(uri) as mlflow:
        try:
            info = mlflow.get_run(run).info
        except mlflow.exceptions.MlflowException as error:
            if not is_missing(error):
                raise
            raise ModelError(f"{uri}: there is no run {run}") from error
        stamps = (mlflow.get_tracking_uri(), str(info.artifact_uri), str(info.end_time))
    return Found(uri, stamps, {MODEL: uri, RUN: run}, "", lambda part: _fetch(uri, part))


def _fetch(uri: str, part: Path) -> None:
    """Download an artifact, and keep of it what belongs to the model."""
    whole = part.with_name(f"{part.name}.whole")
    try:
        with asking(uri) as mlflow:
            got = Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, dst_path=str(whole)))
        for folder in _folders_in(got, uri):
            shutil.copytree(folder, part, dirs_exist_ok=True, symlinks=True)
        if any(path.is_symlink() for path in part.rglob("*")):
            raise ModelError(f"{uri} has links among its files: register the model with its files")
    finally:
        shutil.rmtree(whole, ignore_errors=True)


def _folders_in(root: Path, uri: str) -> list[Path]:
    """Where the files of a model are in what was downloaded: one folder, or those of MLflow's flavour transformers.

    Raises:
        ModelError: nowhere.
    """
    if (root / "config.json").exists():
        return [root]
    artifacts = [path.parent for path in sorted(root.glob("artifacts/*/config.json"))]
    if len(artifacts) == 1:
        return artifacts
    flavours = _flavours(root)
    if "transformers" in flavours and (root / "model" / "config.json").exists():
        return [path for path in (root / "components" / "tokenizer", root / "model") if path.is_dir()]
    what = f"an MLflow model of {', '.join(flavours)}" if flavours else "no model folder"
    raise ModelError(
        f"{uri} is {what}, and no model of ours: config.json was looked for at its top and in artifacts/*; register "
        f"one with mkdm train or mkdm export-model, --register NAME"
    )


def _flavours(root: Path) -> list[str]:
    try:
        return sorted(yaml.safe_load((root / _ML_MODEL).read_text())["flavors"])
    except (OSError, yaml.YAMLError, KeyError, TypeError):
        return []
