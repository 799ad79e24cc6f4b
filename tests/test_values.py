"""Values in prompts, and what tools of the notebook return."""

import asyncio
import dataclasses
import datetime
import math
import re
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from llmproc_nb.core.errors import PromptError
from llmproc_nb.core.message import Document, Image, Text, user
from llmproc_nb.core.tool import result_parts
from llmproc_nb.drivers.value import prompt_value, tool_value
from llmproc_nb.inside.sample import cut_text, tokens
from llmproc_nb.notebook.fit import Fit
from llmproc_nb.notebook.template import render_prompt
from tests.turns import finished

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
SMALL = pd.DataFrame({"city": ["Oslo", "Rome"], "°C": [3.5, None]})
SMALL_TEXT = (
    "pandas DataFrame, 2 rows × 2 columns\ncolumn,dtype,missing\ncity,str,0\n°C,float64,1\nall rows as CSV:\ncity,°C\nOslo,3.5\nRome,\n"
)


def rendered(source, budget_tokens=2000, **names):
    return render_prompt(source, names, lambda expression: eval(expression, {}, names), Fit(budget_tokens))


def said(source, **names):
    parts = rendered(source, **names)
    assert len(parts) == 1
    return parts[0].text


@pytest.mark.parametrize(
    "source",
    [
        "a {single} brace, {'a': {1}}, $x, ${y}, %s, #{z}",
        "write to ann@example.org or git@host:path",
        "A @ B and A@B and x @",
        "`@property` and ``@x ` y``",
        "```python\n@dataclass\nclass A: ...\n```\nrest",
        "  ~~~\n  @x\n  ~~~",
        "npm install @types/node, ask @ann@social.example, @font-face {}",
        "@1 @- @@ https://host/@ann (see ann.@b)",
        "an open {{ brace",
        "}} and {}",
        "",
    ],
)
def test_everything_else_is_text(source):
    assert rendered(source) == ((Text(text=source),) if source else ())


@given(st.text(alphabet=st.characters(exclude_characters="@{\\", exclude_categories=["Cs"])))
def test_any_text_without_a_mark_comes_through_unchanged(source):
    assert "".join(part.text for part in rendered(source)) == source


def test_names_and_expressions_are_replaced_by_their_values():
    assert said("Hi @name, {{1 + n}} of {{ {'a': {'b': n}} }} (@name) @name. @name: x '@name'", name="Ann", n=2) == (
        'Hi Ann, 3 of {"a": {"b": 2}} (Ann) Ann. Ann: x \'Ann\''
    )


def test_expressions_may_hold_braces_strings_and_lines():
    assert said("{{ {1: {2: 3}}[1][2] }}{{'}}'}}{{{'a': 1}['a']}}{{\n[x for x in 'ab']\n}}") == '3}}1["a", "b"]'


def test_a_backslash_keeps_a_reference_as_text():
    assert said(r"\@name and \{{n}} and \\ \@ \x @name", name="Ann") == r"@name and {{n}} and \\ \@ \x Ann"


def test_values_stand_in_code_when_braces_ask_for_it():
    assert said("```python\n{{f}}\n@name\n```", f="x = 1", name="Ann") == "```python\nx = 1\n@name\n```"


