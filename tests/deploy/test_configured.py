from __future__ import annotations

import pytest

from mlipcluster.deploy.batch import Batch
from mlipcluster.deploy.configured import deployment, field_names
from mlipcluster.deploy.deployment import Range
from mlipcluster.deploy.local import Local
from mlipcluster.deploy.pbs import PBS
from mlipcluster.deploy.slurm import Slurm
from mlipcluster.deploy.table import DEPLOYMENTS, deployment_class
from mlipcluster.errors import InputError

SITE, USER = "/etc/site.toml", "/home/ada/user.toml"


def told(kind="slurm", **fields):
    return {"type": (kind, SITE), **{key: (value, USER) for key, value in fields.items()}}


def test_nothing_is_said():
    assert deployment("della", {}) is None


def test_plain_values_become_a_deployment():
    fields = {"queue": "gpu", "gpus": 1, "workers": [0, 64], "directives": ["--qos=high"], "environment": {"A": "1"}}
    assert deployment("della", told(**fields)) == Slurm(
        queue="gpu", gpus=1, workers=Range(0, 64), directives=("--qos=high",), environment={"A": "1"}
    )
    assert deployment("other", told("pbs", walltime="1:00:00")) == PBS(walltime="1:00:00")
    assert deployment("here", told("local", max_workers=2)) == Local(max_workers=2)


def test_every_batch_system_can_be_configured():
    for kind in (kind for kind in DEPLOYMENTS if issubclass(deployment_class(kind), Batch)):
        assert type(deployment("x", {"type": (kind, SITE)})) is deployment_class(kind)


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (told("slrum"), rf"^{SITE}: clusters\.della\.type: deployment 'slrum' is unknown; known: local, slurm, "),
        (
            told(quee="gpu"),
            rf"^{USER}: clusters\.della\.quee: nobody reads 'quee' of type 'slurm'; known: queue, cores",
        ),
        (told(gpus=-1), rf"^{USER}: clusters\.della: gpus=-1 cannot be meant"),
        (told(cores=1, processes=2), rf"^{USER}: clusters\.della: Slurm: cores=1 are fewer"),
        (told(workers=[4, 2]), rf"^{USER}: clusters\.della: workers=Range"),
        (told(environment=["A"]), rf"^{USER}: clusters\.della: environment="),
        (told(directives=3), rf"^{USER}: clusters\.della: directives=\(3,\)"),
        (told("local", max_workers="many"), rf"^{USER}: clusters\.della: max_workers='many'"),
    ],
)
def test_what_cannot_be_used_is_said_with_its_place(said, words):
    with pytest.raises(InputError, match=words):
        deployment("della", said)


def test_the_fields_of_a_kind():
    assert field_names(Local) == ["max_workers", "min_workers", "cores"]
    assert "parallel_environment" in field_names(deployment_class("sge"))
