"""What `mkdm export-model` left beside a model: the record of its IR files. Read by drivers too; needs no torch."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from mkdm.errors import ConfigError, ModelError
from mkdm.model.folder import file_hash, model_folders, model_version
from mkdm.model.labels import relevant_is_first
from mkdm.model.prompting import Prompting

IR_FOLDER = "openvino"
IR_RECORD = "export.json"
IR_PRECISIONS = ("fp32", "bf16", "int8")
BY_SPEED = IR_PRECISIONS[::-1]
"""Precisions of IR files, fastest first."""


@dataclass(frozen=True)
class ExportedModel:
    """One IR file pair, or with separate layers two, and how it did at the quality gate.

    Attributes:
        sha256: of the .xml and the .bin file, by name; see `text_part`.
        passed: whether it passed the gate, so that `auto` may take it.
        figures: what the gate measured; see `mkdm.export.quality_gate`.
    """

    sha256: dict[str, str]
    passed: bool
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Export:
    """The record of an export.

    Attributes:
        model_version: of the safetensors that it was made from.
        max_length: tokens that the model takes.
        tools: versions of the packages that made it.
        about: by name, what it was made and judged with: tables and their versions, settings.
        reference: figures of the model in fp32 by torch, on the same pairs.
        exported: by precision, the IR files that are there.
        refused: by precision, the figures of those that failed the gate and were not kept.
        first_label: whether its scores are of the first of a teacher's two labels; see `relevant_label`.
        beside: names of the files that were written beside the exported ones.
    """

    model_version: str
    max_length: int
    tools: dict[str, str]
    about: dict[str, str]
    reference: dict[str, float]
    exported: dict[str, ExportedModel]
    refused: dict[str, dict[str, float]] = field(default_factory=dict)
    first_label: bool = False
    beside: tuple[str, ...] = ()

    def version(self, precision: str = "auto") -> str:
        """What stands for the files that a run at that precision may take: 16 hexadecimal digits.

        They are the same for the same weights made by the same tools. The .xml files have no part in it: OpenVINO
        numbers the names in them anew each time.
        """
        taken = [
            one for name, one in self.exported.items() if name == precision or (precision == "auto" and one.passed)
        ]
        weights = {name: digest for one in taken for name, digest in one.sha256.items() if name.endswith(".bin")}
        content = weights | self.tools
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]

    def write(self, folder: Path) -> None:
        """Write the record into the folder of the IR files."""
        (folder / IR_RECORD).write_text(json.dumps(asdict(self), indent=2) + "\n")

    def choose(self, precision: str, fast: tuple[str, ...] = BY_SPEED) -> str | None:
        """The precision to run: the named one if it is there, or for `auto` the fastest that passed its gate.

        Args:
            fast: those that the machine runs well, fastest first.
        """
        if precision != "auto":
            return precision if precision in self.exported else None
        return next((name for name in fast if name in self.exported and self.exported[name].passed), None)


def own_files(folder: str | Path, place: str = IR_FOLDER) -> set[str]:
    """Names of the files in a model's folder of exported files that `mkdm export-model` made, the record among them.

    Whatever else lies there is another tool's, such as the openvino_model.xml of optimum and sentence-transformers.
    """
    try:
        fields = json.loads(Path(folder, place, IR_RECORD).read_text())
        return {
            IR_RECORD,
            *fields.get("beside", ()),
            *(name for one in fields["exported"].values() for name in one["sha256"]),
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return set()


def _is_foreign(fields: object) -> bool:
    return isinstance(fields, dict) and bool(fields) and not fields.keys() & {"model_version", "exported", "tools"}


def read_export(folder: str | Path, place: str = IR_FOLDER) -> Export | None:
    """The record of a model folder's export, or None where there is none, or only another tool's file of that name.

    Args:
        place: of the exported files in the folder.

    Raises:
        ModelError: it cannot be read, was made of other weights than the folder's, or for another label.
    """
    record = Path(folder, place, IR_RECORD)
    if not record.exists():
        return None
    try:
        fields = json.loads(record.read_text())
        if _is_foreign(fields):
            return None
        exported = {name: ExportedModel(**one) for name, one in fields.pop("exported").items()}
        export = Export(**fields, exported=exported)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(
            f"{record} cannot be read ({error!r}): remove it and the files beside it, and run mkdm export-model again"
        ) from error
    version = model_version(folder)
    if export.model_version != version:
        raise ModelError(
            f"{record} was made of model version {export.model_version}, the folder is {version} now: run mkdm "
            f"export-model again, or remove {record.parent}"
        )
    if export.first_label != relevant_is_first(folder):
        raise ModelError(f"{record} was made for another of the model's labels: run mkdm export-model again")
    return export


def check_backend(models: str | Path, backend: str, precision: str) -> str | None:
    """Check, before a task starts, that backend and precision can be had from the models' files.

    Returns:
        What stands for the IR files that may be run, or None where torch alone can be chosen.

    Raises:
        ConfigError: a precision that the backend lacks.
        ModelError: no export, or not at that precision; or one that is broken.
    """
    if backend.startswith("torch"):
        if precision == "int8":
            raise ConfigError("int8 is run by the openvino backend: leave --backend out, or choose another --precision")
        return None
    if precision == "fp16" and backend == "openvino":
        raise ConfigError("the openvino backend runs fp32, bf16 and int8; fp16 is for torch on a GPU")
    versions = []
    for folder in model_folders(models):
        export = read_export(folder)
        if (backend == "openvino" or precision == "int8") and (export is None or export.choose(precision) is None):
            raise ModelError(missing(folder, export, precision))
        if export is not None and export.choose(precision) is not None:
            versions.append(export.version(precision))
    return " ".join(sorted(versions)) or None


def backend_for(backend: str, prompting: Prompting) -> str:
    """The backend to ask for: torch where a label is given, since IR files answer for the model's own.

    Raises:
        ConfigError: openvino, with a label.
    """
    if prompting.label is None:
        return backend
    if backend == "openvino":
        raise ConfigError("IR files answer for the model's own label: take the torch backend, or leave the label out")
    return "torch" if backend == "auto" else backend


def missing(folder: str | Path, export: Export | None, precision: str) -> str:
    """Says that an IR file is not there, why, and what to do."""
    wanted = "IR files that passed their gate" if precision == "auto" else f"{precision} IR file"
    if export is None:
        return f"{folder} has no {wanted}: run mkdm export-model --model {folder} first"
    if precision in export.refused:
        return (
            f"{folder} has no {wanted}: it was refused for its quality; see {Path(folder, IR_FOLDER, IR_RECORD)}, or "
            f"run mkdm export-model --model {folder} with --force true"
        )
    there = ", ".join(export.exported) or "none"
    if precision == "auto":
        return f"{folder} has no {wanted} (there, but not for auto here: {there}): name one with --precision"
    return f"{folder} has no {wanted} (there: {there}): run mkdm export-model --model {folder} --precisions {precision}"


def verify(folder: str | Path, one: ExportedModel, place: str = IR_FOLDER) -> Path:
    """The .xml or .onnx file of an exported model, after checking that all its files are as they were written.

    Raises:
        ModelError: a file is missing or has changed.
    """
    for name, digest in one.sha256.items():
        path = Path(folder, place, name)
        if not path.exists() or file_hash(path) != digest:
            state = "has changed since it was exported" if path.exists() else "is missing"
            raise ModelError(f"{path} {state}: run mkdm export-model again")
    names = [name for name in one.sha256 if name.endswith((".xml", ".onnx"))]
    return Path(folder, place, min(names, key=len))  # with separate layers that of pairs, not that of texts


def text_part(xml: Path) -> Path:
    """With separate layers, the .xml file of texts that belongs to that of pairs."""
    return xml.with_name(f"{xml.stem}-text.xml")
