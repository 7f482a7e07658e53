import dataclasses

import pytest
from benchmark_figures import benchmark_results, side

from jobs.cost import CostConfig, costs, main, table
from jobs.reports.benchmark_results import Machine
from mkdm.errors import ConfigError

CONFIG = CostConfig(figures="f", cpu_price=0.4, gpu_price=3.0, machines=1000, utilisation=0.5)


def gpu_results():
    return benchmark_results(
        machine=Machine("cuda", "A GPU", 16, 128.0, {"bf16": 5e5}),
        sides=[side("job:torch:bf16", [1.28], fixed=0.28), side("scorer:torch:bf16", [0.532])],
    )


def test_hours_and_money_by_hand():
    one, other = costs(benchmark_results(), CONFIG)
    assert (one.device, one.machine, one.backend, one.rate, one.share) == (
        "CPU",
        "A CPU, 8 cores",
        "torch:bf16",
        20.0,
        0.5,
    )
    assert one.pairs == 10**9
    assert one.machine_hours == pytest.approx(1e9 / (10 * 0.5 * 3600))
    assert one.money == pytest.approx(0.4 * one.machine_hours)
    assert other.pairs == 10**11
    assert other.machine_hours == pytest.approx(100 * one.machine_hours)


def test_gpu_has_its_own_rate_and_price():
    one = costs(gpu_results(), CONFIG)[0]
    assert one.device == "GPU"
    assert one.rate == 2000.0
    assert one.share == 0.5, "1,000 pairs in the second beyond the fixed 0.28 s"
    assert one.machine_hours == pytest.approx(1e9 / (1000 * 0.5 * 3600))
    assert one.money == pytest.approx(3 * one.machine_hours)


def test_job_too_short_to_tell_its_share_keeps_the_whole_time():
    short = benchmark_results(
        sides=[side("job:torch:bf16", [106.4], fixed=200.0), side("scorer:torch:bf16", [53.2])], latency=[]
    )
    assert costs(short, CONFIG)[0].share == 0.5
    assert "≥ 50%" in table([short], CONFIG)
    assert "≥" not in table([benchmark_results()], CONFIG)


def test_table_says_what_was_not_measured_and_what_has_no_price():
    text = table([benchmark_results()], dataclasses.replace(CONFIG, cpu_price=None))
    assert "GPU  not measured" in text
    assert "CPU  not measured" not in text
    assert text.count("no price") == 2
    assert "55,555.6" in text
    assert "55.6" in text.split(), "by 1,000 machines"
    both = table([benchmark_results(), gpu_results()], CONFIG)
    assert "not measured" not in both
    assert "22,222.22" in both


def test_command_reads_several_files(tmp_path, capsys):
    benchmark_results().write(tmp_path / "cpu.json")
    gpu_results().write(tmp_path / "gpu.json")
    main(["--figures", f"{tmp_path / 'cpu.json'},{tmp_path / 'gpu.json'}", "--pairs", "5e6"])
    out = capsys.readouterr().out
    assert "A CPU, 8 cores" in out
    assert "A GPU, 16 cores" in out
    assert "5e+06" in out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"utilisation": 0.0}, "--utilisation is 0.0"),
        ({"machines": 0}, "--machines is 0"),
        ({"cpu_price": -1.0}, "--cpu-price is -1.0"),
        ({"pairs": "many"}, "--pairs is 'many'"),
        ({"pairs": "0"}, "--pairs is '0'"),
    ],
)
def test_flags_that_cannot_work(flags, message):
    with pytest.raises(ConfigError, match=message):
        CostConfig(figures="f", **flags)


def test_separate_layers_are_told():
    results = benchmark_results()
    separate = {"num_layers": 4, "separate_layers": 2, "pair_h2": 9, "text_h2": 24}
    results = dataclasses.replace(results, student=results.student | separate)
    assert "student 4 × 768, 2 separate (9 H² a token of a pair, 24 of a text); " in table([results], CONFIG)
