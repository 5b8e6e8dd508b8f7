from __future__ import annotations

import math

import pytest

from mlipcluster.errors import InputError
from mlipcluster.outputs.results import Results

COLUMNS = ["name", "formula", "natoms", "energy", "max_force", "seconds", "seed", "seeds", "replicate", "calculator"]
COLUMNS += ["protocol", "source", "step", "output", "status", "error", "file", "identity"]


def line(slot, source="Cu.cif#0", output=(0, 1), **more):
    status = more.pop("status", "output")
    return {"slot": slot, "status": status, "source": source, "output": list(output) if output else None, **more}


def test_an_empty_table_has_its_columns(tmp_path):
    frame = Results([], tmp_path).to_dataframe()
    assert list(frame.columns) == COLUMNS
    assert len(frame) == 0


def test_scores_stand_before_what_describes_the_call(tmp_path):
    scores = {"gap": 1.5, "formula": "Cu4", "energy": float("nan"), "natoms": 4, "list": [1, 2], "seed": "mine"}
    failed = line("b/0//0", "z", None, status="failed", error={"type": "ValueError", "message": "no"})
    frame = Results(
        [line("a/0/2/1", scores=scores, seeds=[5, 6], protocols=["x", "y"]), failed], tmp_path
    ).to_dataframe()
    assert list(frame.columns) == [*COLUMNS[:5], "gap", "list", "score seed", *COLUMNS[5:]]
    first, second = frame.to_dict("records")
    assert (first["formula"], first["natoms"], first["gap"], first["score seed"]) == ("Cu4", 4, 1.5, "mine")
    assert math.isnan(first["energy"])
    assert (first["seed"], first["seeds"], first["protocol"], first["step"]) == (6, [5, 6], "y", 1)
    assert (second["status"], second["error"]) == ("failed", "ValueError: no")
    assert frame["energy"].dtype == float


def test_calculators_stand_side_by_side(tmp_path):
    entries = [
        line(f"{name}{source}/0//0", source, scores={"energy": energy}, calculator=name)
        for name, source, energy in [
            ("mace", "Cu.cif#0", 1.0), ("chgnet", "Cu.cif#0", 2.0), ("mace", "Al.cif#0", 3.0)
        ]
    ]  # fmt: skip
    entries.append(line("cAl/0//0", "Al.cif#0", None, status="failed", calculator="chgnet"))
    table = Results(entries, tmp_path).compare("energy")
    assert list(table.index) == ["Al.cif#0", "Cu.cif#0"]
    assert table.loc["Cu.cif#0"].to_dict() == {"chgnet": 2.0, "mace": 1.0}
    assert math.isnan(table.loc["Al.cif#0", "chgnet"])
    assert table.loc["Al.cif#0", "mace"] == 3.0


def test_repeats_and_outputs_have_rows_of_their_own(tmp_path):
    entries = [
        line(f"{name}/{replicate}//0", output=(index, 2), scores={"energy": replicate + index / 10}, calculator=name)
        for name in "ab"
        for replicate in (0, 1)
        for index in (0, 1)
    ]
    table = Results(entries, tmp_path).compare("energy")
    assert table.index.names == ["source", "replicate", "output"]
    assert table["a"].tolist() == table["b"].tolist() == [0, 0.1, 1, 1.1]


def test_different_tasks_of_one_name_are_never_mixed_up(tmp_path):
    entries = [
        line(f"{key}/0//0", scores={"energy": value}, calculator=name)
        for key, name, value in [("k1", "a", 1.0), ("k2", "a", 2.0), ("k3", "b", 3.0), ("k4", "b", 4.0)]
    ]
    table = Results(entries, tmp_path).compare("energy")
    assert sorted(table["a"].dropna()) == [1.0, 2.0]
    assert (table.count(axis=1) == 1).all()
    named = [{**entry, "task": task} for entry, task in zip(entries, "xyyx", strict=True)]
    table = Results(named, tmp_path).compare("energy")
    assert table.loc[("Cu.cif#0", "x")].to_dict() == {"a": 1.0, "b": 4.0}


def test_an_unknown_score_lists_the_known(tmp_path):
    with pytest.raises(
        InputError, match="no output has the score 'gap'; there are: formula, natoms, energy, max_force, bar"
    ):
        Results([line("a/0//0", scores={"bar": 1})], tmp_path).compare("gap")
