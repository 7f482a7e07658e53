"""No credential gets into what we print, raise or store."""

import sys
from dataclasses import dataclass, field

import pytest

from mkdm.config import parse_config, run_command
from mkdm.credentials import has_credentials, hide_credentials
from mkdm.errors import ConfigError, InputError
from mkdm.model.fetch import local_folder

SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfi"
WITH = [
    f"s3://AKIAXX:{SECRET}@bucket/qa",
    f"s3a://AKIAXX:{SECRET}@bucket/qa",
    f"https://user:{SECRET}@host:8080/model",
    f"https://{SECRET.replace('/', '')}@host/model",
    f"https://account.blob.core.windows.net/c/model?sv=2024&sig={SECRET}&se=2027",
    f"https://bucket.s3.amazonaws.com/m?X-Amz-Credential={SECRET}&X-Amz-Signature={SECRET}",
    f"https://host/m?access_token={SECRET}",
    f"abfss://user:{SECRET}@account.dfs.core.windows.net/qa",
    f"jdbc:postgresql://host/db?user=me&password={SECRET}",
]
WITHOUT = [
    "warehouse",
    "/data/a@b:c/qa",
    "main.qa",
    "s3a://bucket/qa",
    "s3a://bucket/date=2026-11-01/a@b",
    "abfss://container@account.dfs.core.windows.net/qa",
    "wasbs://container@account.blob.core.windows.net/qa",
    "hdfs://namenode:8020/user/me@home/qa",
    "dbfs:/Volumes/main/qa",
    "https://host:8080/model?revision=main",
]


@dataclass(frozen=True)
class Config:
    """A config."""

    place: str = "here"
    """A place."""
    places: list[str] = field(default_factory=list)
    """Places."""
    number: int = 1
    """A number."""


@pytest.mark.parametrize("uri", WITH)
def test_credentials_are_found_and_hidden(uri):
    assert has_credentials(uri)
    for part in (SECRET, SECRET.replace("/", "")):
        assert part not in hide_credentials(f"cannot read {uri}: no such place, see {uri}")
    assert "***" in hide_credentials(uri)


@pytest.mark.parametrize("place", WITHOUT)
def test_other_places_stay_as_they_are(place):
    assert not has_credentials(place)
    assert hide_credentials(f"cannot read {place}: gone") == f"cannot read {place}: gone"


@pytest.mark.parametrize(
    "text",
    [
        f"spark.hadoop.fs.s3a.secret.key={SECRET}",
        f"--conf fs.s3a.access.key={SECRET} --conf a=b",
        f"AWS_SECRET_ACCESS_KEY={SECRET}",
        f"fs.azure.account.key.me.dfs.core.windows.net = {SECRET}",
        f'{{"fs.azure.sas.fixed.token": "{SECRET}"}}',
        f"Authorization: Bearer {SECRET}",
    ],
)
def test_settings_and_headers_are_hidden(text):
    assert SECRET not in hide_credentials(f"got {text}")


@pytest.mark.parametrize("text", ["tokens 1,234", "--max-length is 4000; this model takes 1 to 128 tokens", "key: a"])
def test_our_own_words_stay(text):
    assert hide_credentials(text) == text


@pytest.mark.parametrize("uri", WITH)
def test_flags_with_credentials_are_refused_without_showing_them(uri):
    for argv in (["--place", uri], ["--places", f'["{uri}"]']):
        with pytest.raises(ConfigError, match="has credentials in its URI") as error:
            parse_config("mkdm x", argv, Config)
        assert SECRET not in str(error.value)
    with pytest.raises(ConfigError) as error:
        parse_config("mkdm x", ["--number", uri], Config)
    assert SECRET not in str(error.value)


def test_typed_errors_never_show_them(capsys):
    def refuse(argv):
        raise InputError(f"cannot read {WITH[0]}")

    def break_down(argv):
        raise RuntimeError(f"S3 said no to {WITH[0]}")

    for main, code in ((refuse, 2), (break_down, 1)):
        with pytest.raises(SystemExit) as stop:
            run_command(main, [])
        assert stop.value.code == code
    told = capsys.readouterr().err
    assert SECRET not in told
    assert "error: cannot read s3://***@bucket/qa" in told
    assert "RuntimeError: S3 said no to s3://***@bucket/qa" in told, "other faults keep their traceback"
    assert "test_credentials.py" in told
    assert sys.exc_info() == (None, None, None)


def test_model_uri_with_credentials_is_refused():
    with pytest.raises(ConfigError, match="has credentials in its URI") as error:
        local_folder(WITH[2])
    assert SECRET not in str(error.value)
