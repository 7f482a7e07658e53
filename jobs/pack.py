"""Packs the engine and its packages for a cluster's executors: `mkdm pack`."""

import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cluster.delta import SESSION_CONF, delta_package
from cluster.pack import Packed, build_wheel, extra_requirements, pack, submit_flags
from jobs.engine import run_job
from mkdm.config import parse_config
from mkdm.errors import ConfigError

CHECKOUT = Path(__file__).parent.parent
BARE = ("delta-spark", "importlib-metadata", "zipp")
"""The Python of Delta Lake, which would bring Spark, and what else it needs."""
CHECK = (
    "import jobs.score, udfs.passages, udfs.words, mkdm.scoring.scorer, mkdm.text.passages, mkdm.text.block_scores, "
    "mkdm.model.tokenizer, pandas, pyarrow"
)
RUNTIMES = {"torch": ", mkdm.scoring.torch_backend", "openvino": ", mkdm.scoring.openvino_backend"}


@dataclass(frozen=True)
class PackConfig:
    """Pack the engine and the packages that scoring, labelling and building pairs need into an archive for executors.

    Raises:
        ConfigError: a file that is not there.
    """

    output: str
    """Folder for the archive, the wheel and submit.py."""
    runtime: Literal["torch", "openvino", "both"] = "torch"
    """What runs models: torch runs all of them, and is 2 GB or more with its libraries for GPUs unless pip is given an
    index of CPU builds; openvino runs those that mkdm export-model has exported, on CPUs, and is small."""
    extras: str = ""
    """Drivers of storage for models at URIs, joined by commas: s3, abfs, gs."""
    wheel: str | None = None
    """Wheel of the engine; default: built from the checkout that this command runs from."""
    constraints: str | None = None
    """Versions for pip; default: constraints.txt of the checkout."""

    def __post_init__(self) -> None:
        for name in ("wheel", "constraints"):
            value = getattr(self, name)
            if value is not None and not Path(value).is_file():
                raise ConfigError(f"--{name} is {value}, where there is no file")

    @property
    def all_extras(self) -> list[str]:
        """The extras of setup.cfg that are packed."""
        runtimes = ["torch", "openvino"] if self.runtime == "both" else [self.runtime]
        more = [name.strip() for name in self.extras.split(",") if name.strip()]
        return ["executor", *(f"executor-{name}" for name in runtimes), *more]


@dataclass(frozen=True)
class PackReport:
    """What was packed, how long it took, and how it is used."""

    packed: Packed
    seconds: float

    @property
    def command(self) -> list[str]:
        """The spark-submit command."""
        packages = ["--packages", delta_package()]
        flags = submit_flags(self.packed.archive.resolve(), dict(SESSION_CONF))
        return ["spark-submit", *packages, *flags, str(self.packed.submit.resolve())]

    def __str__(self) -> str:
        size = self.packed.archive.stat().st_size
        return (
            f"packed            {self.packed.packages} packages, {self.packed.unpacked_bytes / 1e6:,.0f} MB unpacked\n"
            f"archive           {self.packed.archive}, {size / 1e6:,.0f} MB, made in {self.seconds:.0f} s\n"
            f"wheel             {self.packed.wheel}\n\n"
            f"{shlex.join(self.command)} score --model URI --warehouse URI\n"
        )


def run(config: PackConfig) -> PackReport:
    """Pack; needs pip, and no Spark.

    Raises:
        ClusterError: pip cannot install what is asked for, or the outcome does not import.
    """
    start = time.monotonic()
    output = Path(config.output)
    output.mkdir(parents=True, exist_ok=True)
    wheel = Path(config.wheel) if config.wheel else build_wheel(CHECKOUT, output)
    default = CHECKOUT / "constraints.txt"
    constraints = Path(config.constraints) if config.constraints else default if default.exists() else None
    check = CHECK + "".join(text for name, text in RUNTIMES.items() if config.runtime in (name, "both"))
    packed = pack(output, wheel, extra_requirements(wheel, config.all_extras), BARE, constraints, check)
    return PackReport(packed, time.monotonic() - start)


def main(argv: Sequence[str] | None = None) -> None:
    """Pack from the command line."""
    (config,) = parse_config("mkdm pack", argv, PackConfig)
    print(run(config), end="")


if __name__ == "__main__":
    run_job(main)
