"""The flags of a rescoring, and the teacher that they name."""

from dataclasses import dataclass
from typing import Literal

from jobs.engine import PairsJobConfig
from mkdm.config import require_at_least
from mkdm.errors import ConfigError
from udfs.model import Teacher, read_zoo
from udfs.scoring import ScoringSettings, check_model


@dataclass(frozen=True, kw_only=True)
class RescoreFlags(PairsJobConfig):
    """Have a teacher read the best passages of each query anew.

    Raises:
        ConfigError: a number outside its range, or flags of a teacher without one.
    """

    rescore: str | None = None
    """Teacher that scores the best passages of each query anew: folder, URI or hub id of a model, or with --zoo the id
    of an entry. Several joined by commas are averaged. Default: the student's scores stand."""
    rescore_top: int = 20
    """Passages of a query that the teacher reads, the student's best; those below keep their order, and come after."""
    zoo: str | None = None
    """YAML file of teachers, of which --rescore names one; its entry tells precision and length too."""
    precision: Literal["auto", "fp32", "bf16", "fp16", "int8"] = "auto"
    """Number format of the teacher; auto takes the fastest that each executor has."""
    max_length: int | None = None
    """Tokens of a pair at most, special tokens included; the passage is cut. Default: as the teacher was trained."""
    rescored: str | None = None
    """Table of the teacher's scores, if not <warehouse>/rescored."""
    pairs_version: int | None = None
    """Delta version of the pairs, whose texts the teacher reads; default: the one that was scored."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_at_least(self, 1, "rescore_top", "max_length")
        if self.zoo is not None and self.rescore is None:
            raise ConfigError(f"--zoo {self.zoo} is of no use without --rescore: name one of its teachers")
        if self.zoo is not None and (self.max_length is not None or self.precision != "auto"):
            raise ConfigError("--precision and --max-length stand in the entry of --zoo: leave the flags out")


@dataclass(frozen=True)
class NamedTeacher:
    """A teacher that was checked on the driver.

    Attributes:
        checked: what every executor must find at its folder.
        settings: what changes its scores, besides its version; a part of the run's fingerprint.
    """

    checked: ScoringSettings
    settings: dict[str, str]


def teacher_of(flags: RescoreFlags) -> NamedTeacher:
    """The teacher that the flags name.

    Raises:
        ConfigError: the zoo is wrong or has no such teacher, or a setting that the model cannot meet.
        ModelError: its folder is missing, incomplete or changed, or is no model that scores pairs.
    """
    assert flags.rescore is not None
    if flags.zoo is None:
        teacher = Teacher(flags.rescore, flags.rescore, flags.max_length, flags.precision)
    else:
        by_id = {one.id: one for one in read_zoo(flags.zoo)}
        if flags.rescore not in by_id:
            raise ConfigError(f"{flags.zoo} has no teacher {flags.rescore!r}; it has {', '.join(by_id)}")
        teacher = by_id[flags.rescore]
    backend = teacher.backend or flags.backend
    checked = check_model(
        teacher.model, backend, teacher.precision, teacher.max_tokens, flags.token_budget, teacher.prompting
    )
    settings = {"backend": backend, "precision": teacher.precision, "max_length": str(teacher.max_tokens)}
    return NamedTeacher(checked, settings | checked.export_setting)
