"""Inputs over which workers end."""

from __future__ import annotations

from mlipcluster.serving.deaths import ENDED_EARLY, MAX_DEATHS, REMEMBERED, Deaths
from mlipcluster.serving.fair_queue import Request
from mlipcluster.socket_worker import wire


def request(body=b"input", name="emt", number=1):
    frame = bytearray(wire.encode({"kind": "calculate", "body": body.decode()}))
    wire.set_id(frame, number)
    return Request(1, number, name, frame)


def test_so_many_deaths_over_one_input_and_it_is_refused_whoever_asks():
    deaths = Deaths()
    for count in range(MAX_DEATHS):
        assert deaths.verdict(request(number=7)) == ""
        deaths.add(request(number=count), "signal SIGSEGV")
    said = deaths.verdict(request(number=8))
    assert said.startswith(f"{MAX_DEATHS} processes of calculator 'emt'")
    assert "signal SIGSEGV" in said
    assert ENDED_EARLY in said


def test_other_inputs_and_other_calculators_are_not_refused_for_it():
    deaths = Deaths()
    for _ in range(MAX_DEATHS):
        deaths.add(request(), "exit status 1")
    assert deaths.verdict(request(b"another")) == ""
    assert deaths.verdict(request(name="lj")) == ""


def test_who_survives_an_input_clears_it():
    deaths = Deaths()
    for _ in range(MAX_DEATHS - 1):
        deaths.add(request(), "exit status 1")
    deaths.survived(request())
    deaths.add(request(), "exit status 1")
    assert deaths.verdict(request()) == ""


def test_the_inputs_that_came_last_are_remembered():
    deaths = Deaths()
    for _ in range(MAX_DEATHS):
        deaths.add(request(), "exit status 1")
    for number in range(REMEMBERED):
        deaths.add(request(str(number).encode()), "exit status 1")
    assert deaths.verdict(request()) == ""
