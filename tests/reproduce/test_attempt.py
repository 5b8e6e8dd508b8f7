from __future__ import annotations

from pathlib import Path

from ase.build import bulk

from mlipcluster import CalculatorSpec, reproduce
from mlipcluster.protocols import single_point

TRIAL = Path(__file__).parents[1] / "calculators" / "trial"


def test_a_file_that_is_scratch_in_the_record_is_no_weight_of_the_new_one(run, tmp_path):
    """A calculator's first call cannot tell it from a download, and making again is a first call."""
    spec = CalculatorSpec("trial:WritesAndReads", args=(str(tmp_path / "job.out"),), paths=(str(TRIAL),))
    results = run(
        single_point, tasks=[bulk("Cu", a=3.5 + number / 10, cubic=True) for number in range(6)], calculator=spec
    )
    told = [output for output in results if output.record["metadata"]["calculators"][""]["provenance"]["scratch"]]
    audit = reproduce(told[0].path, instance_kwargs={"calculator": spec})
    assert audit.differences == ()


def test_a_token_is_in_no_file_of_a_run_and_taken_from_here_to_reproduce_it(run, client, run_folder, monkeypatch):
    spec = CalculatorSpec("trial:NeedsToken", paths=(str(TRIAL),), environment={"TRIAL_TOKEN": "open sesame"})
    results = run(single_point, calculator=spec)
    files = [path for path in run_folder.rglob("*") if path.is_file()]
    assert any(b"TRIAL_TOKEN" in path.read_bytes() for path in files)
    assert not any(b"open sesame" in path.read_bytes() for path in files)
    monkeypatch.setenv("TRIAL_TOKEN", "open sesame")  # not on the workers, which run already
    assert reproduce(results.outputs[0].path, client=client, trust=True).verdict == "identical"
