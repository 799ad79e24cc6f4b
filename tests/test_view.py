"""What a turn looks like, finished and under way."""

import base64
import json
import re
import sys

import pytest
from inline_snapshot import snapshot

from llmproc_nb.core.errors import PersonError
from llmproc_nb.core.event import AttemptFailed, Replied, ToolRan, ToolStarted, Warned
from llmproc_nb.core.message import Image, Text, ToolResult
from llmproc_nb.core.provider import Delta
from llmproc_nb.core.visible import visible
from llmproc_nb.notebook.html import markdown_html
from llmproc_nb.notebook.markdown import neutral
from llmproc_nb.notebook.progress import live_bundle
from llmproc_nb.notebook.table import dry_run_bundle, error_html, table_html
from llmproc_nb.notebook.turn import Turn
from llmproc_nb.notebook.view import TURN_TYPE, bundle
from tests.turns import finished, tool_turn

PNG = base64.b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")


def test_a_short_answer_is_one_line_of_text():
    assert bundle(finished("The answer is 42."))["text/plain"] == "scout (scripted: no model answered): The answer is 42."


def test_text_shows_the_whole_answer_and_each_tool_call_in_a_line():
    made = bundle(finished("**42**\n\nrows", scripted=False, tools=[tool_turn("search", {"query": "x", "n": 3}, "three rows")]))
    assert made["text/plain"] == 'scout:\n[search(query="x", n=3): ran, 10 characters]\n**42**\n\nrows'


def test_markdown_holds_the_answer_with_tool_calls_and_thinking_in_short_form():
    made = bundle(finished("It is **42**, see `x`.", thinking="hm", tools=[tool_turn("search", {"query": "x"}, "three rows")]))
    assert made["text/markdown"] == snapshot("""\
**scout** · demo · scripted:demo-1 · **scripted: no model answered**

> *thinking, 2 characters: in the log*

> tool `search(query="x"): ran, 10 characters`\\
> `three rows`

It is **42**, see `x`.\
""")


def test_html_folds_thinking_and_tool_calls_and_says_that_no_model_answered():
    html = bundle(finished("It is **42**.", thinking="hm", tools=[tool_turn("search", {"query": "x"}, "three rows")]))["text/html"]
    for piece in (
        "<strong>scout</strong> · demo · scripted:demo-1 <span",
        ">scripted: no model answered</span>",
        "<summary>thinking · 2 characters</summary>",
        "<summary>tool <code>search(query=&quot;x&quot;)</code> · 10 characters</summary>",
        "&quot;query&quot;: &quot;x&quot;",
        ">three rows</pre>",
        "<p>It is <strong>42</strong>.</p>",
    ):
        assert piece in html
    assert " id=" not in html
    assert "<details open" not in html


def test_the_data_holds_nothing_that_changes_from_run_to_run():
    made = bundle(finished("42", tools=[tool_turn("search", {"query": "x"}, "rows")]))[TURN_TYPE]
    nodes = made.pop("nodes")
    assert [len(node) for node in nodes] == [32] * 4
    assert made == snapshot(
        {
            "version": 1,
            "process": "scout",
            "program": "demo",
            "provider": "scripted",
            "model": "demo-1",
            "scripted": True,
            "stop_reason": "end_turn",
            "detail": None,
            "text": "42",
            "tool_calls": [{"name": "search", "arguments": {"query": "x"}, "outcome": "ran", "result": "rows"}],
            "tool_call_count": 1,
            "input_tokens": 12,
            "output_tokens": 7,
        }
    )


def test_times_costs_and_request_ids_change_no_byte():
    def encoded(**fields):
        return json.dumps(bundle(finished("42", tools=[tool_turn("search", {}, "rows")], **fields))).encode()

    assert encoded(duration_s=1.0, pid=1, call=1) == encoded(duration_s=9.0, pid=7, call=9)


