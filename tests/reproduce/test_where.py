from __future__ import annotations

import os

import pytest

from mlipcluster import Local, reproduce
from mlipcluster.errors import InputError


def where(atoms):
    atoms.info["parent"] = os.getppid()
    atoms.positions += 0.1
    return atoms


def test_an_output_is_made_again_where_it_is_asked_for(run, client, tmp_path, capsys):
    (output,) = run(where)
    told = {"tolerances": {"info.parent": float("inf")}, "protocols": where, "strict": False}
    audit = reproduce(output.path, cluster=client, **told)
    assert audit.new.scores["parent"] in client.run(os.getpid).values()
    audit = reproduce(output.path, cluster=client.scheduler.address, **told)
    assert audit.new.scores["parent"] in client.run(os.getpid).values()
    audit = reproduce(output.path, clusters=[client, Local(1)], clients_indices=1, **told)
    assert audit.new.scores["parent"] not in client.run(os.getpid).values()


def test_a_cluster_that_is_none_is_told(run):
    (output,) = run(where)
    with pytest.raises(InputError, match="there is no cluster 'nowhere'"):
        reproduce(output.path, cluster="nowhere")
    with pytest.raises(InputError, match="there is no cluster 'nowhere'"):
        reproduce(output.path, instance_kwargs={"cluster": "nowhere"})
    with pytest.raises(InputError, match=r"instance_kwargs .*: clusters cannot be chosen: give it to reproduce itself"):
        reproduce(output.path, instance_kwargs={"clusters": [Local()]})
