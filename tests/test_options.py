from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest

from mlipcluster.errors import InputError
from mlipcluster.options import GROUPS, TAKEN, Faults, Options, Saving, Showing


def test_each_option_lands_in_its_group():
    options = Options.from_names(
        {"max_workers": 3, "output_path": "x", "timeout": 2.5, "author": "A", "progress": False}
    )
    assert options.compute.max_workers == 3
    assert options.saving.output_path == "x"
    assert options.faults.timeout == 2.5
    assert options.about.author == "A"
    assert options.showing.progress is False


def test_no_option_is_in_two_groups():
    names = [field.name for group in GROUPS for field in fields(group)]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(
    ("given", "meant"),
    [("outputpath", "output_path"), ("max_worker", "max_workers"), ("ignore_error", "ignore_errors")],
)
def test_misspelt_option_names_the_one_that_was_meant(given, meant):
    with pytest.raises(InputError, match=f"no option '{given}'; did you mean '{meant}'"):
        Options.from_names({given: 1})


def test_unknown_option_lists_the_known():
    with pytest.raises(InputError, match=r"no option 'zzzzzzzz'; known: accept_changes, .*timeout"):
        Options.from_names({"zzzzzzzz": 1})


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_workers": 0}, "max_workers=0: give a whole number, 1 or more"),
        ({"max_workers": 1.5}, "max_workers=1.5"),
        ({"max_workers": True}, "max_workers=True"),
        ({"cores": 0}, "cores=0"),
        ({"min_workers": -1}, "min_workers=-1"),
        ({"min_workers": 3, "max_workers": 2}, "min_workers=3 is more than max_workers=2"),
        ({"timeout": 0}, "timeout=0"),
        ({"timeout": -1.0}, "timeout=-1.0"),
        ({"timeout": float("nan")}, "timeout=nan"),
        ({"timeout": "5"}, "timeout='5': give seconds above zero"),
        ({"timeout": True}, "timeout=True"),
        ({"output_path": None}, "output_path=None: give the path of a folder"),
        ({"scratch_dir": 7}, "scratch_dir=7: give the path of a folder, or None"),
        ({"sha1": 1234567}, "sha1=1234567: give a string, or None"),
        ({"logging_level": "foo"}, "logging_level='foo' is unknown; known: DEBUG, INFO"),
        ({"logging_level": 10}, "logging_level=10: give a string"),
        ({"output_types": 7}, "output_types=7: give a name, or a list of names"),
        ({"accept_changes": [["seed"]]}, "accept_changes=[['seed']]: give a name"),
        ({"filter_results": "no"}, "filter_results='no': give True, False or a function"),
        ({"compression": "zip"}, "compression 'zip' is unknown; known: '', 'gz', 'bz2', 'xz'"),
        ({"output_types": ("cif",)}, "output type 'cif' is unknown; known: extxyz, json"),
        ({"accept_changes": "seed"}, "accept_changes: 'seed' is not one of"),
        ({"output_dir_name": "../x"}, "output_dir_name='../x' is not a plain name"),
        ({"logs_dir_name": ".hidden"}, "logs_dir_name='.hidden'"),
        ({"output_dir_name": "logs"}, "something else named 'logs'"),
        ({"dry_run": 1}, "dry_run=1: give True or False"),
        ({"author": None}, "author=None: give a string"),
    ],
)
def test_values_that_cannot_be_meant_are_refused(options, words):
    with pytest.raises(InputError) as caught:
        Options.from_names(options)
    assert words in str(caught.value)


@pytest.mark.parametrize("name", TAKEN)
def test_names_that_the_run_folder_uses_cannot_be_chosen(name):
    with pytest.raises(InputError, match=f"something else named '{name}'"):
        Saving(scorefile_name=name)


def test_one_name_stands_for_a_list_of_one():
    assert Saving(output_types="json").output_types == ("json",)
    assert Saving(accept_changes="environment").accept_changes == ("environment",)
    assert Saving(output_types=None).output_types == ()


def test_values_of_like_types_are_taken(tmp_path):
    options = Options.from_names(
        {"output_path": tmp_path, "scratch_dir": tmp_path, "timeout": np.float32(2), "memory": 10**9, "sha1": None}
    )
    assert options.saving.output_path == tmp_path
    assert options.compute.scratch_dir == str(tmp_path)
    assert options.faults.timeout == 2
    assert Showing(logging_level="DEBUG").logging_level == "DEBUG"


def test_an_error_of_a_value_is_a_value_error():
    with pytest.raises(ValueError, match="timeout"):
        Faults(timeout=0)
