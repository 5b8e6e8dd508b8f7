from __future__ import annotations

from pathlib import Path

import pytest

from mlipcluster.errors import InputError
from mlipcluster.settings import files
from mlipcluster.settings.values import settings
from mlipcluster.store import sites
from mlipcluster.store.sites import cluster_fields, cluster_names, cluster_roots, find_root, known_root


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write the site's or the user's file; both are looked for in a folder with a hostile name."""
    folder = tmp_path / 'it\'s "here"\nnow'
    site, user = folder / "site.toml", folder / "config" / "mlipcluster" / "config.toml"
    monkeypatch.setattr(files, "SITE_FILE", str(site))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(folder / "config"))
    for name in (files.SITE_VARIABLE, sites.ROOT_VARIABLE):
        monkeypatch.delenv(name, raising=False)

    def write(which: str, text: str) -> Path:
        path = {"site": site, "user": user}[which]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_the_seeds_clusters_are_built_in(write):
    assert find_root(cluster="modal") == Path("/vol/rootstock")
    assert find_root(cluster="della") == Path("/scratch/gpfs/SHARED/rootstock")
    assert known_root() is None


def test_each_word_overrides_the_one_before(write, monkeypatch):
    site = write("site", 'root = "/site"\n[clusters.della]\nroot = "/site/della"\n[clusters.ours]\nroot = "/site/ours"')
    assert (find_root(), find_root(cluster="della")) == (Path("/site"), Path("/site/della"))
    user = write("user", 'root = "/user"\n[clusters.ours]\nroot = "/user/ours"')
    assert find_root() == Path("/user")
    assert {name: (one.value, one.origin) for name, one in cluster_roots().items()} == {
        "della": ("/site/della", str(site)),
        "modal": ("/vol/rootstock", "built in"),
        "ours": ("/user/ours", str(user)),
    }
    monkeypatch.setenv("MLIPCLUSTER_ROOT", "/variable")
    assert find_root() == Path("/variable")
    assert settings()["root"].origin == "MLIPCLUSTER_ROOT"
    assert find_root(cluster="ours") == Path("/user/ours")
    assert find_root("/argument") == Path("/argument")


def test_a_name_with_dots_is_one_name(write):
    write("user", '[clusters."della.princeton.edu"]\nroot = "/there"')
    assert find_root(cluster="della.princeton.edu") == Path("/there")
    assert cluster_roots()["della.princeton.edu"].value == "/there"


def test_home_and_relative_paths(write, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    write("user", 'root = "~/mlips"')
    assert find_root() == tmp_path / "mlips"
    assert find_root("~/other") == tmp_path / "other"
    assert find_root("here/../root") == tmp_path / "root"
    monkeypatch.setenv("MLIPCLUSTER_ROOT", "mlips")
    assert find_root() == tmp_path / "mlips"


def test_without_a_word_the_error_says_all_ways(write):
    with pytest.raises(InputError, match=r"(?s)--root.*--cluster.*MLIPCLUSTER_ROOT.*config\.toml"):
        find_root()


def test_an_unknown_cluster_lists_the_known_and_where_they_come_from(write):
    site = write("site", '[clusters.ours]\nroot = "/site/ours"')
    with pytest.raises(InputError, match=r"no cluster 'adder'; known: della \(/scratch.*, built in\)") as told:
        find_root(cluster="adder")
    assert f"ours (/site/ours, {site})" in str(told.value)


def test_root_and_cluster_exclude_each_other(write):
    with pytest.raises(InputError, match="root='/a' and cluster='della' are both given"):
        find_root("/a", "della")
    with pytest.raises(InputError, match="root is empty"):
        find_root("")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("root = ", "end of document"),
        ('a = 1\nroot = "x" "y"', "line 2"),
        ("rot = 1", "nobody reads 'rot'; known: root, clusters"),
        ("[clusters.della]\nrot = 1", "nobody reads 'clusters.della.rot'"),
        ("[clusters.della]", "nobody reads 'clusters.della'"),
        ("clusters = 3", "nobody reads 'clusters'"),
        ("[clusters.x]\ntype = 3", "clusters.x.type is 3; give the kind of a cluster, such as"),
        (
            "[clusters.x]\ntype = 'slurm'\nqueue = 2020-01-01",
            "clusters.x.queue is datetime.date(2020, 1, 1); give text",
        ),
        (
            "[clusters.x]\nqueue = 'gpu'",
            "nobody reads 'clusters.x.queue'; known: root, clusters.*.root, clusters.*.type",
        ),
        ("root = 3", "root is 3; give the full path of a folder"),
        ('[clusters.x]\nroot = "relative/path"', "clusters.x.root is 'relative/path'; give the full path"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_place(write, text, told):
    path = write("user", text)
    with pytest.raises(InputError) as error:
        find_root()
    assert str(path) in str(error.value)
    assert told in str(error.value)


def test_a_file_that_is_not_text_is_named(write):
    path = write("user", "")
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="cannot be read"):
        settings()


def test_another_site_file_must_be_there(write, monkeypatch, tmp_path):
    monkeypatch.setenv("MLIPCLUSTER_SITE_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(InputError, match=r"MLIPCLUSTER_SITE_CONFIG names .*none\.toml"):
        find_root()
    (tmp_path / "some.toml").write_text('root = "/some"')
    monkeypatch.setenv("MLIPCLUSTER_SITE_CONFIG", str(tmp_path / "some.toml"))
    assert find_root() == Path("/some")


def test_a_root_that_is_handed_in_needs_no_readable_file(write):
    write("user", "broken =")
    assert find_root("/a") == Path("/a")


def test_a_python_without_a_toml_reader_says_so(write, monkeypatch):
    path = write("user", 'root = "/a"')
    monkeypatch.setitem(__import__("sys").modules, "tomllib", None)
    monkeypatch.setitem(__import__("sys").modules, "tomli", None)
    with pytest.raises(InputError, match="install tomli") as told:
        find_root()
    assert str(path) in str(told.value)


def test_a_cluster_may_say_where_workers_run(write):
    site = write("site", '[clusters."della.gpu"]\ntype = "slurm"\nqueue = "gpu"\nenvironment = {A = "1"}')
    user = write("user", '[clusters."della.gpu"]\ngpus = 2\nqueue = "long"\n[clusters.della.gpu]\nroot = "/not/it"')
    with pytest.raises(InputError, match=r"nobody reads 'clusters\.della\.gpu'"):
        settings()
    user = write("user", '[clusters."della.gpu"]\ngpus = 2\nqueue = "long"')
    fields = cluster_fields("della.gpu")
    assert {key: (one.value, one.origin) for key, one in fields.items()} == {
        "type": ("slurm", str(site)),
        "queue": ("long", str(user)),
        "gpus": (2, str(user)),
        "environment": ({"A": "1"}, str(site)),
    }
    assert cluster_names() == ["della", "della.gpu", "modal"]
    assert "della.gpu" not in cluster_roots()
    assert cluster_fields("della") == {}
    with pytest.raises(InputError, match=r"(?s)cluster 'della\.gpu' says where workers run .*but has no root"):
        find_root(cluster="della.gpu")


def test_a_cluster_may_have_both(write):
    write("user", '[clusters.both]\nroot = "/there"\ntype = "pbs"')
    assert find_root(cluster="both") == Path("/there")
    assert list(cluster_fields("both")) == ["type"]
