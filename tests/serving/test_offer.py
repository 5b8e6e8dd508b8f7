from __future__ import annotations

import time

import pytest

from mlipcluster.calculators.known import Known
from mlipcluster.calculators.spec import CalculatorSpec
from mlipcluster.errors import InputError
from mlipcluster.serving.offer import Offer

SPEC = CalculatorSpec("ase.calculators.emt:EMT", info_keys=("charge", "field"))


class Found(dict):
    complaints = ("broken.py: no such file",)


@pytest.fixture
def known(spawned):
    return {"emt": Known("emt", "a test", SPEC, None), "spawned": Known("spawned", "a test", None, spawned("true"))}


def test_all_that_is_known_or_some_of_it(known):
    assert Offer(known).names() == ["emt", "spawned"]
    some = Offer(known, ["emt"])
    assert some.names() == ["emt"]
    assert some.get("spawned") is None
    with pytest.raises(InputError, match="no calculator 'spawned' is served here; served: emt"):
        some.check("spawned")
    with pytest.raises(InputError, match=r"'emtt'.*Did you mean 'emt'"):
        Offer(known, ["emtt"])


def test_what_could_not_be_looked_at_is_told_to_who_misses_something():
    with pytest.raises(InputError, match=r"served: none\. Not looked at: broken\.py: no such file\."):
        Offer(Found()).check("mine")


def test_what_joins_is_served_as_long_as_it_is_there_or_awaited(known):
    offer = Offer(known)
    offer.joined["mine"] = 1
    assert offer.names() == ["emt", "mine", "spawned"]
    offer.check("mine")
    assert offer.is_left_to_others("mine")
    offer.joined["mine"] -= 1
    with pytest.raises(InputError):
        offer.check("mine")
    offer.awaited["mine"] = time.monotonic() + 1000
    offer.check("mine")
    assert offer.is_left_to_others("mine")
    offer.awaited["mine"] = time.monotonic() - 1
    assert not offer.is_left_to_others("mine")
    assert offer.names() == ["emt", "spawned"]


def test_what_can_be_started_here_is_not_left_to_others(known):
    offer = Offer(known)
    offer.joined["emt"] = 1
    assert not offer.is_left_to_others("emt")


def test_which_entries_of_info_are_read(known):
    offer = Offer(known)
    assert offer.info_keys_of("emt") == ["charge", "field"]
    assert offer.info_keys_of("spawned") is None  # only its worker could tell
    offer.info_keys.update(spawned=["spin"], emt=["other"])
    assert offer.info_keys_of("spawned") == ["spin"]
    assert offer.info_keys_of("emt") == ["charge", "field"]
