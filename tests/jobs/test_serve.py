"""The settings of `mkdm serve`; the server itself is tested in `tests/mkdm/serving`."""

import pytest

from jobs import serve
from jobs.serve import ServeConfig, main
from mkdm.errors import ConfigError
from udfs import serving


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"port": 70_000}, "--port is 70000; it must lie in 0 to 65535"),
        ({"timeout": 0}, "--timeout is 0; it must be above 0"),
        ({"batch_window": -1}, "--batch-window is -1; it must be at least 0"),
        ({"queue_pairs": 0}, "--queue-pairs is 0; it must be at least 1"),
        ({"max_documents": 3000}, "--max-documents 3000 is more than --queue-pairs 2000"),
    ],
)
def test_settings_that_cannot_work(flags, message):
    with pytest.raises(ConfigError, match=message):
        ServeConfig("m", **flags)


def test_flags_become_the_server_s_settings(monkeypatch):
    given = {}
    monkeypatch.setattr(serve, "serve", lambda **settings: given.update(settings))
    main(["--model", "DIR", "--batch-window", "2.5", "--streams", "null", "--view", "v", "--name", "n"])
    assert (given["model"], given["window"], given["streams"], given["view"]) == ("DIR", 0.0025, None, "v")


def test_what_is_not_installed_is_told(monkeypatch):
    monkeypatch.setattr(serving, "find_spec", lambda name: None if name == "uvicorn" else object())
    with pytest.raises(ConfigError, match=r"uvicorn not installed: pip install 'mkdm\[serve\]'"):
        serving.serve("m", None, print)
