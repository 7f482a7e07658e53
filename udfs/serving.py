"""What `mkdm serve` runs; loads the server library, torch or OpenVINO when it is called."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from mkdm.errors import ConfigError

__all__ = ["serve"]
_NEEDS = ("starlette", "uvicorn", "prometheus_client")


def serve(model: str, name: str | None, say: Callable[[str], None], **settings: Any) -> None:
    """Serve a model until it is told to stop; see `mkdm.serving.serve`.

    Args:
        name: of the model in requests and responses; None takes the name of its folder.
        settings: the other fields of `mkdm.serving.ServingSettings`.

    Raises:
        ConfigError: the extra `serve` is not installed; and as for `mkdm.serving.serve`.
        ModelError, InputError: as for `mkdm.serving.serve`.
    """
    missing = [one for one in _NEEDS if find_spec(one) is None]
    if missing:
        raise ConfigError(f"{' and '.join(missing)} not installed: pip install 'mkdm[serve]'")
    from mkdm import serving

    serving.serve(serving.ServingSettings(model, name or serving.default_name(model), **settings), say)
