from __future__ import annotations

import json
import stat

import pytest

from mlipcluster.deploy.job_spec import JobSpec, Refusal
from mlipcluster.errors import InputError


def test_a_node_reads_what_the_driver_wrote(tmp_path):
    spec = JobSpec("tls://10.0.0.1:8786", 4, 16, 2, 3600.0, variables={"A": "b c"}, driver={"python": "3.12.1"})
    path = tmp_path / "private" / "0" / "job.json"
    spec.write(path)
    assert JobSpec.read(path) == spec
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_folder_that_the_node_does_not_see(tmp_path):
    with pytest.raises(
        InputError, match=r"does not see the run folder as the driver does.*file system that both share"
    ):
        JobSpec.read(tmp_path / "job.json")


def test_another_version_s_spec_is_not_guessed_at(tmp_path):
    path = tmp_path / "job.json"
    JobSpec("tcp://a").write(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": 99, "new": 1}))
    with pytest.raises(InputError, match="another version of mlipcluster; install the same"):
        JobSpec.read(path)


def test_why_a_node_refuses_is_told_by_a_file(tmp_path):
    spec = tmp_path / "job.json"
    assert Refusal.read(spec, "job0-1") is None
    refusal = Refusal("it runs Python 3.9", ("python: 3.12 -> 3.9",))
    refusal.write(spec, "job0-1")
    assert Refusal.read(spec, "job0-1") == refusal
    assert Refusal.read(spec, "job0-2") is None
