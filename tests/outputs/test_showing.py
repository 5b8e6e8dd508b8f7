from __future__ import annotations

import re
from html.parser import HTMLParser

from mlipcluster.outputs.results import Results

EVIL = "<script>alert('x')</script>&\""


def line(number, **more):
    scores = {"formula": "Cu4", "natoms": 4, "energy": -1.23456789, "max_force": 1e-9}
    entry = {"slot": f"k{number}/0//0", "status": "output", "output": [0, 1], "name": f"Cu4-{number}", "scores": scores}
    return {**entry, "source": f"Cu{number}.cif#0", "seconds": 0.123456789, **more}


def failed(number, message="no"):
    error = {"type": "ValueError", "message": message, "attempts": 2}
    return line(number, status="failed", output=None, scores={}, error=error)


class Checker(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open, self.tags = [], set()

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.tags.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_text_has_counts_first_rows_and_failures(tmp_path):
    text = repr(Results([*(line(n) for n in range(25)), failed(99, "it\nbroke")], tmp_path))
    assert text.startswith(f"Results: 25 outputs, 1 failed in {tmp_path}")
    assert "Cu4-0" in text
    assert "-1.234568" in text
    assert "… and 16 more" in text
    assert "failed: Cu4-99: ValueError: it broke (2 attempts)" in text
    assert len(text.splitlines()) < 20


def test_columns_that_are_empty_throughout_are_not_shown(tmp_path):
    heading = repr(Results([line(1)], tmp_path)).splitlines()[1]
    assert "calculator" not in heading
    assert "status" not in heading  # all of them are outputs
    assert "energy / eV" in heading


def test_numbers_stand_at_the_right(tmp_path):
    lines = repr(Results([line(1), line(2, seconds=1234.5)], tmp_path)).splitlines()
    place = lines[1].index("time / s") + len("time / s")
    assert lines[2][:place].endswith(" 0.123")
    assert lines[3][:place].endswith(" 1234.500")


def test_empty_results_are_one_line(tmp_path):
    results = Results([], tmp_path)
    assert repr(results) == f"Results: 0 outputs in {tmp_path}"
    assert "<table" not in results._repr_html_()


def test_html_is_well_formed_and_escapes_everything(tmp_path):
    entries = [line(1, name=EVIL, source=EVIL, calculator=EVIL), failed(2, EVIL)]
    html = Results(entries, tmp_path / "<i>run")._repr_html_()
    checker = Checker()
    checker.feed(html)
    assert checker.open == []
    assert checker.tags <= {"p", "b", "code", "table", "thead", "tbody", "tr", "th", "td", "ul", "li"}
    assert "&lt;script&gt;" in html
    assert "&lt;i&gt;run" in html


def test_long_messages_are_cut(tmp_path):
    results = Results([failed(1, "x" * 5000)], tmp_path)
    assert len(repr(results)) < 1000
    assert re.search("x{100,160}…", results._repr_html_())