def test_a_replayed_answer_looks_as_it_did_and_a_scripted_one_says_scripted():
    assert bundle(finished("42", scripted=False, replayed=True)) == bundle(finished("42", scripted=False))
    assert bundle(finished("42", replayed=True))["text/plain"] == "scout (scripted: no model answered): 42"


@pytest.mark.parametrize(
    ("reason", "detail", "said"),
    [
        ("max_tokens", None, "cut off: the answer reached its token limit (max_tokens)"),
        ("refusal", "cyber", "refused by the model (refusal): cyber"),
        ("interrupted", None, "interrupted (interrupted)"),
        ("max_steps", None, "stopped: as many requests as one call may make (max_steps)"),
        ("max_total_steps", None, "stopped: the process's requests are used up (max_total_steps)"),
        ("max_cost", None, "stopped: the process's budget is used up (max_cost)"),
        ("something_new", None, "stopped (something_new)"),
    ],
)
def test_a_call_that_did_not_end_by_itself_says_why(reason, detail, said):
    made = bundle(finished("partly", stop_reason=reason, detail=detail, scripted=False))
    assert made["text/plain"] == f"scout: partly\n[{said}]"
    assert said.replace("'", "&#x27;") in made["text/html"]
    assert reason in made["text/markdown"].replace("\\", "")


def test_an_empty_answer_and_notes_are_said():
    assert bundle(finished("", scripted=False))["text/plain"] == "scout: (no text)"
    assert (
        bundle(finished("42", scripted=False, notes=("old model",)), notes=["appended"])["text/plain"]
        == "scout: 42\n[old model]\n[appended]"
    )


def test_a_small_picture_of_a_tool_is_in_the_page_and_any_other_is_named():
    images = [
        Image(media_type="image/png", data=PNG),
        Image(media_type="image/png", data=PNG + bytes(200_001)),
        Image(media_type="image/svg+xml", data=b"<svg onload=alert(1)>"),
        Image(media_type='image/png" onerror="x', data=PNG),
        Image(media_type="image/jpeg", data=PNG),
        Image(media_type="image/png", url="https://host.example/x.png"),
    ]
    tools = [tool_turn("plot", {}, image, call_id=f"c{number}") for number, image in enumerate(images)]
    html = bundle(finished("see", tools=tools))["text/html"]
    assert html.count("<img ") == 1
    assert f'src="data:image/png;base64,{base64.b64encode(PNG).decode()}"' in html
    assert html.count("image not shown here") == 5
    assert "host.example" not in html


def test_long_arguments_and_results_are_cut_with_an_exact_note():
    result = finished("42", tools=[tool_turn("read", {"text": "a" * 5000}, "b" * 10_000)])
    made = bundle(result)
    assert "the first 4,000 of 10,000 characters; the whole is in the log" in made["text/html"]
    assert "the first 2,000 of 5,016 characters; the whole is in the log" in made["text/html"]
    call = made[TURN_TYPE]["tool_calls"][0]
    assert (len(call["result"]), call["result_chars"], len(call["arguments"]), call["arguments_chars"]) == (2000, 10_000, 2000, 5012)


def test_a_flood_of_tool_calls_is_bounded_and_counted():
    made = bundle(finished("42", tools=[tool_turn("t", {}, "r", call_id=f"c{number}") for number in range(250)]))
    assert made["text/html"].count("<details") == 100
    assert made["text/plain"].endswith("[150 more tool calls of 250 are in the log]")


def test_formulas_that_only_draw_are_kept_and_prices_are_prices():
    text = r"$5, $10: $x^2 < y$, \(\alpha\), $$\frac{1}{2}$$, $\href{javascript:x}{y}$"
    assert markdown_html(text) == snapshot("""\
<p><span>$</span>5, <span>$</span>10: \\(x^2 \\lt  y\\), \\(\\alpha\\), \\[\\frac{1}{2}\\], <code>\\href{javascript:x}{y}</code></p>
""")
    assert neutral(text) == snapshot(
        "<span>&#36;</span>5, <span>&#36;</span>10: $x^2 \\lt  y$, $\\alpha$, $$\\frac{1}{2}$$, `\\href{javascript:x}{y}`"
    )


