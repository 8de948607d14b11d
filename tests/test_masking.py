"""Secrets are told by their names and left out; everything else stays as it is."""

from __future__ import annotations

import logging
import sys
from typing import Any

import pytest

from genrec.masking import (
    HIDDEN,
    MaskingFormatter,
    is_secret,
    masked,
    masked_words,
    scrub,
    secret_values,
    secrets_of_environment,
)


@pytest.mark.parametrize(
    "key", ["api_key", "apikey", "WANDB_API_KEY", "token", "auth_token", "db.password", "secret", "aws-secret"]
)
def test_secret_keys(key: str) -> None:
    assert is_secret(key)


@pytest.mark.parametrize(
    "key", ["tokenizer", "num_tokens", "token_dropout", "key", "monkey", "config_key", "secretary"]
)
def test_other_keys(key: str) -> None:
    assert not is_secret(key)


def test_nested_values() -> None:
    config: dict[str, Any] = {
        "logger": {"wandb": {"api_key": "abcdef", "project": "p", "password": None}},
        "tokens": ["t"],
        "token": ["a", "b"],
        "list": [{"secret": 123456, "uri": "postgresql://me:pass99@host/db"}, True, 2.5],
    }
    assert masked(config) == {
        "logger": {"wandb": {"api_key": HIDDEN, "project": "p", "password": None}},
        "tokens": ["t"],
        "token": HIDDEN,
        "list": [{"secret": HIDDEN, "uri": f"postgresql://{HIDDEN}@host/db"}, True, 2.5],
    }
    assert masked(masked(config)) == masked(config)
    assert secret_values(config, ["+x.token=given", "y=1"]) == ["123456", "abcdef", "given"]
    assert secret_values(masked(config)) == []


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("+a.password=x=y", f"+a.password={HIDDEN}"),
        ("b=1", "b=1"),
        ("~c", "~c"),
        ("model={token_dropout:0.1,num_tokens:3}", "model={token_dropout:0.1,num_tokens:3}"),
        ("logger={wandb:{api_key:abc,project:p}}", f"logger={{wandb:{{api_key:{HIDDEN},project:p}}}}"),
        ("x={'auth_token': 'abc', y: 1}", f"x={{'auth_token': {HIDDEN}, y: 1}}"),
        ("data.path=s3://key:word@bucket/x", f"data.path=s3://{HIDDEN}@bucket/x"),
        ("u=https://host/x?token=abc&y=1", f"u=https://host/x?token={HIDDEN}&y=1"),
        ("hydra.run.dir=outputs/a@b", "hydra.run.dir=outputs/a@b"),
    ],
)
def test_words(word: str, shown: str) -> None:
    assert masked_words([word]) == [shown]


def test_text_and_log_lines() -> None:
    assert scrub("with abcdef in it", ["abcdef"]) == f"with {HIDDEN} in it"
    try:
        raise RuntimeError("refused: abcdef")
    except RuntimeError:
        record = logging.LogRecord("x", logging.ERROR, "f", 1, "key %s", ("abcdef",), sys.exc_info())
    text = MaskingFormatter("%(message)s", ["abcdef"]).format(record)
    assert "abcdef" not in text and "RuntimeError: refused" in text


def test_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "0123456789abcdef")
    monkeypatch.setenv("SHORT_TOKEN", "on")
    assert "0123456789abcdef" in secrets_of_environment() and "on" not in secrets_of_environment()


def test_of_options_of_stores_only_plain_ones_are_shown() -> None:
    options: dict[str, Any] = {
        "anon": False,
        "endpoint_url": "http://me:pass99@127.0.0.1:9000",
        "key": "AKIAEXAMPLE",
        "client_kwargs": {"region_name": "eu-1", "aws_session_token": "tttttttt"},
        "headers": {"Authorization": "Bearer bbbbbbbb"},
        "list": ["llllllll"],
    }
    config = {"data": {"storage_options": options, "source": {"storage_options": None}}}
    assert masked(config)["data"]["storage_options"] == {
        "anon": False,
        "endpoint_url": f"http://{HIDDEN}@127.0.0.1:9000",
        "key": HIDDEN,
        "client_kwargs": {"region_name": "eu-1", "aws_session_token": HIDDEN},
        "headers": {"Authorization": HIDDEN},
        "list": HIDDEN,
    }
    assert masked(masked(config)) == masked(config)
    found = secret_values(config)
    assert {"AKIAEXAMPLE", "tttttttt", "Bearer bbbbbbbb", "llllllll"} <= set(found) and "eu-1" not in found


def test_words_that_give_options_of_stores() -> None:
    words = ["data.storage_options={key: abcd}", "data.storage_options.key=abcd", "++data.storage_options={a: b}"]
    assert masked_words(words) == [f"{word.partition('=')[0]}={HIDDEN}" for word in words]
    plain = ["data.storage_options.anon=true", "data.storage_options=null", "data.my_storage_options=x"]
    assert masked_words(plain) == plain
    assert secret_values({}, words[1:2]) == ["abcd"]


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("ftp://me:p@ss@host/x", f"ftp://{HIDDEN}@host/x"),
        ("abfs://box@account.dfs.core.windows.net/x", "abfs://box@account.dfs.core.windows.net/x"),
        ("https://h/x?X-Amz-Signature=abc&X-Amz-Credential=k&a=1", None),
        ("https://h/x?AWSAccessKeyId=abc&a=1", None),
        ("https://h/x?sv=1&sig=abc", None),
        ("https://h/x?key=abc", None),
    ],
)
def test_addresses_of_stores(address: str, shown: str | None) -> None:
    assert scrub(address) == shown if shown else "abc" not in scrub(address)
