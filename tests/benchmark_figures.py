"""Results of a benchmark with round figures, for the tests of what is made of them."""

from jobs.reports.benchmark_results import BenchmarkResults, LatencyResult, Machine, Quality, SideResult


def side(name: str, seconds: list[float], fixed: float | None = None, **more) -> SideResult:
    """A side that scored 1,064 pairs of 2 GFLOP."""
    given = {
        "precision": name.rpartition(":")[2],
        "pairs": 1064,
        "pair_gflop": 2.0,
        "command_seconds": [second + 10 for second in seconds],
        "fixed_pairs": 0 if fixed is None else 64,
        "memory_mb": {"python": 1500.0, "jvm": 0.0 if fixed is None else 900.0, "gpu": 0.0},
        "model_mb": 70.4,
        "quality": Quality(2e-3, 1e-4, 0.93, -0.0012, 0),
    }
    return SideResult(side=name, seconds=seconds, fixed_seconds=fixed, **(given | more))


def benchmark_results(**more) -> BenchmarkResults:
    """One job, its scorer and CrossEncoder: 10, 20 and 5.32 pairs/s."""
    given = {
        "machine": Machine("cpu", "A CPU", 8, 31.6, {"fp32": 200.0, "bf16": 400.0}),
        "student": {
            "model": "student",
            "widen": 2,
            "hidden_size": 768,
            "num_layers": 3,
            "max_length": 160,
            "mean_tokens": 144.3,
        },
        "rounds": 3,
        "sides": [
            side("job:torch:bf16", [106.4, 133.0, 53.2], fixed=6.4),
            side("scorer:torch:bf16", [53.2, 53.2, 106.4]),
            side("CrossEncoder:fp32", [200.0, 100.0, 400.0], quality=Quality(1e-7, 1e-8, None, None, 3)),
        ],
        "latency": [
            LatencyResult("scorer:torch:bf16", "bf16", 1, [100.0, 90.0, 120.0], 9.8, 14.2),
            LatencyResult("scorer:torch:bf16", "bf16", 3, [40.0, 30.0, 50.0], 25.0, 33.3),
        ],
    }
    return BenchmarkResults(**(given | more))
