import pytest
from benchmark_figures import benchmark_results, side

from jobs.reports.benchmark_report import draw_chart, summary
from jobs.reports.benchmark_results import BenchmarkResults, LatencyResult
from mkdm.errors import InputError


def test_rates_are_medians_of_rounds():
    job, scorer, base = benchmark_results().sides
    assert job.rates == [10.0, 8.0, 20.0]
    assert (job.rate, scorer.rate, base.rate) == (10.0, 20.0, 5.32)
    assert job.growing_rate == 10.0, "1,000 more pairs in 100 more seconds"
    assert scorer.growing_rate == 20.0
    assert side("job:torch:bf16", [5.0], fixed=3.0).growing_rate is None, "2 s of 5 tell little"
    assert base.gflops == pytest.approx(10.64)


def test_summary_by_hand():
    text = summary(benchmark_results())
    lines = [line.split() for line in text.splitlines()]
    assert ["job:torch:bf16", "bf16", "1,064", "10.0", "8.0–20.0", "1.88", "20", "5%", "116.4"] in lines
    assert ["CrossEncoder:fp32", "fp32", "1,064", "5.3", "2.7–10.6", "1.00", "11", "5%", "210.0"] in lines
    assert ["job:torch:bf16", "70", "1,500", "900", "–", "2.0e-03", "1.0e-04", "0.9300", "-0.0012", "0"] in lines
    assert ["CrossEncoder:fp32", "70", "1,500", "–", "–", "1.0e-07", "1.0e-08", "–", "–", "3"] in lines
    assert ["scorer:torch:bf16", "bf16", "100.0", "40.0"] in lines
    assert ["scorer:torch:bf16", "bf16", "9.8", "/", "14.2", "25.0", "/", "33.3"] in lines
    assert (
        "job:torch:bf16: the job runs at 50% of the scorer alone, its Spark start-up left out; at 50% beyond the 6.4 s "
        "that it takes for 64 pairs"
    ) in text
    assert "student 3 × 768, student, widened 2 × with the same scores" in text
    assert "fastest matrix products, GFLOP/s: fp32 200, bf16 400" in text


def test_latency_is_told_as_multiples_of_the_base():
    latency = [*benchmark_results().latency]
    latency += [LatencyResult("CrossEncoder:fp32", "fp32", layers, [20.0], 50.0, 60.0) for layers in (1, 3)]
    lines = [line.split() for line in summary(benchmark_results(latency=latency)).splitlines()]
    assert ["scorer:torch:bf16", "5.00", "2.00"] in lines
    assert ["CrossEncoder:fp32", "1.00", "1.00"] in lines
    assert "× CrossEncoder:fp32\n" not in summary(benchmark_results()), "nothing to compare with"


def test_summary_without_the_base_or_a_peak_leaves_them_open():
    alone = [side("scorer:auto:auto", [53.2], model_mb=None)]
    lines = [line.split() for line in summary(benchmark_results(sides=alone, latency=[])).splitlines()]
    assert ["scorer:auto:auto", "auto", "1,064", "20.0", "20.0–20.0", "–", "40", "–", "63.2"] in lines
    assert ["scorer:auto:auto", "–", "1,500", "–", "–", "2.0e-03", "1.0e-04", "0.9300", "-0.0012", "0"] in lines


def test_job_too_short_is_told():
    short = [side("job:torch:bf16", [106.4], fixed=60.0), side("scorer:torch:bf16", [53.2])]
    text = summary(benchmark_results(sides=short))
    assert "left out; give more --rows to tell its share beyond the 60.0 s that it takes for 64 pairs" in text


def test_json_comes_back_as_it_was(tmp_path):
    results = benchmark_results()
    results.write(tmp_path / "benchmark.json")
    assert BenchmarkResults.read(str(tmp_path / "benchmark.json")) == results
    (tmp_path / "other.json").write_text('{"sides": [{}]}')
    for name in ("other.json", "missing.json"):
        with pytest.raises(InputError, match=rf"{name} is no benchmark.json"):
            BenchmarkResults.read(str(tmp_path / name))


@pytest.mark.parametrize("left_out", [{}, {"latency": []}, {"sides": []}])
def test_plot_is_written(tmp_path, left_out):
    draw_chart(benchmark_results(**left_out), tmp_path / "plot.png")
    content = (tmp_path / "plot.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert len(content) > 10_000
