from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
from distributed import LocalCluster

from mlipcluster import clusters
from mlipcluster.clusters import Clusters
from mlipcluster.deploy.deployment import Deployment, Range
from mlipcluster.deploy.given import Given
from mlipcluster.deploy.local import Local
from mlipcluster.deploy.slurm import Slurm
from mlipcluster.errors import InputError
from mlipcluster.options import Compute

ADDRESS = "tcp://127.0.0.1:8786"


@dataclass(frozen=True)
class Queue(Deployment):
    """Never started."""

    kind: ClassVar[str] = "queue"

    queue: str = ""
    max_workers: int = 1
    min_workers: int = 0

    def start(self, place):
        raise NotImplementedError

    @property
    def interpreter(self):
        return None


@pytest.fixture
def configured(monkeypatch, tmp_path):
    """Clusters ``both`` and ``runs`` have workers; ``both``, ``roots`` and ``others`` have a root."""
    folder = tmp_path / "config" / "mlipcluster"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(
        '[clusters]\nboth.root = "/shared/a"\nroots.root = "/shared/a"\nothers.root = "/shared/b"\n'
    )
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    known = {"both": Queue("gpu", max_workers=5), "runs": Queue("cpu")}
    monkeypatch.setattr(clusters, "_read", known.get)
    return known


def test_this_machine_is_what_is_meant_when_nothing_is_said():
    assert Clusters().deployments(Compute()) == [Local()]
    assert Clusters().deployments(Compute(max_workers=3, min_workers=0, cores=2)) == [Local(3, 0, 2)]
    assert not Clusters().elsewhere


def test_each_kind_of_thing_is_taken(client, configured):
    def made():
        return None

    for said, deployment in [
        (Local(2), Local(2)),
        (ADDRESS, Given(ADDRESS)),
        (client, Given(client)),
        (made, Given(made)),
        ("runs", configured["runs"]),
    ]:
        assert Clusters(cluster=said).deployments(Compute()) == [deployment]
        assert Clusters(cluster=said).elsewhere is not isinstance(said, Local)
    several = [Local(2), "runs", client]
    assert Clusters(clusters=several).deployments(Compute()) == [Local(2), configured["runs"], Given(client)]


def test_a_client_beside_a_cluster_with_workers_is_one_too_many(client, configured):
    for said in ({"cluster": Local()}, {"cluster": "both"}, {"clusters": [Local()]}):
        with pytest.raises(InputError, match=r"cluster \(or clusters\) and client \(or clients\) are both given"):
            Clusters(client=client, **said)
    beside_a_root = Clusters(cluster="roots", client=client)
    assert beside_a_root.where(None) == {"root": None, "cluster": "roots"}
    assert beside_a_root.deployments(Compute()) == [Given(client)]


def test_clients_are_taken_as_before(client):
    assert Clusters(client=client).deployments(Compute()) == [Given(client)]
    assert Clusters(clients=[client, client]).deployments(Compute()) == [Given(client)] * 2
    assert Clusters(client=client).elsewhere


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (
            {"cluster": "nowhere"},
            r"no cluster 'nowhere'; known: .*both \(/shared/a.*under \[clusters.NAME\], or give a",
        ),
        ({"cluster": "tcp:/host"}, "no cluster 'tcp:/host'"),
        ({"cluster": "http://host:80"}, "'http://host:80' is no address; give one such as 'tcp://host:8786'"),
        ({"cluster": 7}, "7 is no cluster; give a deployment such as Slurm"),
        ({"cluster": Local}, r"Local is a class; give a value of it: Local\(…\)"),
        ({"clusters": []}, "clusters is empty"),
        ({"clients": []}, "clients is empty"),
        ({"clusters": "both"}, r"clusters='both': give a list of them, or a single one as cluster="),
        ({"clusters": Local()}, r"clusters=Local\(.*: give a list"),
        ({"cluster": Local(), "clusters": [Local()]}, "cluster and clusters are both given"),
        ({"client": ADDRESS, "clients": [ADDRESS]}, "client and clients are both given"),
        ({"client": ADDRESS}, r"client='tcp://127.0.0.1:8786': give a distributed.Client; cluster= takes addresses"),
        ({"clients": [Local()]}, r"client=Local\(.*: give a distributed.Client"),
        ({"clusters": ["both", "roots"]}, "'roots' has a root of environments, but does not say where workers run"),
    ],
)
def test_what_cannot_be_meant(configured, said, words):
    with pytest.raises(InputError, match=words):
        Clusters(**said)


