"""What the driver of `mkdm export-model` runs; loads torch and OpenVINO when it is called."""

from collections.abc import Callable, Sequence
from importlib.util import find_spec

import numpy as np
import pandas as pd

from mkdm.columns import GOLDEN_LABEL, PASSAGE, QUERY, QUERY_ID
from mkdm.errors import ConfigError
from mkdm.export import Registration, register
from mkdm.model import IR_PRECISIONS, Export

__all__ = ["IR_PRECISIONS", "Registration", "check_installed", "export", "machine_precisions", "register"]


def export(
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
    """Export a model; see `mkdm.export.openvino_export.export_model`.

    Args:
        calibration: query, passage.
        validation: query_id, query, passage, golden_label.

    Raises:
        ConfigError: OpenVINO or nncf is not installed.
        ModelError: the model does not load or convert.
        InputError: the pairs cannot judge it.
    """
    check_installed()
    from mkdm.export import ExportSettings, ValidationPairs, export_model

    return export_model(
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


def check_installed() -> None:
    """Check that the extra `cpu` is installed.

    Raises:
        ConfigError: it is not.
    """
    missing = [name for name in ("openvino", "nncf") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"{' and '.join(missing)} not installed: pip install 'mkdm[cpu]'")
