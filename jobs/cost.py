"""Machine hours and money for very many pairs, from what `mkdm benchmark` measured: `mkdm cost`.

It is a command of its own: it needs neither model nor pairs, and takes the figures of several machines.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from jobs.engine import run_job
from jobs.reports import BenchmarkResults, job_and_scorer
from mkdm.config import parse_config, require_at_least
from mkdm.errors import ConfigError

DEVICES = {"cpu": "CPU", "cuda": "GPU"}


@dataclass(frozen=True)
class CostConfig:
    """Tell machine hours and money for very many pairs, from the figures of one benchmark or several.

    Raises:
        ConfigError: a number outside its range.
    """

    figures: str
    """benchmark.json files, joined by commas: of a CPU machine, of a GPU machine, or of several of either."""
    pairs: str = "1e9,1e11"
    """Numbers of pairs, joined by commas."""
    cpu_price: float | None = None
    """Price of an hour of a CPU machine like the one measured, in whatever currency."""
    gpu_price: float | None = None
    """Price of an hour of a GPU machine like the one measured."""
    machines: int = 100
    """Executors that share the work; each is a machine like the one measured."""
    utilisation: float = 0.9
    """Share of the paid hours, above 0 to 1, in which executors score; the rest is start-up, stragglers, repeats."""

    def __post_init__(self) -> None:
        if not 0 < self.utilisation <= 1:
            raise ConfigError(f"--utilisation is {self.utilisation}; it must lie in (0, 1]")
        require_at_least(self, 1, "machines")
        for name in ("cpu_price", "gpu_price"):
            price = getattr(self, name)
            if price is not None and price < 0:
                raise ConfigError(f"--{name.replace('_', '-')} is {price}; it must not be negative")
        self.sizes()

    def sizes(self) -> list[int]:
        """The numbers of pairs.

        Raises:
            ConfigError: one is no number from 1 on.
        """
        try:
            sizes = [round(float(part)) for part in self.pairs.split(",")]
        except (ValueError, OverflowError) as error:
            raise ConfigError(f"--pairs is {self.pairs!r}; it must be numbers joined by commas") from error
        if min(sizes) < 1:
            raise ConfigError(f"--pairs is {self.pairs!r}; each must be at least 1")
        return sizes


@dataclass(frozen=True)
class Cost:
    """What some number of pairs costs on executors of one kind.

    Attributes:
        backend: backend:precision of the job.
        rate: pairs/s of the scorer alone, on the executor's cores.
        share: of that rate that the job keeps, beyond the seconds that do not grow with the pairs.
        at_least: whether the job was too short to tell that, and share counts those seconds too.
        machine_hours: paid for.
        money: None without a price.
    """

    device: str
    machine: str
    backend: str
    rate: float
    share: float
    at_least: bool
    pairs: int
    machine_hours: float
    money: float | None


def costs(results: BenchmarkResults, config: CostConfig) -> list[Cost]:
    """The cost of each number of pairs, for each job that was measured beside its scorer.

    Machine hours are pairs / (rate × share × utilisation × 3600).
    """
    device = DEVICES[results.machine.device]
    machine = f"{results.machine.name}, {results.machine.cores} cores"
    price = config.cpu_price if device == "CPU" else config.gpu_price
    found = []
    for job, scorer in job_and_scorer(results):
        share = (job.growing_rate or job.rate) / scorer.rate
        for pairs in config.sizes():
            hours = pairs / (scorer.rate * share * config.utilisation * 3600)
            money = None if price is None else hours * price
            backend = job.side.partition(":")[2]
            at_least = job.growing_rate is None
            found.append(Cost(device, machine, backend, scorer.rate, share, at_least, pairs, hours, money))
    return found


def table(all_results: Sequence[BenchmarkResults], config: CostConfig) -> str:
    """The table that `mkdm cost` prints. A device without figures is said not to be measured."""
    rows = [cost for results in all_results for cost in costs(results, config)]
    shapes = {one.student_shape for one in all_results}
    width = max([len(cost.machine) for cost in rows] + [7])
    lines = [
        f"student {', '.join(sorted(shapes))}; {config.machines:,} executors, each a machine like the one measured; "
        f"{config.utilisation:.0%} of their hours scoring",
        f"{'executor':<{width + 5}}{'backend':>15}{'scorer, pairs/s':>17}{'job keeps':>11}{'pairs':>9}"
        f"{'machine hours':>15}{'money':>12}{'hours in all':>14}",
    ]
    for device in DEVICES.values():
        mine = [cost for cost in rows if cost.device == device]
        if not mine:
            lines.append(f"{device}  not measured: no job beside its scorer in the figures given")
        for one in mine:
            share = f"{'≥ ' if one.at_least else ''}{one.share:.0%}"
            money = "no price" if one.money is None else f"{one.money:,.2f}"
            lines.append(
                f"{device}  {one.machine:<{width}}{one.backend:>15}{one.rate:>17,.1f}{share:>11}"
                f"{one.pairs:>9.0e}{one.machine_hours:>15,.1f}{money:>12}{one.machine_hours / config.machines:>14,.1f}"
            )
    if any(cost.at_least for cost in rows):
        lines.append("≥: the benchmark scored too few pairs to tell; the start and end of a job are counted as a loss.")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> None:
    """Read the figures and print the table."""
    (config,) = parse_config("mkdm cost", argv, CostConfig)
    print(table([BenchmarkResults.read(path.strip()) for path in config.figures.split(",")], config))


if __name__ == "__main__":
    run_job(main)