def test_what_is_closed_already_is_not_taken():
    with LocalCluster(n_workers=0, dashboard_address=":0", processes=False) as cluster:
        assert Clusters(cluster=cluster).deployments(Compute()) == [Given(cluster)]
        with cluster.get_client() as client:
            pass
        with pytest.raises(InputError, match="the Client is closed; hand in one that is open"):
            Clusters(client=client)
    with pytest.raises(InputError, match="the LocalCluster is closed"):
        Clusters(cluster=cluster)


# --- options beside a deployment -------------------------------------------------------------------------------------


def test_options_complete_a_value():
    (found,) = Clusters(cluster=Queue("gpu", min_workers=1)).deployments(Compute(max_workers=9, min_workers=1))
    assert found == Queue("gpu", max_workers=9, min_workers=1)


def test_options_override_a_file(configured):
    assert Clusters(cluster="both").deployments(Compute(max_workers=9)) == [Queue("gpu", max_workers=9)]


@pytest.mark.parametrize(
    ("said", "options", "words"),
    [
        (Queue(max_workers=32), {"max_workers": 8}, r"max_workers=8 here, but Queue\(max_workers=32\); say it in one"),
        (Queue(), {"cores": 4}, "cores=4: Queue has no such field; it has queue, max_workers, min_workers"),
        (ADDRESS, {"max_workers": 8}, "max_workers=8: the workers are not this run's to start; leave it out"),
        (ADDRESS, {"dashboard_address": ":8787"}, "the scheduler is not this run's to start; leave it out"),
        (ADDRESS, {"security": True}, "a scheduler that runs already does not know; give those"),
    ],
)
def test_options_that_contradict_or_cannot_apply_are_not_ignored(said, options, words):
    with pytest.raises(InputError, match=words):
        Clusters(cluster=said).deployments(Compute(**options))


def test_options_of_several_clusters_are_said_for_each():
    with pytest.raises(InputError, match=r"max_workers=8 of several clusters: say it for each"):
        Clusters(clusters=[Queue("a"), Queue("b")]).deployments(Compute(max_workers=8))


def test_what_calls_may_use_applies_everywhere():
    compute = Compute(memory="4 GiB", scratch_dir="/scratch", dashboard_address=":8787")
    assert Clusters(clusters=[Queue("a"), Queue("b")]).deployments(compute) == [Queue("a"), Queue("b")]


# --- whose root ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "root", "where"),
    [
        ({}, None, (None, None)),
        ({}, "/mine", ("/mine", None)),
        ({"cluster": "roots"}, None, (None, "roots")),
        ({"cluster": "roots"}, "/mine", ("/mine", "roots")),  # which `resolve` refuses
        ({"cluster": "both"}, None, (None, "both")),
        ({"cluster": "both"}, "/mine", ("/mine", None)),
        ({"cluster": "runs"}, None, (None, None)),
        ({"cluster": "runs"}, "/mine", ("/mine", None)),
        ({"cluster": Local()}, "/mine", ("/mine", None)),
        ({"clusters": ["runs", "both"]}, None, (None, "both")),
    ],
)
def test_a_named_cluster_may_have_a_root(configured, said, root, where):
    assert Clusters(**said).where(root) == dict(zip(("root", "cluster"), where, strict=True))


def test_a_name_that_is_a_root_alone_leaves_workers_here(configured):
    assert Clusters(cluster="roots").deployments(Compute(max_workers=2)) == [Local(2)]
    assert not Clusters(cluster="roots").elsewhere


def test_clusters_with_several_roots_leave_it_open(configured):
    configured["others"] = Queue("c")
    chosen = Clusters(clusters=["both", "others"])
    with pytest.raises(InputError, match=r"several roots of environments: both \(/shared/a\), others \(/shared/b\)"):
        chosen.where(None)
    assert chosen.where("/mine") == {"root": "/mine", "cluster": None}


