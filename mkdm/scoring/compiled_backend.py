"""The torch backend with its model compiled by `torch.compile`: what follows a matrix product is fused into one kernel.

It takes half a minute or more to compile, once per process and shape of the model, so that it is not chosen by `auto`.
"""

from pathlib import Path

from mkdm.errors import ConfigError
from mkdm.model import PLAIN, Prompting
from mkdm.scoring import torch_backend
from mkdm.scoring.backend import LoadedBackend
from mkdm.scoring.separate_scoring import score_at_once


def load(
    folder: str | Path, precision: str, threads: int | None, streams: int | None, prompting: Prompting = PLAIN
) -> LoadedBackend:
    """Load a model folder and compile it for batches of any shape; see `mkdm.scoring.backend.load_backend`.

    Raises:
        ConfigError: it does not compile here.
    """
    loaded = torch_backend.load(folder, precision, threads, streams, prompting)
    backend, encoder = loaded.backend, loaded.encoder()
    assert isinstance(backend, torch_backend.TorchBackend)
    backend.compile()
    passages = ["a", "a a", "a a a", "a a a a"]
    try:
        for rows in (4, 2):  # of two shapes, so that shapes are left open from here on
            pairs = encoder.encode(["a"] * rows, passages[:rows])
            score_at_once(backend, encoder, pairs)
    except Exception as error:  # whatever compilers raise
        raise ConfigError(
            f"torch.compile does not work here: {' '.join(str(error).split())[:200]}; use --backend torch"
        ) from error
    return loaded
