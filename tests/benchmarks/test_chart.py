"""The README's speed picture shows the recorded figures, in both colour schemes."""

import json
from xml.etree import ElementTree

import pytest

chart = pytest.importorskip("benchmarks.chart", reason="pip install '.[bench]'")


def texts(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter() if element.text]


def test_the_committed_pictures_are_those_of_the_recorded_result():
    drawn = chart.pictures()
    assert drawn == {name: (chart.PICTURES / name).read_text("utf-8") for name in drawn}
    found = json.loads(chart.RECORDED.read_text("utf-8"))["runs"][0]["mixes"]
    rivals = found["chunks, about 230 tokens"]["rivals"]
    for svg in drawn.values():
        assert {f"{rivals[key]['tokens_s']:,}" for key in chart.RIVALS} <= set(texts(svg))


def test_the_longest_bar_stands_first_and_only_ours_is_in_colour():
    svg = chart.bars("a < b", {"peer": 20.0, "ray-rerank": 10.0}, "light")
    shown = texts(svg)
    assert shown.index("peer") < shown.index("ray-rerank")
    assert svg.count(f"fill: {chart.SCHEMES['light'][2]}") == 1
    assert {"a < b", "20", "10"} <= set(shown)


def test_the_readme_says_the_recorded_figures():
    readme = (chart.ROOT / "README.md").read_text("utf-8")
    found = json.loads(chart.RECORDED.read_text("utf-8"))["runs"][0]["mixes"]
    rivals = found["chunks, about 230 tokens"]["rivals"]
    figures = [f"{rivals[key]['tokens_s']:,}" for key in chart.RIVALS]
    figures.append(f"{rivals['ours']['of_peak']:.0%}".replace("%", " %"))
    assert [figure for figure in figures if figure not in readme] == []