def test_attributes_are_followed():
    assert said("@df.shape columns, @p.name.", df=SMALL, p=Path("a/b.txt")) == "[2, 2] columns, b.txt."


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("@nme", r"prompt: there is no name 'nme' for @nme; did you mean @name? Write \@nme for text."),
        ("@zzz", r"prompt: there is no name 'zzz' for @zzz; @name is the value of a variable of this notebook. Write \@zzz for text."),
        ("{{nme}}", r"prompt: there is no name 'nme' for {{nme}}; did you mean 'name'? Write \{{ for two braces that stay."),
        ("{{1/0}}", "prompt: {{1/0}} raised ZeroDivisionError: division by zero; nothing was sent."),
        ("{{a b}}", r"prompt: {{a b}} is no Python expression; an expression belongs in {{…}}. Write \{{ for two braces that stay."),
        ("{{}}", r"prompt: {{}} is no Python expression; an expression belongs in {{…}}. Write \{{ for two braces that stay."),
        (
            "@df.shpe",
            "prompt: df has no attribute 'shpe'; did you mean @df.shape? Put a space before the full stop to end the reference at @df.",
        ),
        ("@df['zzz']", "prompt: @df['zzz'] raised KeyError: 'zzz'; nothing was sent."),
        (
            "@df[zzz]",
            "prompt: there is no name 'zzz' for @df[zzz]; an expression sees the variables of this notebook. "
            "Put a space before the bracket to end the reference at @df.",
        ),
        ("@df['city'].mean()", "prompt: df['city'].mean is a method; {{df['city'].mean()}} is what it gives."),
        ("@df.head", "prompt: df.head is a method; {{df.head()}} is what it gives."),
        (
            "@srv:notes",
            r"prompt: @srv:… is kept for resources of servers, and there are none yet; @srv followed by a space is the value of srv. "
            r"Write \@srv for text.",
        ),
        ("@math", "prompt: math is the module math; a function, a value or text can be put into a prompt."),
        ("@gen", "prompt: gen is a generator, which would be used up or never run; {{list(gen)}} is its items."),
        ("@data", "prompt: data is 3 bytes that are neither an image nor UTF-8 text; decode them first."),
    ],
)
def test_what_cannot_be_said_is_refused_before_anything_is_sent(source, message):
    names = {"name": "Ann", "df": SMALL, "math": math, "gen": (x for x in "ab"), "data": b"\xff\xfe\xfd"}
    with pytest.raises(PromptError) as caught:
        rendered(source, **names)
    assert str(caught.value) == message


class Detached:
    def __getattr__(self, name):
        raise RuntimeError("detached " + name)


class Unsaid:
    def __init__(self, given):
        self.given = given

    def __repr__(self):
        return self.given()  # type: ignore[no-any-return]


class Mute(Exception):
    def __str__(self):
        raise ValueError("no words")


class Closed:
    def __dir__(self):
        raise RuntimeError("closed")


def mute():
    raise Mute


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{{t}}", "prompt: showing t raised RuntimeError: detached "),
        ("see @t", "prompt: showing t raised RuntimeError: detached "),
        ("{{w}}", "prompt: showing w raised ZeroDivisionError: "),
        ("{{[w]}}", "prompt: showing [w] raised ZeroDivisionError: "),
        ("@five", "prompt: showing five raised TypeError: __repr__ returned non-string"),
        ("{{mute}}", "prompt: showing mute raised Mute; nothing was sent."),
        ("{{mute.given()}}", "prompt: {{mute.given()}} raised Mute; nothing was sent."),
        ("@closed.x", "prompt: closed has no attribute 'x'; @closed is the value itself. "),
        ("{{other_class}}", "prompt: showing other_class raised RuntimeError: no class; nothing was sent."),
    ],
)
def test_a_value_that_raises_is_refused_in_one_line(source, message):
    class OtherClass:
        @property
        def __class__(self):
            raise RuntimeError("no class")

    names = {"t": Detached(), "w": Unsaid(lambda: 1 / 0), "five": Unsaid(lambda: 5), "mute": Unsaid(mute), "closed": Closed()}
    with pytest.raises(PromptError) as caught:
        rendered(source, **names, other_class=OtherClass())
    assert str(caught.value).startswith(message)


def test_a_small_frame_goes_whole_below_the_line_that_names_it():
    assert said("Which rows of @df are odd?\nBe brief.", df=SMALL) == f"Which rows of df are odd?\n\ndf: {SMALL_TEXT}\nBe brief."


def test_a_frame_on_its_own_line_stays_in_its_place_and_is_said_once():
    assert said("Look:\n{{df}}\nand", df=SMALL) == f"Look:\ndf: {SMALL_TEXT}\nand"
    assert said("@df or @df?", df=SMALL).count("Oslo") == 1


