from __future__ import annotations

import pytest

from mlipcluster.calculators.model_strings import Choice, choose, examples, unknown
from mlipcluster.errors import InputError
from mlipcluster.store.source import Source

SETUP = "def setup(model, device='cuda'): pass\n"
FROM_PATH = "def setup_from_path(path, device='cuda'): pass\n"


def source(name: str, script: str = SETUP) -> Source:
    return Source(name, "python", script, f"{name}.py", script)


def known(*sources: Source) -> dict[str, Source]:
    return {one.name: one for one in sources}


MACE, CHGNET = source("mace_env"), source("chgnet_env")
NEW = source(
    "mace",
    "CHECKPOINTS = {'mace-mp-0-medium': 'medium', 'mace-off23-small': 'off:small', 'mace:custom': None}\n"
    + SETUP
    + FROM_PATH,
)
SEED = known(MACE, CHGNET)


@pytest.mark.parametrize(
    ("model", "environment", "argument"),
    [
        ("mace-medium", MACE, "medium"),
        ("mace-mp-0-medium", MACE, "mp-0-medium"),
        ("chgnet", CHGNET, ""),
        ("mace_env", MACE, ""),
        ("mace_env-large", MACE, "large"),
        ("mace-org/model", MACE, "org/model"),
    ],
)
def test_the_seeds_model_strings(model, environment, argument):
    assert choose(model, SEED) == Choice(model, environment, argument)


@pytest.mark.parametrize("model", ["mac", "macemedium", "", "-", "chgnets", "emt"])
def test_what_fits_no_environment(model):
    assert choose(model, SEED) is None


def test_weights_in_a_file(tmp_path, monkeypatch):
    weights = tmp_path / "it's my-weights.pt"
    weights.touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = Choice(f"mace-{weights}", MACE, str(weights))
    for said in (str(weights), "./it's my-weights.pt", "~/it's my-weights.pt", "it's my-weights.pt"):
        assert choose(f"mace-{said}", SEED) == expected
    assert choose(f"mace-{weights}", known(NEW)) == Choice(f"mace-{weights}", NEW, str(weights), "setup_from_path")


@pytest.mark.parametrize("said", ["/no/such.pt", "./such.pt", "no/such.model", "~/such"])
def test_weights_that_are_not_there_are_named(said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"there are no weights '/.*such.* for environment 'mace_env'; correct"):
        choose(f"mace-{said}", SEED)


def test_checkpoints_of_rootstock_1_6():
    assert choose("mace-mp-0-medium", known(NEW, CHGNET)) == Choice("mace-mp-0-medium", NEW, "mace-mp-0-medium")
    assert choose("mace-mace-off23-small", known(NEW)) == Choice("mace-mace-off23-small", NEW, "mace-off23-small")
    for model, told in (("mace-medium", "no checkpoint 'medium'"), ("mace", "several checkpoints")):
        with pytest.raises(InputError, match=rf"'mace' has {told}; name one of mace-mp-0-medium, mace-off23-small$"):
            choose(model, known(NEW))
    only = source("chgnet", "CHECKPOINTS = {'chgnet-default': 'x', 'chgnet:custom': None}\n" + SETUP)
    assert choose("chgnet", known(only)) == Choice("chgnet", only, "chgnet-default")


def test_the_longest_name_wins():
    off = source("mace_off_env")
    assert choose("mace-off-small", known(MACE, off)) == Choice("mace-off-small", off, "small")
    assert choose("mace-office", known(MACE, off)) == Choice("mace-office", MACE, "office")


def test_two_environments_that_fit_equally_are_named():
    both = known(MACE, source("mace"))
    with pytest.raises(InputError, match="may mean the environments mace and mace_env; say which"):
        choose("mace-medium", both)
    assert choose("mace_env-medium", both) == Choice("mace_env-medium", MACE, "medium")
    twins = known(NEW, source("other", NEW.script))
    with pytest.raises(InputError, match="environments mace and other"):
        choose("mace-mp-0-medium", twins)
    assert choose("other-mace-mp-0-medium", twins).source.name == "other"


def test_an_environment_for_one_cluster_comes_first_there_and_counts_nowhere_else():
    polaris = source("mace_polaris", "CLUSTERS = ['polaris']\n" + NEW.script)
    both = known(NEW, polaris)
    assert choose("mace-mp-0-medium", both).source is NEW
    assert choose("mace-mp-0-medium", both, "sophia").source is NEW
    assert choose("mace-mp-0-medium", both, "polaris").source is polaris
    assert choose("mace-mp-0-medium", known(polaris)) is None


def test_what_an_error_and_a_list_say():
    assert examples(MACE) == ["mace", "mace-…"]
    assert examples(NEW) == ["mace-mp-0-medium", "mace-off23-small", "mace-/path/of/weights"]
    told = unknown("chgnett", SEED)
    assert "did you mean 'chgnet'" in told
    assert "chgnet_env (chgnet, chgnet-…), mace_env (mace, mace-…)" in told
    assert unknown("x", {}).endswith("its environments are none")
