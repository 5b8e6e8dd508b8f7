from __future__ import annotations

import ast
import gc
import re
from dataclasses import replace
from pathlib import Path

import pytest

from mlipcluster.deploy import cloud
from mlipcluster.deploy.cloud import Cloud
from mlipcluster.deploy.clouds import EC2, Fargate, Kubernetes
from mlipcluster.deploy.deployment import Place
from mlipcluster.deploy.table import DEPLOYMENTS, deployment_class
from mlipcluster.errors import InputError

CLOUDS = [kind for kind in DEPLOYMENTS if issubclass(deployment_class(kind), Cloud)]
DOCS = Path(__file__).parents[2] / "docs" / "clouds.md"
FIELDS = {"image": "a/b:1", "region": "eu", "machine": "big", "environment": {"A": "1"}, "prologue": ["true"]}


@pytest.fixture
def place(tmp_path):
    return Place("token", 0, tmp_path / "logs", tmp_path / "private", tmp_path / "jobs.jsonl")


def test_there_are_clouds():
    assert len(CLOUDS) == 9


@pytest.mark.parametrize("kind", CLOUDS)
def test_the_installed_library_takes_all_that_it_is_given(kind):
    chosen = deployment_class(kind)
    assert chosen.kind == kind
    fields = {name: value for name, value in FIELDS.items() if name in chosen.names}
    value = chosen(**fields, gpus=2, processes=3, max_workers=9)
    arguments = value.arguments()
    assert {chosen.names[name]: said for name, said in fields.items()}.items() <= arguments.items()
    assert arguments["n_workers"] == 0
    assert set(arguments) <= value._known
    assert value.offers() == {"GPU": 2.0}


@pytest.mark.parametrize("kind", CLOUDS)
def test_an_option_that_the_library_does_not_have_is_refused(kind):
    with pytest.raises(InputError, match=r"the installed dask_\w+ has no option colour; it has .*n_workers"):
        deployment_class(kind)(options={"colour": "red"})


@pytest.mark.parametrize("kind", CLOUDS)
@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"processes": 0}, "processes=0"),
        ({"max_workers": 0}, "max_workers=0"),
        ({"gpus": -1}, "gpus=-1"),
        ({"min_workers": 3, "max_workers": 2}, "min_workers=3 is more than max_workers=2"),
        ({"options": {"security": True}}, "has no option security"),
    ],
)
def test_what_cannot_be_meant_is_refused(kind, fields, words):
    with pytest.raises(InputError, match=words):
        deployment_class(kind)(**fields)


def test_a_field_that_a_cloud_has_not_is_refused():
    with pytest.raises(InputError, match=r"Kubernetes has no machine=; see what its options= may be: .*namespace"):
        Kubernetes(machine="big")


def test_the_example_of_the_docs_makes_a_value():
    """As the page says, that is checked and no machine started."""
    (text,) = re.findall(r"(?ms)^```python\n(.*?)^```", DOCS.read_text(encoding="utf-8"))
    *before, run = ast.parse(text).body
    names = {}
    exec(compile(ast.Module(before, []), DOCS.name, "exec"), names)
    assert names["cloud"].arguments()["spot"] is True
    assert {node.id for node in ast.walk(run) if isinstance(node, ast.Name)} <= set(names)


def test_options_have_the_last_word():
    assert EC2(machine="small", options={"instance_type": "big", "n_workers": 1}).arguments()["instance_type"] == "big"


def test_a_machine_runs_one_protocol_a_process():
    assert EC2(processes=2, gpus=1).arguments()["worker_options"] == {
        "nthreads": 2,
        "memory_limit": 0,
        "resources": {"GPU": 1.0},
    }
    assert Fargate(processes=2).arguments()["worker_nthreads"] == 2
    command = Kubernetes(processes=2, gpus=1).arguments()["worker_command"]
    assert command == ["dask", "worker", "--nthreads=2", "--memory-limit=0", "--resources=GPU=1"]


def test_values_can_be_compared_and_changed():
    assert EC2(region="eu") == EC2(region="eu")
    assert replace(EC2(region="eu"), max_workers=5).max_workers == 5
    assert {EC2(region="eu"), EC2(region="eu")} == {EC2(region="eu")}


def test_a_library_that_is_not_installed_is_told_with_how_to_get_it(monkeypatch):
    monkeypatch.setattr(cloud, "accepted", lambda *_: None)
    with pytest.raises(InputError, match=r"EC2 needs dask-cloudprovider, .*pip install 'mlipcluster\[ec2\]'"):
        EC2()


def test_a_providers_package_that_is_not_installed_is_told(monkeypatch, place):
    def missing(name):
        raise ImportError(f"no aiobotocore for {name}")

    monkeypatch.setattr(cloud, "import_module", missing)
    with pytest.raises(InputError, match=r"no aiobotocore for dask_cloudprovider.aws.ec2\. Install it: pip install"):
        EC2().start(place)


def test_tls_that_cannot_be_had_is_refused_rather_than_left_out(place):
    from distributed.security import Security

    with pytest.raises(InputError, match=r"cannot start a scheduler with TLS\..*say security=False"):
        Kubernetes().start(replace(place, security=Security.temporary()))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # the library leaves it half made
def test_a_cloud_that_refuses_is_quoted(place, tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(Exception, match=r"Kubernetes could not start its scheduler: \w+: .*provider's credentials"):
        Kubernetes().start(place)
    gc.collect()
