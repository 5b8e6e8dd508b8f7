from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from mlipcluster.calculators.spawn import SpawnConfig
from mlipcluster.errors import InputError

JSON = '{"model": "medium", "nested": {"a": [1, {}]}}'


def test_templates_are_filled_and_nothing_else_is_touched():
    words = [
        "run",
        "{name}",
        "--at={broker}",
        "--idle-timeout",
        "{idle_timeout}",
        "--kwargs",
        JSON,
        "${HOME}",
        "{}",
        "{0}",
    ]
    config = SpawnConfig("mace", words)
    filled = config.filled(broker="/run/{name}/serve.sock", idle_timeout=300.0)
    assert filled == [
        *(
            "run",
            "mace",
            "--at=/run/{name}/serve.sock",
            "--idle-timeout",
            "300",
            "--kwargs",
            JSON,
            "${HOME}",
            "{}",
            "{0}",
        )
    ]


def test_its_own_idle_timeout_comes_first():
    filled = SpawnConfig("x", ["{idle_timeout}"], idle_timeout=1234567.5).filled(broker="", idle_timeout=3)
    assert filled == ["1234567.5"]


def test_it_is_frozen_and_pickles():
    env = {"A": "1"}
    config = SpawnConfig("x", ["a"], env=env, cwd=Path("~"), idle_timeout=3)
    env["A"] = "2"
    assert config.env == {"A": "1"}
    assert config.command == ("a",)
    assert config.cwd == str(Path.home())
    assert pickle.loads(pickle.dumps(config)) == config
    with pytest.raises(AttributeError):
        config.name = "y"
    with pytest.raises(TypeError):
        config.env["A"] = "2"


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"command": []}, "command of its spawn configuration is"),
        ({"command": "a b"}, "give a list of words"),
        ({"command": ["a", 3]}, "give a list of words"),
        ({"command": None}, "give a list of words"),
        ({"command": ["a", "{adress}"]}, r"\{adress\}.*known: \{name\}, \{broker\}, \{idle_timeout\}"),
        ({"command": ["a"], "env": {"A": 3}}, "env of its spawn configuration"),
        ({"command": ["a"], "env": ["A"]}, "env of its spawn configuration"),
        ({"command": ["a"], "cwd": 3}, "cwd of its spawn configuration"),
        ({"command": ["a"], "idle_timeout": 0}, "idle_timeout of its spawn configuration is 0; give a positive"),
        ({"command": ["a"], "idle_timeout": True}, "give a positive"),
        ({"command": ["a"], "idle_timeout": float("nan")}, "give a positive"),
        ({"command": ["a"], "timeout": 3}, "has no 'timeout'; it has name, command, env, cwd, idle_timeout"),
    ],
)
def test_what_cannot_be_is_refused_by_name(fields, told):
    with pytest.raises(InputError, match=rf"(?s)calculator 'x'.*{told}"):
        SpawnConfig.described("x", fields)


def test_it_needs_a_name():
    with pytest.raises(InputError, match="give the calculator's"):
        SpawnConfig("", ["a"])


@pytest.mark.parametrize(
    "command",
    [
        ["aserpc", "worker", "lj"],
        ["uvx", "--with", "mace-torch", "aserpc", "worker", "mace.calculators:mace_mp"],
        ["uvx", "aserpc@0.1.3", "worker", "lj"],
        ["/opt/bin/aserpc", "worker", "lj"],
        ["bash", "-c", "cd /tmp && aserpc  worker lj"],
        ["python", "-m", "aserpc", "worker"],
    ],
)
def test_a_worker_of_another_protocol_is_refused_with_the_remedy(command):
    with pytest.raises(InputError, match="write `mlipcluster worker`"):
        SpawnConfig("x", command)


def test_aserpcs_name_alone_is_none(tmp_path):
    SpawnConfig("x", ["uvx", "--with", "aserpc", "mlipcluster", "worker", "mypackage.aserpc:factory"])