def test_markdown_comes_back_with_its_structure():
    source = "# A\n\n1. one\n2. two\n\n   ```python\n   x = {1}\n   ```\n\n| a | b |\n|--:|---|\n| 1 | x\\|y |\n\n> q\n\n- a\n  - b\n"
    once = neutral(source)
    assert neutral(once) == once
    assert markdown_html(once) == markdown_html(source)


def test_cells_of_a_table_stand_where_the_model_wants_them_or_left():
    made = markdown_html("| a | b | c |\n|---|:-:|--:|\n| 1 | 2 | 3 |")
    assert re.findall(r"<(t[hd]) ([^>]*)>", made) == [
        (tag, f'style="text-align:{side}"') for tag in ("th", "td") for side in ("left", "center", "right")
    ]


def test_links_keep_good_addresses_and_show_bad_ones():
    assert markdown_html("[a](https://x.y/?p=1&q=2) [b](javascript:x) [c](/lab/x) https://x.y/a_b") == (
        '<p><a href="https://x.y/?p=1&amp;q=2" rel="noopener noreferrer nofollow">a</a> <span>b</span> <code>javascript:x</code> '
        "<span>c</span> <code>/lab/x</code> https://x.y/a_b</p>\n"
    )


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\x1b[31mb\x1b[0m", "ab"),
        ("\x1b]0;title\x07", "␛]0;title␇"),
        ("10%\r20%", "10%␍20%"),
        ("a\r\nb\u2028c", "a\nb\nc"),
        ("invoice\u202efdp.exe", "invoice⟨U+202E⟩fdp.exe"),
        ("pay\u200bpal \u009b5n", "pay⟨U+200B⟩pal ⟨U+009B⟩5n"),
        ("\ud800 \ud83d\ude00", "\ufffd 😀"),
        ("👩\u200d💻 می\u200cخواهم a\u200db", "👩\u200d💻 می\u200cخواهم a⟨U+200D⟩b"),
        ("e" + "\u0301" * 10_000, "e" + "\u0301" * 8 + "⟨+9,992 marks⟩".replace(",", "")),
    ],
)
def test_what_acts_or_hides_becomes_visible(text, shown):
    assert visible(text) == shown


def streamed(pieces, updates):
    """Bytes on the wire, updates and the largest one, of a text that comes in pieces and is shown so often."""
    turn = Turn(process="scout", program="demo", provider="anthropic", model="claude-sonnet-5-5")
    sizes, shown = [], 0
    for position, piece in enumerate(pieces):
        turn.delta(Delta("text", piece))
        if position * updates // len(pieces) >= shown:
            shown += 1
            sizes.append(len(json.dumps({"data": live_bundle(turn)}, ensure_ascii=False).encode()) + 700)
    return sum(sizes), len(sizes), max(sizes)


@pytest.mark.parametrize("piece", ["word ", "日本語テ", "<&\"'$", "**a** ", "```\n", "\n\n", "x"])
def test_five_thousand_tokens_at_ten_updates_a_second_stay_under_three_megabytes(piece):
    total, updates, most = streamed([piece] * 5000, 60)
    assert updates == 60
    assert total * 10 < 3_000_000  # 60 s have ten times as many updates
    assert most < 6000


def test_a_million_small_pieces_cost_what_they_are_long():
    turn = Turn(process="scout")
    for _ in range(1_000_000):
        turn.delta(Delta("text", "x"))
    assert len(live_bundle(turn)["text/html"].encode()) < 4000


def event(kind, **fields):
    return kind(seq=1, time_ns=1, pid=1, **fields)