@pytest.mark.parametrize("budget", [100, 300, 2000])
def test_a_large_frame_is_sampled_within_the_budget_and_says_what_is_left_out(budget):
    frame = pd.DataFrame({"n": range(10_000), "word": ["w" * 12] * 9_999 + [None]})
    (part,) = rendered("@df", budget, df=frame)
    assert tokens(part.text) <= budget + 10
    assert "df: pandas DataFrame, 10,000 rows × 2 columns\ncolumn,dtype,missing\nn,int64,0\nword,str,1\n" in part.text
    shown = sum(line.endswith("wwww") or line == "9999," for line in part.text.splitlines())
    assert f"[{10_000 - shown:,} of 10,000 rows left out]" in part.text
    assert part.text.rstrip().endswith("9999,")


def test_wide_frames_long_cells_and_indexes_say_what_they_leave_out():
    wide = said("@df", df=pd.DataFrame(np.zeros((3, 5000))))
    assert "of 5,000 columns left out]" in wide
    assert tokens(wide) < 4000
    assert "… (1,000 characters)" in said("@df", df=pd.DataFrame({"a": ["x" * 1000]}))
    dated = pd.DataFrame({"v": [1]}, index=pd.DatetimeIndex(["2026-01-02"], name="day"))
    assert "index: DatetimeIndex day (datetime64" in said("@df", df=dated)
    assert "2026-01-02,1" in said("@df", df=dated)
    assert "no rows" in said("@df", df=SMALL.iloc[:0])
    two = pd.DataFrame([[1, 2]], columns=pd.MultiIndex.from_tuples([("a", "b"), ("a", "c")]))
    assert "('a', 'b'),int64,0" in said("@df", df=two)
    assert "a,a\n1,2" in said("@df", df=pd.DataFrame([[1, 2]], columns=["a", "a"]))


def test_series_and_arrays_say_their_type_and_size():
    assert (
        said("@s", s=pd.Series([1.5, None], name="x"))
        == "s: pandas Series 'x', 2 values, float64, 1 missing\nall values as CSV:\nx\n1.5\n\"\"\n"
    )
    assert said("@a", a=np.arange(6).reshape(2, 3)) == "a: numpy array, 2 × 3, int64, all values:\n[[0, 1, 2], [3, 4, 5]]"
    large = said("@a", a=np.zeros((1000, 1000)))
    assert "a: numpy array, 1,000 × 1,000, float64, first " in large
    assert "of 1,000,000 values left out]" in large
    assert said("{{a.sum()}} {{a.dtype}}", a=np.arange(3)) == "3 dtype('int64')"


class City(BaseModel):
    name: str
    size: int = 1


@dataclasses.dataclass
class Point:
    x: int


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "True"),
        (None, "None"),
        (2.5, "2.5"),
        (np.int64(3), "3"),
        (datetime.date(2026, 1, 2), "2026-01-02"),
        (Path("a") / "b", "a/b"),
        ([1, "é", None], '[1, "é", null]'),
        ({"a": (1, 2)}, '{"a": [1, 2]}'),
        (City(name="Oslo"), '{"name": "Oslo", "size": 1}'),
        (Point(x=1), '{"x": 1}'),
        (b"plain", "plain"),
        (ValueError("no"), "ValueError: no"),
        (user("hello"), "hello"),
        (finished("The answer"), "The answer"),
        (object, "object"),
    ],
)
def test_values_are_said_in_their_own_form(value, text):
    if value is object:
        with pytest.raises(PromptError, match="is a type without Python source"):
            rendered("@value", value=value)
    else:
        assert said("@value", value=value) == text


def test_functions_and_classes_go_as_their_source():
    assert said("Explain @tokens, please.", tokens=tokens).startswith("Explain tokens, please.\n\ndef tokens(text: str) -> int:\n")
    assert said("@Point", Point=Point) == "@dataclasses.dataclass\nclass Point:\n    x: int\n"


class Drawn:
    def _repr_png_(self):
        return PNG


class Spoken:
    def __init__(self, data):
        self.data = data

    def _ai_repr_(self, **kwargs):
        return {name: value.format(**kwargs) if isinstance(value, str) else value for name, value in self.data.items()}

    def _repr_png_(self):
        raise AssertionError("the other view is asked")


class SpokenLater:
    async def _ai_repr_(self):
        await asyncio.sleep(0)
        return {"text/plain": "later"}


class SpokenBadly:
    def _ai_repr_(self, **kwargs):
        raise KeyError("k")


