from __future__ import annotations

import json
import time
from dataclasses import replace

import numpy as np
import pytest
from ase.build import bulk

from mlipcluster.checkpoint import Checkpoint
from mlipcluster.printed import KEPT
from mlipcluster.underway import Underway

IDENTITY = "0123456789abcdef" * 2


@pytest.fixture
def saves():
    """Four saves of a call."""
    kept = []
    checkpoint = Checkpoint(np.random.default_rng(1), {}, 7, keep=kept.append)
    for number in range(4):
        checkpoint.save(bulk("Cu"), {"number": number, "rows": np.arange(3.0), "not finite": float("nan")})
    return kept


@pytest.fixture
def underway(tmp_path):
    it = Underway(tmp_path)
    it.begin("slot", IDENTITY)
    return it


def test_the_newest_is_kept_for_the_next_worker_and_the_next_driver(underway, saves, tmp_path):
    assert underway.submitted("slot") is None
    assert underway.keep("slot", saves[1])
    assert not underway.keep("slot", saves[0]), "an older one that comes late"
    assert underway.known(["slot", "another"]) == {"slot": 2}
    assert underway.got_on("slot")
    assert underway.submitted("slot") == saves[1]
    assert not underway.got_on("slot")
    again = Underway(tmp_path)
    again.begin("slot", IDENTITY)
    assert again.submitted("slot") == saves[1]


def test_saving_where_it_already_stood_is_not_getting_on(underway, saves, tmp_path):
    underway.keep("slot", saves[1])
    for one in (underway, Underway(tmp_path)):
        one.begin("slot", IDENTITY)
        one.submitted("slot")
        assert one.keep("slot", replace(saves[1], number=one.known(["slot"])["slot"] + 1))
        assert not one.got_on("slot")
    assert one.keep("slot", replace(saves[2], number=5))
    assert one.got_on("slot")


@pytest.mark.parametrize("end", ["end", "restart"])
def test_a_call_that_is_over_or_begins_anew_leaves_nothing(underway, saves, tmp_path, end):
    underway.keep("slot", saves[0])
    getattr(underway, end)("slot")
    assert list(tmp_path.iterdir()) == []
    assert underway.submitted("slot") is None
    assert underway.keep("slot", saves[0]) == (end == "restart")


def test_calls_that_nobody_knows_are_left_alone(underway, saves, tmp_path):
    assert not underway.keep("nobody", saves[0])
    underway.end("nobody")
    underway.ran("nobody", 1.0)
    assert list(tmp_path.iterdir()) == []


def damaged(text):
    return text[: len(text) // 2]


def changed(text):
    return text.replace('"state":{"number":1', '"state":{"number":9')


def of_another_call(text):
    return text.replace(IDENTITY, "f" * 32)


def newer(text):
    return text.replace('"schema": 1', '"schema": 2')


def no_object(text):
    return "[]"


@pytest.mark.parametrize("harm", [damaged, changed, of_another_call, newer, no_object])
def test_a_file_that_cannot_be_used_is_told_of_and_the_call_begins_anew(underway, saves, tmp_path, harm):
    underway.keep("slot", saves[1])
    (file,) = tmp_path.iterdir()
    text = file.read_text()
    assert harm(text) != text
    file.write_text(harm(text))
    again = Underway(tmp_path)
    with pytest.warns(UserWarning, match=r"checkpoint .* cannot be used .*begins anew"):
        again.begin("slot", IDENTITY)
    assert again.submitted("slot") is None
    assert again.keep("slot", saves[0]), "and saves itself again"


def test_a_pickle_in_a_file_is_never_loaded(underway, saves, tmp_path):
    body = json.loads(saves[0].body)
    body["state"] = {"__pickle__": "os.system", "base64": ""}
    underway.keep("slot", replace(saves[0], body=json.dumps(body, separators=(",", ":"))))
    with pytest.warns(UserWarning, match="pickle"):
        Underway(tmp_path).begin("slot", IDENTITY)


def test_what_was_asked_before_a_call_was_submitted_is_no_news(underway):
    asked = time.monotonic()
    assert not underway.is_news("slot", asked), "nobody has it yet"
    underway.submitted("slot")
    assert not underway.is_news("slot", asked)
    assert underway.is_news("slot", time.monotonic())
    asked = time.monotonic()
    underway.restart("slot")
    assert not underway.is_news("slot", asked)
    assert not underway.is_news("nobody", asked)


def test_what_the_parts_printed_is_put_together(underway):
    assert underway.printed("slot", "all\n") == "all\n"
    underway.interrupted("slot", "first\n")
    underway.interrupted("slot", "")
    assert underway.printed("slot", "second\n") == "first\nsecond\n"
    assert len(underway.printed("slot", "x" * KEPT)) == KEPT
