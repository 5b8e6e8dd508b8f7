from __future__ import annotations

import pytest

from mlipcluster.errors import InputError
from mlipcluster.settings.keys import PLAIN
from mlipcluster.settings.values import Setting, setting, settings


def test_what_holds_where_nobody_says_anything(write):
    found = settings()
    assert {key: found[key].value for key in PLAIN} == {
        "root": None,
        "use_serve": None,
        "serve.address": None,
        "serve.tls": None,
        "serve.calculators": (),
        "serve.max_workers": 2,
        "serve.idle_timeout": 300.0,
        "serve.start_timeout": 60.0,
        "serve.retries": 2,
        "serve.timeout": None,
        "serve.max_request": 256 * 1024**2,
    }
    assert {one.origin for one in found.values()} == {"built in"}
    assert list(found) == sorted(found)


def test_each_word_overrides_the_one_before(write, monkeypatch):
    def idle(given=None):
        return setting("serve.idle_timeout", given)

    site = write("site", "[serve]\nidle_timeout = 1\nretries = 0")
    assert idle() == Setting(1.0, str(site))
    user = write("user", "[serve]\nidle_timeout = 2\n")
    assert idle() == Setting(2.0, str(user))
    project = write("project", "[tool.mlipcluster.serve]\nidle_timeout = 3\n")
    assert idle() == Setting(3.0, str(project))
    monkeypatch.setenv("MLIPCLUSTER_SERVE_IDLE_TIMEOUT", "4.5")
    assert idle() == Setting(4.5, "MLIPCLUSTER_SERVE_IDLE_TIMEOUT")
    assert idle(5) == Setting(5.0, "argument")
    assert setting("serve.retries") == Setting(0, str(site))


@pytest.mark.parametrize(
    ("text", "told"),
    [("run/s", "{0}/run/s"), ("unix:run/s", "{0}/run/s"), ("/run/s", "/run/s"), ("tls://a:1", "tls://a:1")],
)
def test_a_socket_lies_beside_the_file_that_names_it(write, text, told):
    path = write("project", f"[tool.mlipcluster.serve]\naddress = '{text}'\n")
    assert setting("serve.address").value == told.format(path.parent)


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("USE_SERVE", "true", True),
        ("USE_SERVE", "Yes", True),
        ("USE_SERVE", "1", True),
        ("USE_SERVE", "no", False),
        ("USE_SERVE", "0", False),
        ("USE_SERVE", "FALSE", False),
        ("USE_SERVE", "", None),
        ("SERVE_ADDRESS", "tls://node:7777", "tls://node:7777"),
        ("SERVE_MAX_WORKERS", "8", 8),
        ("SERVE_RETRIES", "0", 0),
        ("SERVE_TIMEOUT", "1e3", 1000.0),
        ("SERVE_MAX_REQUEST", "1048576", 1 << 20),
        ("SERVE_CALCULATORS", "/a b/t.py:T, my.module:T,", ["/a b/t.py:T", "my.module:T"]),
    ],
)
def test_variables(write, monkeypatch, key, text, value):
    monkeypatch.setenv(f"MLIPCLUSTER_{key}", text)
    found = setting(key.lower().replace("serve_", "serve.", 1) if key.startswith("SERVE") else key.lower())
    assert found.value == value
    assert found.origin == (f"MLIPCLUSTER_{key}" if text else "built in")


@pytest.mark.parametrize(
    ("key", "text", "told"),
    [
        ("USE_SERVE", "maybe", "use_serve is 'maybe'; give true or false"),
        ("SERVE_MAX_WORKERS", "0", "serve.max_workers is 0; give a whole number, 1 or more"),
        ("SERVE_MAX_WORKERS", "two", "serve.max_workers is 'two'; give a whole number"),
        ("SERVE_RETRIES", "-1", "serve.retries is -1; give a whole number, 0 or more"),
        ("SERVE_RETRIES", "1.5", "serve.retries is 1.5; give a whole number"),
        ("SERVE_IDLE_TIMEOUT", "nan", "serve.idle_timeout is nan; give a positive number of seconds"),
        ("SERVE_TIMEOUT", "inf", "serve.timeout is inf; give a positive"),
        ("SERVE_MAX_REQUEST", "256 MiB", "serve.max_request is '256 MiB'; give a whole number of bytes"),
        ("SERVE_ADDRESS", "  ", "serve.address is '  '; give the path of a Unix socket, or tls://HOST:PORT"),
        ("SERVE_CALCULATORS", "registry.py", "serve.calculators is .*; give a list of tables"),
    ],
)
def test_a_variable_that_cannot_be_meant_is_named(write, monkeypatch, key, text, told):
    monkeypatch.setenv(f"MLIPCLUSTER_{key}", text)
    with pytest.raises(InputError, match=f"MLIPCLUSTER_{key}: {told}"):
        settings()


def test_a_misspelt_variable_is_told_with_the_one_that_was_meant(write, monkeypatch):
    monkeypatch.setenv("MLIPCLUSTER_JOIN_AS", "3")  # one process's word to another
    monkeypatch.setenv("MLIPCLUSTER_SOMETHING_ELSE", "3")
    settings()
    monkeypatch.setenv("MLIPCLUSTER_SERVE_IDLE_TIME", "3")
    with pytest.raises(
        InputError, match=r"MLIPCLUSTER_SERVE_IDLE_TIME;.*Did you mean 'MLIPCLUSTER_SERVE_IDLE_TIMEOUT'"
    ):
        settings()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("use_serve = 'true'", "use_serve is 'true'; give true or false"),
        ("use_serve = 1", "use_serve is 1; give true or false"),
        ("[serve]\nretries = true", "serve.retries is True; give a whole number, 0 or more"),
        ("[serve]\nidle_timeout = true", "serve.idle_timeout is True; give a positive number"),
        ("[serve]\nidle_timeout = '3'", "serve.idle_timeout is '3'; give a positive number"),
        ("[serve]\ncalculators = 'a.py:B'", "serve.calculators is 'a.py:B'; give a list"),
        ("[serve]\ncalculators = [3]", "serve.calculators is .*; give a list"),
        ("[serve]\naddress = 3", "serve.address is 3"),
        ("[serve]\nidle_timeot = 3", "nobody reads 'serve.idle_timeot';.*Did you mean 'serve.idle_timeout'"),
        ("serve = 3", "nobody reads 'serve'"),
        ("[serve.retries]\nx = 1", "nobody reads 'serve.retries.x'"),
    ],
)
def test_a_file_that_cannot_be_meant_is_named_with_the_key(write, text, told):
    path = write("user", text)
    with pytest.raises(InputError, match=told) as error:
        settings()
    assert str(path) in str(error.value)


def test_an_argument_is_read_as_a_file_would_be():
    with pytest.raises(InputError, match=r"argument: serve\.idle_timeout is -1; give a positive"):
        setting("serve.idle_timeout", -1)
    assert setting("serve.calculators", ["a.py:B"]).value == ["a.py:B"]


def test_tables_are_found_from_the_file_that_names_them(write, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    project = write(
        "project", '[tool.mlipcluster.serve]\ncalculators = ["../a.py:A", "pkg.mod:B", "/c.py:C", "~/d.py:D"]'
    )
    above = project.parent.parent
    expected = [f"{above}/a.py:A", "pkg.mod:B", "/c.py:C", f"{tmp_path}/d.py:D"]
    assert setting("serve.calculators").value == expected
    monkeypatch.setenv("MLIPCLUSTER_SERVE_CALCULATORS", "a.py:A")
    assert setting("serve.calculators").value == [f"{project.parent}/deep/inside/a.py:A"]