class Nteract:
    def _repr_mimebundle_(self, include=None, exclude=None):
        return {"text/plain": "p", "text/llm+plain": "for models"}


def figure_like(module):
    """An object as matplotlib or Pillow has them, by its module and its one method."""

    def save(self, file, format=None, bbox_inches=None):
        file.write(PNG)

    kind = types.new_class("Figure", (), {}, lambda namespace: namespace.update(savefig=save, save=save))
    kind.__module__ = module
    return kind()


@pytest.mark.parametrize(
    "value",
    ["0" * 9000, [0] * 5000, b"0" * 9000, dataclasses.dataclass, Spoken({"text/plain": "0" * 9000})],
    ids=lambda value: type(value).__name__,
)
def test_each_value_has_the_same_room_and_what_is_cut_is_said_to_model_and_person(value):
    fit = Fit(10)
    (part,) = render_prompt("{{v}}", {}, lambda _: value, fit)
    kept, _, note = part.text.rpartition("\n")
    assert len(kept) == 40
    assert re.fullmatch(r"\[[\d,]+ of [\d,]+ characters left out\]", note)
    total = note.split()[2]
    assert fit.notes == [
        f"v: the first 40 of {total} characters; a value takes at most 10 tokens (`%config AgentMagics.value_tokens`)",
    ]


def test_a_value_that_fits_goes_whole_without_a_note():
    fit = Fit()
    assert render_prompt("{{v}}", {}, lambda _: "x" * 40_000, fit) == (Text(text="x" * 40_000),)
    assert fit.notes == []
    assert cut_text("é" * 100, 10) == "é" * 20 + "\n[80 of 100 characters left out]"


def test_a_long_list_of_numbers_takes_a_line_not_a_page():
    assert said("{{v}}", v=[0.5] * 100) == "[" + ", ".join(["0.5"] * 100) + "]"
    assert said("{{v}}", v=["a" * 100] * 3) == '[\n  "' + '",\n  "'.join(["a" * 100] * 3) + '"\n]'


class Plain:
    pass


def test_no_place_in_memory_and_no_order_of_a_set_is_in_a_prompt():
    assert said("{{v}}", v=Plain()) == "<tests.test_values.Plain object>".replace("tests.test_values", Plain.__module__)
    assert said("{{v}}", v={"a": Plain()}) == f'{{"a": "<{Plain.__module__}.Plain object>"}}'
    assert said("{{v}}", v={str(n) for n in range(30)}) == said("{{v}}", v=sorted(str(n) for n in range(30)))
    assert said("{{v}}", v="a text at 0x7f0000000000") == "a text at 0x7f0000000000"


@pytest.mark.parametrize(
    "code",
    [
        "@property\ndef size(self): ...",
        "class A:\n    @property\n    def size(self):\n        ...",
        "@dataclass(frozen=True)  # a value\nclass Point:\n    x: int",
        "@app.get('/')\n@cached(\n    60,\n)\nasync def root(): ...",
        "@Component({\n  selector: 'a',\n})\nexport class Panel {",
        "@known\ndef f(x): ...",
        "@df.setter\ndef df(self, value): ...",
    ],
)
def test_decorators_of_pasted_code_are_text(code):
    source = f"What does this do?\n\n{code}\n"
    assert said(source, known=tokens, df=SMALL) == source


def test_data_on_a_line_of_its_own_is_data_whatever_follows():
    assert said("@name\nclass Point: what is it?", name="Ann") == "Ann\nclass Point: what is it?"
    with pytest.raises(PromptError, match="there is no name 'zzz'"):
        said("@zzz\nis what I mean by class Point")


def test_subscripts_are_followed():
    assert said("@d['a'][0] and @d['b'].real, @d [1] @d['x'", d={"a": [1, 2], "b": 5}) == (
        '1 and 5, {"a": [1, 2], "b": 5} [1] {"a": [1, 2], "b": 5}[\'x\''
    )
    assert said("@df['city'].", df=SMALL).startswith("df['city'].\n\ndf['city']: pandas Series")
    assert said("[@name](https://a.example) @name[^1]", name="Ann") == "[Ann](https://a.example) Ann[^1]"


