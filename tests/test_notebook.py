"""What objects show in notebooks and terminals: short, and with all text escaped."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pytest

import vaestro as vs
from vaestro.diagnosis import Diagnosis, Finding
from vaestro.frames import Frame
from vaestro.notebook import Card

EVIL = "<script>alert('1')</script>\x1b[2J"


class Tags(HTMLParser):
    """Collect the tags and the text of HTML."""

    def __init__(self):
        super().__init__()
        self.tags, self.words = set(), []

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.words.append(data)


def read(html):
    parser = Tags()
    parser.feed(html)
    return parser.tags, " ".join(parser.words)


def test_text_is_escaped_everywhere():
    card = Card(EVIL, (EVIL,), (EVIL, "b"), ((EVIL, EVIL),))
    tags, words = read(card.html())
    assert tags == {"div", "b", "table", "tr", "th", "td"}
    assert words.count("<script>alert") == 5 and "\x1b" not in card.html() + card.text()
    frame = Frame({EVIL: np.ma.MaskedArray([EVIL])})
    assert "script" not in read(frame._repr_html_())[0] and "\x1b" not in repr(frame)


def test_a_frame_shows_its_first_rows():
    frame = Frame({f"c{i}": np.ma.MaskedArray(np.arange(30), np.arange(30) == 1) for i in range(9)})
    lines = repr(frame).splitlines()
    assert lines[0] == "30 rows, 9 columns"
    assert "22 more rows and 1 more columns" in lines[1] and len(lines) == 11
    assert "c7" in lines[2] and "c8" not in lines[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    x = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    folder = tmp_path_factory.mktemp("shown") / "<b>run"
    return vs.train(x, run=folder, latent=2, steps=2, network="linear")


def test_runs_and_results_show_themselves(run):
    tags, words = read(run._repr_html_())
    assert "<b>run" in words and "latent: 2" in words and "complete" in words
    assert tags == {"div", "b"}
    evaluation = run.evaluate(k=2)
    assert repr(evaluation).count("log p(x) >=") == 2 and len(repr(evaluation)) < 2000
    assert "3 data" in read(evaluation._repr_html_())[1]
    data = run.data()
    assert "54 / 3 / 3 for training" in repr(data) and "60" not in repr(data.space)
    assert "Comparison" in repr(vs.compare([run.path]))
    found = Diagnosis("healthy", "fine", (), (Finding("few data", "note", EVIL),))
    assert "script" not in read(found._repr_html_())[0] and "Diagnosis: healthy" in repr(found)
