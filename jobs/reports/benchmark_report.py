"""What `mkdm benchmark` prints and draws of its results."""

from pathlib import Path
from statistics import median

from jobs.reports.benchmark_results import BenchmarkResults, SideResult
from jobs.reports.benchmark_sides import BASE, OUR_SIDES

NOTE = (
    "GFLOP/s and share of peak: what a plain model computes for the pairs, without padding, per second, beside the\n"
    "fastest matrix product measured here. Our scorer computes less (mkdm/scoring/lean_encoder.py; equal pairs\n"
    "once), so that its share can pass what a plain model could reach. job, predict_batch_udf and ray go from\n"
    "table to table, all that they load included, their start-up left out; the other sides are loaded and warm."
)


def summary(results: BenchmarkResults) -> str:
    """The tables that `mkdm benchmark` prints."""
    parts = [_head(results)]
    if results.sides:
        parts += [_speed(results), NOTE, _footprint(results), _shares(results)]
    if results.latency:
        parts.append(_latency(results))
    return "\n\n".join(part for part in parts if part)


def _head(results: BenchmarkResults) -> str:
    machine, student = results.machine, results.student
    peaks = ", ".join(f"{name} {gflops:,.0f}" for name, gflops in machine.peaks.items())
    widened = f", widened {student['widen']} × with the same scores" if student["widen"] > 1 else ""
    return "\n".join(
        [
            f"{machine.name}, {machine.cores} cores, {machine.memory_gb:.0f} GB",
            f"fastest matrix products, GFLOP/s: {peaks}",
            f"student {results.student_shape}, {student['model']}{widened}",
            f"pairs of up to {student['max_length']} tokens, {student['mean_tokens']:.0f} on average",
            f"medians of {results.rounds} round(s)",
        ]
    )


def _speed(results: BenchmarkResults) -> str:
    width = max(len(one.side) for one in results.sides)
    base = results.side(BASE)
    lines = [
        f"{'side':<{width}}{'precision':>10}{'pairs':>8}{'pairs/s':>10}{'min–max':>16}{'× CrossEncoder':>16}"
        f"{'GFLOP/s':>9}{'of peak':>9}{'command, s':>12}"
    ]
    for one in results.sides:
        spread = f"{min(one.rates):,.1f}–{max(one.rates):,.1f}"
        ratio = f"{one.rate / base.rate:.2f}" if base else "–"
        peak = results.machine.peaks.get(one.precision)
        share = f"{one.gflops / peak:.0%}" if peak else "–"
        lines.append(
            f"{one.side:<{width}}{one.precision:>10}{one.pairs:>8,}{one.rate:>10,.1f}{spread:>16}{ratio:>16}"
            f"{one.gflops:>9,.0f}{share:>9}{median(one.command_seconds):>12,.1f}"
        )
    return "\n".join(lines)


def _footprint(results: BenchmarkResults) -> str:
    width = max(len(one.side) for one in results.sides)
    lines = [
        f"{'side':<{width}}{'model, MB':>10}{'Python, MB':>12}{'JVM, MB':>9}{'GPU, MB':>9}{'max |Δ|':>10}"
        f"{'mean |Δ|':>10}{'AUC':>8}{'ΔAUC':>9}{'missing':>9}"
    ]
    for one in results.sides:
        size = "–" if one.model_mb is None else f"{one.model_mb:,.0f}"
        memory = {kind: f"{mb:,.0f}" if mb else "–" for kind, mb in one.memory_mb.items()}
        quality = one.quality
        auc = "–" if quality.auc is None else f"{quality.auc:.4f}"
        drift = "–" if quality.auc_drift is None else f"{quality.auc_drift:+.4f}"
        lines.append(
            f"{one.side:<{width}}{size:>10}{memory['python']:>12}{memory['jvm']:>9}{memory['gpu']:>9}"
            f"{quality.max_drift:>10.1e}{quality.mean_drift:>10.1e}{auc:>8}{drift:>9}{quality.missing:>9,}"
        )
    lines.append(
        "Peak memory of all processes of a side. Δ: from the scores of the plain fp32 model on the same pairs."
    )
    return "\n".join(lines)


def job_and_scorer(results: BenchmarkResults) -> list[tuple[SideResult, SideResult]]:
    """The jobs and the scorers of the same backend and precision, where both were measured."""
    pairs = []
    for job in results.sides:
        name, _, rest = job.side.partition(":")
        scorer = results.side(f"{OUR_SIDES[1]}:{rest}")
        if name == OUR_SIDES[0] and scorer is not None:
            pairs.append((job, scorer))
    return pairs


