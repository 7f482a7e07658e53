"""What the driver of `mkdm export-model` runs; loads torch and OpenVINO when it is called."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec

import numpy as np
import pandas as pd

from mkdm.columns import GOLDEN_LABEL, PASSAGE, QUERY, QUERY_ID
from mkdm.errors import ConfigError
from mkdm.export import Registration, register
from mkdm.model import IR_PRECISIONS, Export

__all__ = ["PRECISIONS", "Registration", "check_installed", "export", "machine_precisions", "register"]

PRECISIONS = {"openvino": IR_PRECISIONS, "onnx": ("fp32", "int8")}
"""By format, the precisions that there are."""
_NEEDS = {"openvino": (("openvino", "nncf"), "cpu"), "onnx": (("onnx", "onnxruntime"), "onnx")}
"""By format, the packages that it needs, and the extra that has them."""


def export(
    kind: str,
    model: str,
    calibration: pd.DataFrame,
    validation: pd.DataFrame,
    precisions: Sequence[str],
    seed: int,
    max_auc_loss: float,
    force: bool,
    about: dict[str, str],
    say: Callable[[str], None],
) -> Export:
    """Export a model; see `export_model` and `export_onnx` of `mkdm.export`.

    Args:
        kind: openvino or onnx.
        calibration: query, passage.
        validation: query_id, query, passage, golden_label.

    Raises:
        ConfigError: what the format needs is not installed.
        ModelError: the model does not load or convert.
        InputError: the pairs cannot judge it.
    """
    check_installed(kind)
    from mkdm.export import ExportSettings, ValidationPairs, export_model, export_onnx

    return (export_onnx if kind == "onnx" else export_model)(
        model,
        (calibration[QUERY].tolist(), calibration[PASSAGE].tolist()),
        ValidationPairs(
            validation[QUERY_ID].tolist(),
            validation[QUERY].tolist(),
            validation[PASSAGE].tolist(),
            validation[GOLDEN_LABEL].to_numpy(np.int64),
        ),
        ExportSettings(tuple(precisions), seed, max_auc_loss, force),
        about,
        say,
    )


def machine_precisions() -> tuple[str, ...]:
    """The precisions that OpenVINO runs well on this CPU, fastest first; none where it, or nncf, is not installed."""
    if find_spec("openvino") is None or find_spec("nncf") is None:
        return ()
    from mkdm import scoring

    return scoring.machine_precisions()


def check_installed(kind: str) -> None:
    """Check that the extra of a format is installed.

    Raises:
        ConfigError: it is not.
    """
    packages, extra = _NEEDS[kind]
    missing = [name for name in packages if find_spec(name) is None]
    if missing:
        raise ConfigError(f"{' and '.join(missing)} not installed: pip install 'mkdm[{extra}]'")
