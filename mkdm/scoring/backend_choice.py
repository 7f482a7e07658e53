"""Which backend runs a model here: the one that was asked for, or the one that suits folder and machine."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from mkdm.errors import ConfigError
from mkdm.model import PLAIN, Prompting, backend_for, check_backend, folder_of, model_version, read_export
from mkdm.scoring.backend import LoadedBackend
from mkdm.scoring.machine import has_gpu

BACKENDS = {
    "torch": "mkdm.scoring.torch_backend",
    "torch-compile": "mkdm.scoring.compiled_backend",
    "openvino": "mkdm.scoring.openvino_backend",
}
PRECISIONS = ("auto", "fp32", "bf16", "fp16", "int8")


def load_backend(
    folder: str | Path,
    backend: str,
    precision: str,
    threads: int | None = None,
    streams: int | None = None,
    prompting: Prompting = PLAIN,
) -> LoadedBackend:
    """Load the model at `folder` into a backend.

    Args:
        backend: auto takes openvino where the folder has an IR file of that precision and there is no GPU, else torch.
        threads: cores to use on a CPU; None takes all.
        streams: batches that share them; None takes what suits the backend.
        prompting: how the model is asked.

    Raises:
        ConfigError: no such backend or precision, or the machine cannot run it.
        ModelError: the folder does not load, or has no such IR file.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"no precision {precision!r}: choose one of {', '.join(PRECISIONS)}")
    if backend not in (*BACKENDS, "auto"):
        raise ConfigError(f"no backend {backend!r}: choose auto or one of {', '.join(BACKENDS)}")
    folder = folder_of(folder, model_version)
    backend = backend_for(backend, prompting)
    check_backend(folder, backend, precision)
    name = _suitable(folder, precision) if backend == "auto" else backend
    if name == "openvino" and find_spec("openvino") is None:
        raise ConfigError("the openvino backend needs the extra `cpu`: pip install 'mkdm[cpu]'")
    if name != "openvino" and find_spec("torch") is None:
        raise ConfigError(
            f"there is no torch in this environment, and {folder} has no IR file that this machine runs well at "
            f"--precision {precision}: run mkdm export-model on it, or pack the environment with --runtime torch"
        )
    loaded: LoadedBackend = import_module(BACKENDS[name]).load(folder, precision, threads, streams, prompting)
    return loaded


def _suitable(folder: str | Path, precision: str) -> str:
    export = read_export(folder)
    if export is None or find_spec("openvino") is None:
        return "torch"
    from mkdm.scoring.openvino_backend import machine_precisions

    if precision != "int8" and has_gpu():
        return "torch"
    return "openvino" if export.choose(precision, machine_precisions()) else "torch"
