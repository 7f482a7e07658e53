"""The flags that jobs on pairs share, and their checks."""

import pytest

from jobs.engine import PairsJobConfig
from jobs.label import LabelConfig
from jobs.score import ScoreConfig
from mkdm.config import parse_config
from mkdm.errors import ConfigError


@pytest.mark.parametrize(
    ("prog", "config", "own"),
    [("mkdm score", ScoreConfig, ["--model", "m"]), ("mkdm label", LabelConfig, ["--zoo", "z"])],
)
def test_shared_flags_have_their_help_and_their_checks_in_each_job(prog, config, own, capsys):
    with pytest.raises(SystemExit):
        parse_config(prog, ["--help"], config)
    told = " ".join(capsys.readouterr().out.split())
    for name in PairsJobConfig.__dataclass_fields__:
        assert f"--{name.replace('_', '-')} " in told
    assert "Pairs of one Spark task, which is what is done again when an executor dies." in told
    with pytest.raises(ConfigError, match=r"--max-reject-rate is 1.5; it must lie in \[0, 1\]"):
        parse_config(prog, [*own, "--max-reject-rate", "1.5"], config)
    for flag in ("chunks", "rows-per-task", "token-budget"):
        with pytest.raises(ConfigError, match=f"--{flag} is 0; it must be at least 1"):
            parse_config(prog, [*own, f"--{flag}", "0"], config)


def test_words_and_none_pass_the_checks():
    config = PairsJobConfig()
    assert (config.chunks, config.token_budget) == ("auto", None)