@pytest.fixture
def settings_file(tmp_path, monkeypatch):
    """Write the user's settings."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.delenv("MLIPCLUSTER_ROOT", raising=False)
    file = tmp_path / "config" / "mlipcluster" / "config.toml"
    file.parent.mkdir(parents=True)
    return file


def test_a_settings_file_has_deployments(settings_file):
    settings_file.write_text(
        '[clusters.gpu]\ntype = "slurm"\nqueue = "gpu"\ngpus = 1\nworkers = [2, 64]\ndirectives = ["--qos=high"]\n'
    )
    told = Slurm(queue="gpu", gpus=1, workers=Range(2, 64), directives=["--qos=high"])
    assert Clusters("gpu").deployments(Compute()) == [told]
    assert Clusters(clusters=["gpu", Local()]).deployments(Compute()) == [told, Local()]
    assert Clusters("gpu").where(None) == {"root": None, "cluster": None}


@pytest.mark.parametrize(
    ("options", "workers"),
    [
        ({"max_workers": 8}, Range(2, 8)),
        ({"max_workers": 1}, Range(1, 1)),
        ({"min_workers": 0}, Range(0, 64)),
        ({"min_workers": 1, "max_workers": 3}, Range(1, 3)),
    ],
)
def test_options_override_the_number_of_workers_of_a_file(settings_file, options, workers):
    settings_file.write_text('[clusters.gpu]\ntype = "slurm"\nworkers = [2, 64]\n')
    assert Clusters("gpu").deployments(Compute(**options)) == [Slurm(workers=workers)]
    settings_file.write_text('[clusters.gpu]\ntype = "slurm"\nmax_workers = 64\n')
    assert Clusters("gpu").deployments(Compute(**options)) == [Slurm(**{"max_workers": 64, **options})]


@pytest.mark.parametrize("said", ["workers = [2, 64]", "max_workers = 64"])
def test_more_than_the_most_is_refused(settings_file, said):
    settings_file.write_text(f'[clusters.gpu]\ntype = "slurm"\n{said}\n')
    with pytest.raises(InputError, match=r"70.*64"):
        Clusters("gpu").deployments(Compute(min_workers=70))


def test_a_field_that_cannot_be_meant_is_said_with_its_file(settings_file):
    settings_file.write_text('[clusters.gpu]\ntype = "slurm"\ngpus = "one"\n')
    with pytest.raises(InputError, match=r"config\.toml: clusters\.gpu: gpus='one'"):
        Clusters("gpu")


def test_an_environment_of_the_root_is_its_interpreter(settings_file, make_root, build_by_hand, monkeypatch):
    store = make_root(emt_env="def setup(model): ...\n")
    settings_file.write_text(f'[clusters.gpu]\ntype = "slurm"\npython = "emt_env"\nroot = "{store.root}"\n')
    python = str(store.built("emt_env").python)
    assert Clusters("gpu").deployments(Compute()) == [Slurm(python=python)]
    with pytest.raises(InputError, match="python='emt_env' names an environment of a root, and no root is named"):
        Clusters(Slurm(python="emt_env")).deployments(Compute())
    monkeypatch.setenv("MLIPCLUSTER_ROOT", str(store.root))
    assert Clusters(Slurm(python="emt_env")).deployments(Compute()) == [Slurm(python=python)]
    with pytest.raises(InputError, match="none_env"):
        Clusters(Slurm(python="none_env")).deployments(Compute())


def test_an_environment_that_runs_the_workers_is_named_in_the_root(make_root, configured):
    text = "def setup(model, device='cpu'):\n    ...\n"
    here, other = make_root("here", mace=text), make_root("other", mace=text)
    slurm = Slurm(python="mace")
    (found,) = Clusters(cluster=slurm).deployments(Compute(), here.layout.root)
    assert found.python == str(here.built("mace").python)
    with pytest.raises(InputError, match=r"python='mace' names an environment of a root, and no root is named; give"):
        Clusters(cluster=slurm).deployments(Compute())
    assert other.built("mace").python != here.built("mace").python
    assert Clusters(cluster=slurm).anywhere
    assert not Clusters(cluster="roots").anywhere
