"""A training set as files: what its manifest says, and whether its files are as written. Needs neither torch nor Spark.

`mkdm export-training-set` writes it, `mkdm.train.petastorm_feed` and `mkdm.train.arrow_feed` read it.
"""

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from typing import Any

import fsspec

from mkdm.errors import InputError
from mkdm.model import tokenizer_version
from mkdm.scoring import Template

MANIFEST = "manifest.json"
FORMAT = 1
"""Counts up whenever an older reader would misread a set."""


@dataclass(frozen=True)
class TrainingFile:
    """One Parquet file of a training set.

    Attributes:
        path: relative to the set's folder.
        row_groups: rows of each row group; the export writes files of one.
    """

    path: str
    split: str
    rows: int
    row_groups: list[int]
    bytes: int
    sha256: str


@dataclass(frozen=True)
class TrainingSet:
    """What the manifest says.

    Attributes:
        folder: where the manifest is; a path or a URI that fsspec knows.
        fingerprint: 32 hex digits over all that decided the content.
        max_length: token ids of every row, padding included.
        teacher_ids: by number, the teachers whose soft labels the rows have.
        teacher_versions: the version of each.
        tokenizer: `tokenizer_version` of the tokenizer that encoded it.
        sources: by number, what the rows' sources are called.
        splits: by name, the share of the queries.
        counts: what went in, what was left out or rejected, and by split and source what there is.
        settings: what was chosen that decides the content.
        input_versions: by table, the version that was read.
        columns: by name, the Parquet type of each column.
        run_id: the run that wrote it, in `runs`.
    """

    folder: str
    fingerprint: str
    run_id: str
    max_length: int
    teacher_ids: list[str]
    teacher_versions: list[str]
    tokenizer: str
    template: Template
    sources: list[str]
    splits: dict[str, float]
    counts: dict[str, Any]
    settings: dict[str, str]
    input_versions: dict[str, str]
    columns: dict[str, str]
    engine_version: str
    files: list[TrainingFile]

    @classmethod
    def read(cls, folder: str) -> "TrainingSet":
        """Read the manifest of a folder.

        Raises:
            InputError: there is none, it cannot be read, or it is of another format.
        """
        system, path = fsspec.core.url_to_fs(str(folder))
        try:
            return cls.parse(str(folder), system.cat_file(f"{path}/{MANIFEST}"))
        except FileNotFoundError as error:
            raise InputError(
                f"no training set at {folder}, or its export did not finish: it has no {MANIFEST}; run "
                f"mkdm export-training-set"
            ) from error
        except OSError as error:
            raise InputError(f"{folder}/{MANIFEST} cannot be read: {error!r}") from error

    @classmethod
    def parse(cls, folder: str, manifest: str | bytes) -> "TrainingSet":
        """The set of that folder, from the content of its manifest.

        Raises:
            InputError: it is no manifest, or one of another format.
        """
        try:
            content = json.loads(manifest)
            if content.pop("format") != FORMAT:
                raise InputError(f"{folder} is a training set of another format than {FORMAT}: export it again")
            files = [TrainingFile(**file) for file in content.pop("files")]
            template = Template(**content.pop("template"))
            return cls(folder=folder, template=template, files=files, **content)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{folder}/{MANIFEST} is damaged ({error!r}): export the set again") from error

    def manifest(self) -> str:
        """The content of the manifest; `parse` is its inverse."""
        content = {"format": FORMAT} | {field.name: getattr(self, field.name) for field in fields(self)[1:]}
        content["template"] = asdict(self.template)
        content["files"] = [asdict(file) for file in self.files]
        return json.dumps(content, indent=1) + "\n"

    def files_of(self, split: str) -> list[TrainingFile]:
        """The files of a split.

        Raises:
            InputError: the set has no such split, or no row of it.
        """
        files = [file for file in self.files if file.split == split]
        if not files:
            there = ", ".join(f"{name} ({self.counts['splits'][name]['rows']:,} rows)" for name in self.splits)
            raise InputError(f"the training set at {self.folder} has no row of the split {split!r}; it has {there}")
        return files

    def rows(self, split: str) -> int:
        """Rows of a split.

        Raises:
            InputError: the set has no such split, or no row of it.
        """
        return sum(file.rows for file in self.files_of(split))

    def check_files(self, split: str) -> None:
        """Check that the files of a split are there as they were written.

        Raises:
            InputError: one is missing or has changed.
        """
        system, root = fsspec.core.url_to_fs(self.folder)

        def check(file: TrainingFile) -> None:
            again = "copy the whole set again, or export it again with --overwrite true"
            try:
                size = int(system.size(f"{root}/{file.path}"))
                if size != file.bytes:
                    raise InputError(f"{self.folder}/{file.path} has {size:,} bytes, not {file.bytes:,}: {again}")
                digest = hashlib.sha256(system.cat_file(f"{root}/{file.path}")).hexdigest()
            except OSError as error:
                raise InputError(f"{self.folder}/{file.path} cannot be read ({error!r}): {again}") from error
            if digest != file.sha256:
                raise InputError(
                    f"{self.folder}/{file.path} has changed since it was written (sha256 {digest[:12]}…, written as "
                    f"{file.sha256[:12]}…): {again}"
                )

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(check, self.files_of(split)))

    def check_tokenizer(self, tokenizer: Any) -> None:
        """Check that a tokenizer would encode the pairs as they are encoded.

        Raises:
            InputError: it would not.
        """
        version = tokenizer_version(tokenizer)
        if version != self.tokenizer:
            raise InputError(
                f"the training set at {self.folder} was encoded by tokenizer {self.tokenizer}, this one is {version}: "
                f"train a model with that tokenizer, or export the set again with --tokenizer of this one"
            )


def stable_share(key: str) -> float:
    """A number in [0, 1) that depends on the text alone, the same on every machine."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64
