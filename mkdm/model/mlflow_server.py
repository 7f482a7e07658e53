"""MLflow, asked within a bounded time, with its errors told as ours."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mkdm.errors import ConfigError, ModelError
from mkdm.model.copies import told

_BOUNDED = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # its own 7 take minutes
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
_NOT_OPEN = ("PERMISSION_DENIED", "UNAUTHENTICATED", "CUSTOMER_UNAUTHORIZED")
_NOT_REACHED = ("failed with exception", "failed with timeout", "Max retries exceeded", "Connection refused")


def import_mlflow(why: str) -> Any:
    """The package, with its telemetry off, and its folders of files allowed where the environment names one.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import mlflow
    except ImportError as error:
        raise ConfigError(
            f"{why} needs MLflow, which is not installed ({error}): pip install 'mkdm[mlflow]'"
        ) from error
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    return mlflow


def allow_files(uri: str) -> None:
    """MLflow asks for a word of consent before it keeps runs in files: give it where a URI is a folder's."""
    if uri.startswith("file:") or ":" not in uri:
        os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")


def is_chosen(mlflow: Any) -> bool:
    """Whether anybody said where MLflow's server is; left alone it makes a database in the working folder."""
    return bool(
        mlflow.tracking.is_tracking_uri_set()
        or os.environ.get("MLFLOW_REGISTRY_URI")
        or "DATABRICKS_RUNTIME_VERSION" in os.environ
    )


@contextmanager
def asking(uri: str) -> Iterator[Any]:
    """MLflow at the server that the environment names, for as long as a `with` lasts.

    Args:
        uri: of the model that is asked for.

    Raises:
        ConfigError: MLflow is not installed, or nobody said where its server is.
        ModelError: the server is not reached within a minute or two, does not let this user, or has not what is asked.
    """
    mlflow = import_mlflow(f"a model at {uri}")
    if not is_chosen(mlflow):
        raise ConfigError(f"{uri}: set MLFLOW_TRACKING_URI to MLflow's server, such as databricks or http://HOST:5000")
    for server in (mlflow.get_tracking_uri(), mlflow.get_registry_uri()):
        allow_files(server)
    before = {name: os.environ.get(name) for name in _BOUNDED}
    os.environ.update({name: value for name, value in _BOUNDED.items() if before[name] is None})
    try:
        yield mlflow
    except mlflow.exceptions.MlflowException as error:
        raise ModelError(f"{uri}: {_reason(error, mlflow.get_registry_uri())}") from error
    except OSError as error:  # of artifact stores
        raise ModelError(f"cannot fetch {uri}: {told(error)}") from error
    finally:
        for name in _BOUNDED:
            if before[name] is None:
                os.environ.pop(name, None)


def is_missing(error: Exception) -> bool:
    """Whether an error of MLflow says that something is not there."""
    text = str(error).lower()
    return getattr(error, "error_code", "") == "RESOURCE_DOES_NOT_EXIST" or "not found" in text


def _reason(error: Any, server: str) -> str:
    text = told(error)[:300]
    if error.error_code in _NOT_OPEN:
        return f"the MLflow server {server} does not open it to you: check your token and rights ({text})"
    if any(sign in str(error) for sign in _NOT_REACHED):
        return f"the MLflow server {server} is not reached: check MLFLOW_TRACKING_URI ({text})"
    return f"the MLflow server {server} says: {text}"
