"""Loads tokenizers, from a folder or a URI. Needs no torch, so that an executor may run IR files without it."""

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from mkdm.errors import ModelError, first_line
from mkdm.model.fetch import folder_of
from mkdm.quiet import quiet_transformers


def load_tokenizer(location: str | Path) -> Any:
    """The tokenizer of a folder, read offline; of a URI, from a local copy.

    Raises:
        ModelError: there is none, or the URI cannot be read.
    """
    folder = folder_of(location)
    try:
        with quiet_transformers():  # which does not know our students by name where torch has not been loaded
            return AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever a config or a file of the tokenizer makes transformers raise
        raise ModelError(f"cannot load the tokenizer at {location}: {first_line(error)}") from error
