import subprocess
import sys

import pytest

from jobs.__main__ import COMMANDS
from jobs.__main__ import main as mkdm
from jobs.score import ScoreConfig
from jobs.score import main as score
from mkdm.config import parse_config
from mkdm.errors import ConfigError


def test_usage_lists_every_command(capsys):
    mkdm([])
    usage = capsys.readouterr().out
    assert all(name in usage for name in COMMANDS)


def test_unknown_command_is_one_line(capsys):
    with pytest.raises(SystemExit) as stop:
        mkdm(["sing"])
    assert stop.value.code == 2
    assert capsys.readouterr().err == f"error: no command 'sing'; there are {', '.join(COMMANDS)}\n"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "the following arguments are required: model"),
        (["--model", "m", "--paris", "p"], "unrecognized arguments: --paris p"),
        (["--model", "m", "--max-reject-rate", "many"], "max_reject_rate"),
        (["--model", "m", "--precision", "int3"], "precision"),
        (["--model", "m", "--max-reject-rate", "2"], "--max-reject-rate is 2.0; it must lie in [0, 1]"),
    ],
)
def test_wrong_flags_are_one_line_and_exit_2(flags, message, capsys):
    with pytest.raises(SystemExit) as stop:
        mkdm(["score", *flags])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error


def test_flags_win_over_yaml_and_yaml_over_defaults(tmp_path):
    yaml = tmp_path / "score.yaml"
    yaml.write_text("model: from-yaml\nmax_reject_rate: 0.5\n")
    (config,) = parse_config("mkdm score", ["--config", str(yaml), "--model", "from-flag"], ScoreConfig)
    assert (config.model, config.max_reject_rate, config.backend) == ("from-flag", 0.5, "auto")


def test_unknown_yaml_key_is_refused(tmp_path):
    yaml = tmp_path / "score.yaml"
    yaml.write_text("model: m\npiars: p\n")
    with pytest.raises(ConfigError, match="piars"):
        parse_config("mkdm score", ["--config", str(yaml)], ScoreConfig)


def test_help_has_every_flag_with_hyphens_and_its_docstring():
    command = [sys.executable, "-m", "jobs", "score", "--help"]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "--max-reject-rate" in text
    assert "--max_reject_rate" not in text
    assert "Share of rejected pairs, 0 to 1, above which the job fails" in " ".join(text.split())


def test_score_from_the_command_line(spark, student_folder, tmp_path, sample_pairs, capsys):
    spark.createDataFrame(sample_pairs[:10]).toPandas().to_csv(tmp_path / "mine.csv", index=False)
    flags = ["--model", student_folder, "--pairs", str(tmp_path / "mine.csv"), "--warehouse", str(tmp_path / "w")]
    score(flags)
    printed = capsys.readouterr()
    assert "scored            10\n" in printed.out
    assert "scoring: 10 of 10 pairs" in printed.err