def _shares(results: BenchmarkResults) -> str:
    lines = []
    for job, scorer in job_and_scorer(results):
        line = (
            f"{job.side}: the job runs at {job.rate / scorer.rate:.0%} of the scorer alone, its Spark start-up left out"
        )
        beyond = f"beyond the {job.fixed_seconds:.1f} s that it takes for {job.fixed_pairs} pairs"
        if job.growing_rate is None:
            line += f"; give more --rows to tell its share {beyond}"
        else:
            line += f"; at {job.growing_rate / scorer.rate:.0%} {beyond}"
        lines.append(line)
    return "\n".join(lines)


def _latency(results: BenchmarkResults) -> str:
    layers = sorted({one.layers for one in results.latency})
    sides = list(dict.fromkeys(one.side for one in results.latency))
    width = max(map(len, sides))
    by_place = {(one.side, one.layers): one for one in results.latency}
    lines = [
        f"One pair at a time, from texts to score, random weights of hidden size {results.student['hidden_size']}",
        f"{'pairs/s (QPS), by layers':<{width + 10}}" + "".join(f"{number:>9}" for number in layers),
    ]
    for side in sides:
        row = [by_place[side, number] for number in layers]
        lines.append(f"{side:<{width}}{row[0].precision:>10}" + "".join(f"{median(one.qps):>9,.1f}" for one in row))
    if any(one.side == BASE for one in results.latency):
        lines.append(f"{f'× {BASE}':<{width + 10}}")
        for side in sides:
            ratios = [median(by_place[side, n].qps) / median(by_place[BASE, n].qps) for n in layers]
            lines.append(f"{side:<{width + 10}}" + "".join(f"{ratio:>9.2f}" for ratio in ratios))
    lines.append(f"{'p50 / p99, ms':<{width + 10}}" + "".join(f"{number:>14}" for number in layers))
    for side in sides:
        row = [by_place[side, number] for number in layers]
        cells = "".join(f"{f'{one.p50_ms:.1f} / {one.p99_ms:.1f}':>14}" for one in row)
        lines.append(f"{side:<{width}}{row[0].precision:>10}{cells}")
    return "\n".join(lines)


def draw_chart(results: BenchmarkResults, path: Path) -> None:
    """Write a plot of the rates, and of QPS by layers if that was measured, as PNG."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter

    panels = bool(results.sides) + bool(results.latency)
    figure = Figure(figsize=(7.5 * panels, 1.6 + 0.34 * max(len(results.sides), 9)), layout="constrained")
    axes = list(figure.subplots(1, panels, squeeze=False)[0])
    if results.sides:
        plot, base = axes.pop(0), results.side(BASE)
        sides = sorted(results.sides, key=lambda one: one.rate)
        ours = [one.side.partition(":")[0] in OUR_SIDES for one in sides]
        rates = [one.rate for one in sides]
        spread = [
            [one.rate - min(one.rates) for one in sides],
            [max(one.rates) - one.rate for one in sides],
        ]
        colours = ["tab:blue" if mine else "tab:gray" for mine in ours]
        plot.barh([one.side for one in sides], rates, xerr=spread, color=colours, ecolor="black", capsize=2)
        for row, one in enumerate(sides):
            times = f"  {one.rate / base.rate:.1f} ×" if base else ""
            plot.text(max(one.rates), row, f"  {one.rate:,.0f}{times}", va="center", fontsize=8)
        plot.set_xlim(0, max(max(one.rates) for one in sides) * 1.2)
        plot.set_xlabel("pairs/s; whiskers: slowest and fastest round; ×: of CrossEncoder:fp32")
        plot.set_title(f"{results.student['num_layers']} × {results.student['hidden_size']}, {results.machine.name}")
    if results.latency:
        plot = axes.pop(0)
        for side in dict.fromkeys(one.side for one in results.latency):
            mine = [one for one in results.latency if one.side == side]
            plot.plot([one.layers for one in mine], [median(one.qps) for one in mine], marker="o", label=side)
        plot.set_yscale("log")
        plot.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        plot.yaxis.set_major_formatter("{x:g}")
        plot.yaxis.set_minor_formatter(NullFormatter())
        plot.set_xticks(sorted({one.layers for one in results.latency}))
        plot.set_xlabel("layers")
        plot.set_ylabel("QPS, one pair at a time")
        plot.legend(fontsize=8)
        plot.grid(alpha=0.3, which="both")
    figure.savefig(path, dpi=130)
