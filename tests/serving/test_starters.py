"""What the server makes of who joins, beside who they are: how long they may idle, and by whom they are awaited."""

from __future__ import annotations

import sys

import pytest
from ase.calculators.emt import EMT

from mlipcluster.errors import CalculatorStartError
from mlipcluster.serving.server import Options
from mlipcluster.serving.starters import _seconds

JOIN = (
    "import os\nfrom mlipcluster.calculators.spec import CalculatorSpec\nfrom mlipcluster.serving.join import Joiner\n"
    "address = os.environ['MLIPCLUSTER_SERVE_ADDRESS']\n"
    "Joiner(CalculatorSpec('ase.calculators.emt:EMT'), 'slow', address, idle_timeout={idle}).run()"
)

JOIN_FOREVER = JOIN.format(idle=None)


def expected(atoms):
    atoms = atoms.copy()
    atoms.calc = EMT()
    return atoms.get_potential_energy()


@pytest.mark.parametrize(
    ("own", "told", "counts"), [(0.3, None, 0.3), (None, None, 300.0), (None, 0.4, 0.4), (300.0, 0.5, 0.5)]
)
def test_the_idleness_of_a_worker_that_a_command_starts(serve, spawned, cu, until, own, told, counts):
    """What its command says of it, else its configuration, else the server."""
    here = serve(slow=spawned(sys.executable, "-c", JOIN.format(idle=told), idle_timeout=own))
    with here.calculator("slow") as calculator:
        assert calculator.get_property("energy", cu()) == expected(cu())
        found = [worker.idle_timeout for worker in list(here.server.dispatch.workers.values())]
        assert found in ([counts], [])  # it may be gone already
        if counts < 1:
            until(lambda: not here.workers())
            assert calculator.get_property("energy", cu(1)) == expected(cu(1))


def test_a_configuration_that_idles_longer_than_the_server_says_does_so(serve, spawned, cu):
    here = serve(Options(idle_timeout=0.2), slow=spawned(sys.executable, "-c", JOIN_FOREVER, idle_timeout=99))
    with here.calculator("slow") as calculator:
        calculator.get_property("energy", cu())
    (worker,) = here.server.dispatch.workers.values()
    assert worker.idle_timeout == 99


def test_the_end_gives_up_a_command_that_has_not_joined(serve, spawned, below, until):
    here = serve(Options(start_timeout=600.0), slow=spawned("sleep", "600"))
    here.server.loop.post(lambda: here.server.starters.start(here.server.dispatch.starting(0.0, "slow"), "slow"))
    (process,) = until(lambda: below("sleep 600"))
    here.server.__exit__()
    until(lambda: not process.is_running())


def test_a_command_that_outlasts_its_worker_ends_with_the_server(serve, spawned, cu, below, until):
    command = spawned(
        "sh", "-c", '"$PYTHON" -c "$JOIN"; sleep 600', env={"PYTHON": sys.executable, "JOIN": JOIN_FOREVER}
    )
    here = serve(slow=command)
    with here.calculator("slow") as calculator:
        calculator.get_property("energy", cu())
    (process,) = [one for one in below("sleep 600") if one.name() == "sh"]
    here.server.__exit__()
    until(lambda: not process.is_running())


def test_what_only_joins_cannot_be_started(serve):
    here, said = serve(), []
    server = here.server
    server.start_failed = lambda *told: said.append(told)
    server.starters.start(1, "gone")
    ((number, error, words),) = said
    assert (number, error) == (1, CalculatorStartError.__name__)
    assert "`mlipcluster worker … --name gone`" in words


@pytest.mark.parametrize(
    ("told", "meant"), [(5, 5.0), (0.5, 0.5), (0, None), (-1, None), (True, None), ("5", None), (float("inf"), None)]
)
def test_numbers_of_seconds(told, meant):
    assert _seconds(told) == meant
