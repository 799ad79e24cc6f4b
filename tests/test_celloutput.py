"""Outputs of sandboxes as people see them: safe, and what was left out is said."""

from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from llmproc_nb.core.sandbox import Output
from llmproc_nb.inside.bundle import clean_bundle
from llmproc_nb.notebook.celloutput import bundle, rich


def of(data: dict[str, Any]) -> dict[str, Any]:
    return bundle(Output(kind="display_data", data=data))


def stand_in(kind: str) -> dict[str, Any]:
    return {"text/plain": f"<IPython.core.display.{kind} object>"}


def test_a_formula_is_typeset_where_every_command_in_it_only_draws() -> None:
    made = of(stand_in("Math") | {"text/latex": "$\\displaystyle \\frac{x^2}{2} < y$"})
    source = "$\\displaystyle \\frac{x^2}{2} < y$"
    assert made == {"text/plain": source, "text/latex": "$\\displaystyle \\frac{x^2}{2} \\lt  y$"}
    assert of({"text/plain": "x**2", "text/latex": "$$x^{2}$$"}) == {"text/plain": "x**2", "text/latex": "$$x^{2}$$"}


@pytest.mark.parametrize(
    "source",
    [
        "$\\href{javascript:alert(1)}{x}$",
        "$\\unicode{x41}$ $\\style{background:url(https://host.example)}{x}$",
        "$\\csname href\\endcsname{javascript:alert(1)}{x}$",
        "\\begin{equation}\\require{html}x\\end{equation}",
        "<img src=x onerror=alert(1)>",
        "$x$<script>alert(1)</script>",
        "$x$ and $\\href{javascript:alert(1)}{y}$",
        "$x < y$<img src=x onerror=alert(1)>$",
    ],
)
def test_a_formula_that_does_more_is_shown_as_its_source(source: str) -> None:
    assert of(stand_in("Latex") | {"text/latex": source}) == {"text/plain": source}


def test_json_is_shown_as_text() -> None:
    assert of(stand_in("JSON") | {"application/json": {"a": ["é", None]}}) == {"text/plain": '{\n  "a": [\n    "é",\n    null\n  ]\n}'}


SCRIPTS = "scripts of a sandbox do not run here"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"application/vnd.plotly.v1+json": {}, "text/html": "<script>x</script>"}, f"[a plotly figure is not shown: {SCRIPTS}]"),
        ({"text/plain": "Figure({...})", "application/vnd.plotly.v1+json": {}}, f"[a plotly figure is not shown: {SCRIPTS}]"),
        ({"text/plain": "<VegaLite 5 object>", "application/vnd.vegalite.v5+json": {}}, f"[a Vega chart is not shown: {SCRIPTS}]"),
        (stand_in("SVG") | {"image/svg+xml": "<svg onload='alert(1)'/>"}, "[an SVG picture is not shown: a PNG or a JPEG can be]"),
        (stand_in("HTML") | {"text/html": "<div><script>draw()</script></div>"}, f"[this HTML is not shown: {SCRIPTS}]"),
        (stand_in("HTML") | {"text/html": "<img src=x>"}, "[HTML is not shown: nothing of it is text, or it is nested too deep]"),
        (stand_in("HTML") | {"text/html": "x" * 200_001}, "[HTML of 200,001 characters is not shown: at most 200,000 can be]"),
        (clean_bundle({"text/plain": "IntSlider(value=0)", "application/vnd.jupyter.widget-view+json": {}}),
         f"IntSlider(value=0)\n[a widget is not shown: {SCRIPTS}]"),
    ],
)  # fmt: skip
def test_what_is_left_out_is_said_in_one_line(data: dict[str, Any], words: str) -> None:
    assert of(data) == {"text/plain": words}


def test_a_table_that_loses_its_colours_says_so_and_one_that_has_none_does_not() -> None:
    frame = pd.DataFrame({"a": [1, 2]})
    plain = of({"text/plain": "   a", "text/html": frame.to_html()})
    assert "not shown" not in plain["text/html"] and plain["text/plain"] == "   a"
    styled = frame.style.set_properties(color="red")
    made = of({"text/plain": "<pandas.io.formats.style.Styler at 0x7f>", "text/html": styled._repr_html_()})
    assert "<td>1</td>" in made["text/html"].replace(' class="', "") and "red" not in made["text/html"]
    assert "[the styles of this table are not shown: only its text can be taken out of a sandbox]</div>" in made["text/html"]


def test_a_picture_stands_for_what_else_there_is() -> None:
    made = of({"image/png": "iVBORw0KGgo=", "application/vnd.plotly.v1+json": {}, "text/plain": "fig"})
    assert made == {"text/plain": "fig", "image/png": "iVBORw0KGgo="}


def test_the_cell_of_an_agent_says_it_too() -> None:
    output = Output(kind="display_data", data={"application/vnd.plotly.v1+json": {}, "text/html": "<script>x</script>"})
    ((kind, html),) = rich([output])
    assert kind == "html" and html.count(f"[a plotly figure is not shown: {SCRIPTS}]") == 1 and "script>" not in html