def test_a_turn_under_way_shows_waiting_retries_and_tools():
    turn = Turn(process="scout", program="demo", provider="anthropic", model="m")
    said = [live_bundle(turn)["text/plain"]]
    turn.delta(Delta("wait", "waiting for a free slot"))
    said.append(live_bundle(turn)["text/plain"])
    turn.delta(Delta("text", "Let me"))
    turn.event(event(AttemptFailed, digest="d", attempt=1, error="Overloaded", text="busy (529).", retry_in_s=0.5))
    turn.delta(Delta("reset", "attempt 2 in 0.5 s: busy"))
    said.append(live_bundle(turn)["text/plain"])
    turn.delta(Delta("thinking", "hm"))
    said.append(live_bundle(turn)["text/plain"])
    turn.delta(Delta("tool", "search", 1))
    said.append(live_bundle(turn)["text/plain"])
    turn.event(event(Replied, node="n", digest="d", lineage="scout", stop="tool_use"))
    turn.event(event(ToolStarted, node="n", position=0, call_id="c", name="search", arguments='{"q": 1}'))
    said.append(live_bundle(turn)["text/plain"])
    result = ToolResult(call_id="c", name="search", content=(Text(text="rows"),))
    turn.event(event(ToolRan, node="n", position=0, name="search", result=result))
    turn.event(event(Warned, text="careful"))
    said.append(live_bundle(turn)["text/plain"])
    assert said == snapshot(
        [
            "scout: asked …",
            "scout: asked [waiting for a free slot] …",
            "scout: asked [attempt 2 in 0.5 s: busy] …",
            "scout: thinking: hm …",
            "scout: [search(): writing] …",
            "scout: [search(q=1): running] …",
            "scout: [search(q=1): ran, 4 characters] …",
        ]
    )
    assert "careful" in live_bundle(turn)["text/html"]
    assert "Let me" not in live_bundle(turn)["text/html"]


def test_a_finished_turn_is_its_result_and_a_failed_one_keeps_what_was_said():
    turn = Turn(process="scout", scripted=True)
    assert not turn.said
    turn.delta(Delta("text", "half an ans"))
    assert turn.said
    turn.failed(PersonError("no such thing", right="try another"))
    assert live_bundle(turn)["text/plain"] == (
        "scout (scripted: no model answered): half an ans\n[PersonError: no such thing; try another.]"
    )
    result = finished("whole")
    turn.finish(result)
    assert live_bundle(turn) == bundle(result)


def test_a_tail_inside_code_is_shown_as_code():
    turn = Turn(process="scout")
    turn.delta(Delta("text", "```python\n" + "x = '**a**'\n" * 2000))
    assert "<strong>a</strong>" not in live_bundle(turn)["text/html"]


def test_tables_errors_and_dry_runs():
    assert table_html([["<b>", None], [1, "$5"]], ["a", "b"]) == (
        '<table><thead><tr><th style="text-align:left">a</th><th style="text-align:left">b</th></tr></thead><tbody>'
        '<tr><td style="text-align:left">&lt;b&gt;</td><td style="text-align:left"></td></tr>'
        '<tr><td style="text-align:left">1</td><td style="text-align:left"><span>$</span>5</td></tr></tbody></table>'
    )
    assert "PersonError: a &lt;b&gt;." in error_html(PersonError("a <b>"))
    made = dry_run_bundle({"model": "m", "image": "A" * 9000}, tokens=1234, cost_usd=0.00123)
    assert made["text/plain"] == snapshot("""\
dry run, nothing was sent: about 1,234 input tokens, about $0.0012 to read
texts of more than 4,000 characters are shortened here; `_.body` is the whole request
{
  "model": "m",
  "image": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA… (9,000 characters)"
}\
""")


def test_the_view_loads_no_renderer_before_it_is_needed():
    import subprocess

    code = "import llmproc_nb.notebook.view, sys; print([m for m in ('nh3', 'markdown_it', 'pandas', 'pydantic') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