@pytest.mark.parametrize("value", [PNG, Drawn(), figure_like("matplotlib.figure"), figure_like("PIL.Image"), Image(data=PNG)])
def test_pictures_go_as_pictures_in_their_place(value):
    assert rendered("see @fig now", fig=value) == (Text(text="see "), Image(media_type="image/png", data=PNG), Text(text=" now"))


def test_an_object_says_itself_what_a_model_reads():
    assert said("@v", v=Spoken({"text/plain": "b", "text/markdown": "a within {budget_tokens}"})) == "a within 2000"
    assert rendered("@v", v=Spoken({"text/plain": "words", "image/png": PNG})) == (Text(text="words"), Image(data=PNG))
    assert said("@v", v=SpokenLater()) == "later"
    assert said("@v", v=Nteract()) == "for models"
    with pytest.raises(PromptError, match=r"v._ai_repr_ raised KeyError: 'k'; nothing was sent"):
        rendered("@v", v=SpokenBadly())
    with pytest.raises(PromptError, match="gave nothing that a model reads"):
        rendered("@v", v=Spoken({"text/html": "<b>"}))


def test_an_async_view_works_where_a_loop_is_running():
    async def inside():
        return said("@v", v=SpokenLater())

    assert asyncio.run(inside()) == "later"


def test_core_parts_are_left_as_they_are():
    document = Document(media_type="application/pdf", data=b"%PDF")
    assert rendered("{{[d, t]}}", d=document, t=Text(text="x")) == (document, Text(text="x"))


def test_lone_surrogates_never_reach_a_prompt():
    assert said("a\ud800 @s", s="\udfff") == "a\ufffd \ufffd"


def test_a_tool_that_returns_a_frame_gives_its_shape_and_a_sample():
    assert tool_value(SMALL).direct == SMALL_TEXT and tool_value(SMALL).complete
    assert tool_value({"rows": SMALL, "n": 1}) == {"rows": SMALL_TEXT, "n": 1}
    assert tool_value(pd.DataFrame({"n": range(100_000)})).said.startswith("pandas DataFrame, 100,000 rows × 1 column\n")


def test_a_value_that_is_said_to_a_process_has_a_budget():
    assert prompt_value(SMALL) == SMALL_TEXT
    assert prompt_value(Spoken({"text/plain": "0" * 20_000})) == "0" * 16_000 + "\n[4,000 of 20,000 characters left out]"
    assert "of 5,000 rows left out]" in prompt_value(pd.DataFrame({"n": range(5000)}))
    assert "of 100,000 values left out]" in prompt_value(np.arange(100_000))
    assert prompt_value([Drawn(), np.arange(2)]) == [Image(data=PNG), Text(text="numpy array, 2, int64, all values:\n[0, 1]")]
    assert prompt_value(5) == 5 and prompt_value({"a": 1}) == {"a": 1}


@pytest.mark.parametrize(
    "value", [None, "text", 3, b"x", [1, 2], {"a": [1]}, (1, "b"), Point(x=1), City(name="x"), ValueError("x"), [Text(text="x")]]
)
def test_what_the_core_handles_is_returned_unchanged(value):
    assert tool_value(value) is value or tool_value(value) == value
    assert type(tool_value(value)) is type(value)


def test_a_tool_that_draws_gives_a_picture():
    picture = Image(media_type="image/png", data=PNG)
    assert result_parts(tool_value(Drawn())) == (picture,)
    assert result_parts(tool_value([Drawn(), "and", {"a": 1}])) == (picture, Text(text="and"), Text(text='{\n  "a": 1\n}'))
    assert tool_value({"fig": Drawn()}) == {"fig": "[image left out: return it by itself or in a list]"}
    assert tool_value(finished("The answer")) == "The answer"


class DrawnBadly:
    def _repr_png_(self):
        raise RuntimeError("no screen")

    def __repr__(self):
        return "<plot>"


def test_a_tool_whose_value_cannot_be_shown_has_still_run():
    assert "raised KeyError" in tool_value(SpokenBadly())
    assert tool_value(DrawnBadly()) == "<plot>\n[DrawnBadly._repr_png_ raised RuntimeError: no screen]"
