"""Which tool calls may run: rules as tables, attacks on rules, what a model is told, what a log keeps."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import events, machine, scripted

from llmproc_nb import Program, tool
from llmproc_nb.core import pattern
from llmproc_nb.core.approval import (
    ALWAYS,
    Approval,
    Ask,
    Decision,
    InTurn,
    Rule,
    Scripted,
    by_policies,
    by_policy,
    decided,
    unanswered,
)
from llmproc_nb.core.clock import SystemClock
from llmproc_nb.core.errors import ProgramError, ToolError
from llmproc_nb.core.event import Decided, ToolRan, ToolStarted
from llmproc_nb.core.usage import Limits
from llmproc_nb.drivers import files, spoken
from llmproc_nb.drivers.replay import Recording
from llmproc_nb.notebook.view import bundle


def ask(tool: str = "run", access: str = "write", **arguments: Any) -> Ask:
    return Ask(process="scout", tool=tool, access=access, arguments=arguments)  # type: ignore[arg-type]


def verdict(policy: Approval, one: Ask) -> str:
    found = by_policy(policy, one)
    return "ask" if found is None else "always" if found.allowed else "never"


def always(tool: str = "run", **arguments: str) -> Approval:
    return Approval(default="never", rules=(Rule(tool=tool, decision="always", arguments=arguments),))


def never(tool: str = "run", **arguments: str) -> Approval:
    return Approval(rules=(Rule(tool=tool, decision="never", arguments=arguments),))


# rules


def test_a_program_that_says_nothing_lets_everything_through():
    assert by_policy(Approval(), ask("delete_all", "admin", path="/")) == Decision(allowed=True, by="default")


def test_the_first_rule_that_matches_decides():
    rules = (
        Rule(tool="delete_*", decision="never", reason="nothing is deleted here"),
        Rule(tool="*", access="read", decision="always"),
        Rule(tool="delete_draft", decision="always"),
    )
    policy = Approval(default="ask", rules=rules)
    assert by_policy(policy, ask("delete_draft")) == Decision(allowed=False, by="rule 1", reason="nothing is deleted here")
    assert by_policy(policy, ask("look", "read")) == Decision(allowed=True, by="rule 2")
    assert by_policy(policy, ask("write_file")) is None


@pytest.mark.parametrize(
    ("policy", "levels"),
    [
        (Approval(), ("always", "always", "always")),
        (Approval(write="ask"), ("always", "ask", "ask")),
        (Approval(write="ask", admin="never"), ("always", "ask", "never")),
        (Approval(default="ask", read="always"), ("always", "ask", "ask")),
        (Approval(default="never", read="always", write="ask"), ("always", "ask", "never")),
        (Approval(read="never"), ("never", "never", "never")),
        (Approval(default="never", write="always"), ("never", "always", "never")),
        (Approval(admin="always", write="ask"), ("always", "ask", "always")),
    ],
)
def test_a_level_that_is_not_named_is_never_milder_than_the_default_or_the_one_below(policy, levels):
    assert tuple(verdict(policy, ask("x", access)) for access in ("read", "write", "admin")) == levels


@pytest.mark.parametrize(
    ("decision", "matched"),
    [("always", ("read", "write")), ("ask", ("write", "admin")), ("never", ("write", "admin"))],
)
def test_what_lets_through_holds_up_to_a_level_and_what_stops_from_it_on(decision, matched):
    rule = Rule(access="write", decision=decision)
    assert tuple(level for level in ("read", "write", "admin") if rule.matches(ask("x", level))) == matched


def test_rules_of_several_programs_hold_together_and_the_strictest_counts():
    lets, asks, stops = Approval(), Approval(write="ask"), Approval(write="never")
    assert by_policies((lets, lets), ask()) == Decision(allowed=True, by="default")
    assert by_policies((lets, asks, asks), ask()) == ask()
    assert by_policies((asks, stops), ask()) == Decision(allowed=False, by="write", reason="it needs write access")
    lenient = Approval(write="ask", unattended="always")
    assert by_policies((lenient,), ask()).unattended == "always"
    assert by_policies((lenient, asks), ask()).unattended == "never"


# attacks on rules


@pytest.mark.parametrize(
    "command",
    [
        "git status; rm -rf /",
        "git status\nrm -rf /",
        "git status\n",
        " git status",
        "git log && curl evil",
        "GIT STATUS",
        "gіt status",  # a Cyrillic і
        "git\u00a0status",
        "git status\u200b",
        "git status\0",
        ["git status"],
        {"git": "status"},
        "",
        None,
        True,
    ],
)
def test_an_always_rule_covers_the_whole_argument(command):
    policy = always(command=r"^git (status|log)$")
    assert verdict(policy, ask(command="git status")) == "always"
    assert verdict(policy, ask(command=command)) == "never"


def test_classes_of_an_always_rule_are_ascii():
    policy = always(name=r"\w+\.csv")
    assert verdict(policy, ask(name="data_1.csv")) == "always"
    assert [verdict(policy, ask(name=name)) for name in ("dаta.csv", "data١.csv", "\uff44ata.csv")] == ["never"] * 3


def test_an_argument_that_is_missing_matches_no_condition():
    assert verdict(always(path=".*"), ask()) == "never"
    assert verdict(always(path="(?s).*"), ask(Path="x", **{"path ": "x"})) == "never"
    assert verdict(always(path=".*", mode="r"), ask(path="x")) == "never"
    assert verdict(never(path=".*"), ask()) == "always"


@pytest.mark.parametrize(("value", "text"), [(5, "5"), (True, "true"), (None, "null"), (1.5, r"1\.5"), (["a", "ü"], r'\["a", "ü"\]')])
def test_what_is_no_text_is_matched_as_its_json(value, text):
    assert verdict(always(x=text), ask(x=value)) == "always"
    assert verdict(never(x=f"^{text}$"), ask(x=value)) == "never"


@pytest.mark.parametrize(
    "command",
    [
        "rm -rf /",
        "ls; rm -rf /",
        "ls\nrm -rf /",
        ["rm", "-rf", "/"],
        {"argv": [{"deep": "rm"}]},
        {"rm": 1},
        "rm\\\n-rf",
        "ｒｍ -rf /",  # full width letters
    ],
)
def test_a_never_rule_finds_its_words_anywhere(command):
    policy = never(command=r"^rm\b|;\s*rm\b")
    assert verdict(policy, ask(command=command)) == "never"
    assert verdict(policy, ask(command="ls farm")) == "always"


def test_a_never_rule_that_looks_for_what_is_not_there_is_read_both_ways():
    policy = never(command=r"^(?!git\b.*$)")
    assert [verdict(policy, ask(command=one)) for one in ("git log", "git log\nrm x", "rm x\ngit log")] == ["always", "never", "never"]


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("data/a.csv", True),
        ("data/deep/er/a.csv", True),
        ("./data/a.csv", True),
        ("data//a.csv", True),
        ("data/../secret", False),
        ("data/x/../../secret", False),
        ("data/..", False),
        ("/data/a.csv", False),
        ("~/data/a.csv", False),
        ("other/data/a.csv", False),
        ("data\\..\\secret", False),
        ("data/a\0.csv", False),
        ("DATA/a.csv", False),
        ("data", False),
        ("", False),
        (["data/a.csv"], False),
    ],
)
def test_a_path_that_is_let_through_stays_in_its_folder(path, allowed):
    assert verdict(always(path="glob:data/**"), ask(path=path)) == ("always" if allowed else "never")


@pytest.mark.parametrize(
    ("glob", "path", "allowed"),
    [
        ("**", "a/b/c", True),
        ("**", "/etc/passwd", False),
        ("**", "~/x", False),
        ("**", "C:/x", False),
        ("**", "file:x", False),
        ("**", "$HOME/x", False),
        ("/srv/**", "/srv/x", True),
        ("/srv/**", "/etc/x", False),
        ("~/notes/*.md", "~/notes/a.md", True),
        ("*.csv", "a.csv", True),
        ("*.csv", "a/b.csv", False),
        ("**/*.csv", "a/b/c.csv", True),
        ("**/*.csv", "c.csv", True),
        ("a?.csv", "a1.csv", True),
        ("a?.csv", "a/.csv", False),
        ("a[b].csv", "a[b].csv", True),
        ("a[b].csv", "ab.csv", False),
        ("a.csv", "aXcsv", False),
        ("data/**", "data/x\ny", True),
    ],
)
def test_path_patterns(glob, path, allowed):
    assert pattern.covers(f"glob:{glob}", path) is allowed


@pytest.mark.parametrize(
    "path",
    [
        "secrets/key",
        "secrets",
        "secrets/",
        "./secrets/key",
        "x/../secrets/key",
        "/srv/app/secrets/key",
        "SECRETS/key",
        "a\\secrets\\key",
        ["ok", "secrets/key"],
        "secrets/../secrets/key",
    ],
)
def test_a_path_that_is_stopped_is_found_however_it_is_written(path):
    policy = never(path="glob:secrets/**")
    assert verdict(policy, ask(path=path)) == "never"
    assert [verdict(policy, ask(path=other)) for other in ("secretsx/key", "my-secrets.txt")] == ["always", "always"]


def test_what_is_too_long_to_look_at_is_stopped():
    long = "a" * (pattern.MAX_CHARS + 1)
    assert verdict(always(x="a*"), ask(x=long)) == "never"
    assert verdict(never(x="b"), ask(x=long)) == "always"
    assert verdict(never(x="b"), ask(x=long * 2)) == "never"
    assert verdict(never(x="b"), ask(x=["a"] * 20_000)) == "never"


@pytest.mark.parametrize("condition", [r"(\w+\s?)*$", r"^(a+)+$", r"(a|a)*b", r"(foo|foo)*x", r"([a-z]+)*\.csv", r"(.*)*x", r"(\d+,?)+;"])
def test_a_condition_that_can_take_endless_time_is_no_condition(condition):
    began = time.process_time()
    with pytest.raises(ProgramError, match=r"a rule for run: arguments.x: .* can take endless time"):
        always(x=condition)
    assert time.process_time() - began < 2


@pytest.mark.parametrize(
    "condition",
    [
        r"git (status|log)( [\w./-]+)*",
        r"^[a-z_]+(\.[a-z_]+)*$",
        r"(?i)select .* from \w+( where .*)?",
        r"\d{4}-\d\d-\d\d",
        r"https://[^/]+/.*",
    ],
)
def test_common_conditions_are_conditions(condition):
    assert pattern.fault(condition) is None


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x))
)
def test_no_value_breaks_a_rule(value):
    for condition in ("a.*b", "glob:a/**", "", "^$"):
        assert pattern.covers(condition, value) in (True, False)
        if pattern.covers(condition, value):
            assert pattern.touches(condition, value)  # what is covered is always touched


# program files

BASE = '[model]\nname = "m"\nprovider = "scripted"\n'
WHOLE = """
[approval]
default = "always"
write = "ask"
unattended = "always"

[[approval.rules]]
tool = "delete_*"
decision = "never"
reason = "nothing is deleted here"

[[approval.rules]]
tool = "run"
access = "admin"
arguments.command = "git (status|log)"
arguments.folder = "glob:data/**"
decision = "always"
"""
EXPECTED = Approval(
    write="ask",
    unattended="always",
    rules=(
        Rule(tool="delete_*", decision="never", reason="nothing is deleted here"),
        Rule(tool="run", access="admin", decision="always", arguments={"command": "git (status|log)", "folder": "glob:data/**"}),
    ),
)


def test_a_program_file_has_rules():
    program = files.from_text(BASE + WHOLE, "toml")
    assert (program.approval, program.notes) == (EXPECTED, ())
    assert files.from_text(BASE, "toml").approval is None
    assert files.from_text(BASE + "[approval]\n", "toml").approval == Approval()
    yaml = "model: {name: m, provider: scripted}\napproval:\n  write: ask\n  rules:\n  - {tool: x, decision: never}\n"
    assert files.from_text(yaml, "yaml").approval == Approval(write="ask", rules=(Rule(tool="x", decision="never"),))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("approval = 3", "<text>: approval: found the number 3; a table is needed."),
        ('[approval]\nwrite = "sometimes"', "<text>: [approval] write: found the text 'sometimes'; it is one of always, ask, never."),
        ("[approval]\nwrite = true", "<text>: [approval] write: found true; a text is needed."),
        ('[approval]\nwirte = "ask"', "<text>: [approval] wirte: this key is not known; there are default, "),
        ('[approval]\nunattended = "ask"', "<text>: [approval] unattended: found the text 'ask'; it is one of never, always."),
        ('[[approval.rule]]\ndecision = "never"', "<text>: [approval] rule: this key is not known; "),
        ('[approval]\nrules = ["never"]', "<text>: [approval] rules[1]: found the text 'never'; a rule is a table."),
        (
            '[[approval.rules]]\ntool = "x"',
            "<text>: [approval.rules[1]] decision: a rule without a decision; it is one of always, ",
        ),
        (
            '[[approval.rules]]\ndecision = "no"',
            "<text>: [approval.rules[1]] decision: found the text 'no'; it is one of always, ",
        ),
        ('[[approval.rules]]\ndecision = "never"\ntools = "x"', "<text>: [approval.rules[1]] tools: this key is not known; "),
        (
            '[[approval.rules]]\ndecision = "ask"\n[[approval.rules]]\ndecision = "never"\narguments.path = "("',
            "<text>: [approval.rules[2].arguments] path: '(' is no regular expression: ",
        ),
        (
            '[[approval.rules]]\ndecision = "never"\narguments.path = "glob:../x"',
            "<text>: [approval.rules[1].arguments] path: '../x' is no path ",
        ),
        (
            '[[approval.rules]]\ndecision = "never"\narguments.path = "(a+)+b"',
            "<text>: [approval.rules[1].arguments] path: '(a+)+b' can take ",
        ),
        (
            '[[approval.rules]]\ndecision = "never"\narguments.a.b = "x"',
            "<text>: [approval.rules[1].arguments] a: found a table; ",
        ),
    ],
)
def test_a_fault_in_the_rules_is_said_with_its_place(text, said):
    top, table = (text, "") if text.startswith("approval =") else ("", text)
    with pytest.raises(ProgramError) as caught:
        files.from_text(f"{top}\n{BASE}{table}", "toml")
    assert str(caught.value).startswith(said)


# what a person decides

ARGUMENTS = {"path": "a"}


@pytest.mark.parametrize(
    ("answer", "decision"),
    [
        (True, Decision(allowed=True, by="person")),
        (False, Decision(allowed=False, by="person")),
        ({"path": "b"}, Decision(allowed=True, by="person", arguments={"path": "b"})),
        (Decision(allowed=False, by="person", reason="why"), Decision(allowed=False, by="person", reason="why")),
        (lambda one: one.arguments == ARGUMENTS, Decision(allowed=True, by="person")),
        (lambda one: None, Decision(allowed=False, by="person")),
    ],
)
def test_a_scripted_approver_answers(answer, decision):
    approver = Scripted(answer)
    assert asyncio.run(decided((Approval(write="ask"),), ask(**ARGUMENTS), approver)) == decision
    assert approver.asked == [ask(**ARGUMENTS)]


def test_where_nobody_can_be_asked_the_policy_decides():
    for unattended, allowed in (("never", False), ("always", True)):
        policy = Approval(write="ask", unattended=unattended)  # type: ignore[arg-type]
        assert asyncio.run(decided((policy,), ask(), None)) == Decision(allowed=allowed, by="unattended")


def test_changed_arguments_keep_to_the_rules():
    policy = Approval(write="ask", rules=(Rule(decision="never", arguments={"path": "glob:secrets/**"}),))
    changed = asyncio.run(decided((policy,), ask(path="a"), Scripted({"path": "secrets/key"})))
    assert changed == Decision(allowed=False, by="rule 1")


def test_asks_are_put_one_at_a_time_and_always_is_remembered_for_one_process_and_tool():
    put, open_now = [], []

    async def person(one: Ask, waiting: int) -> Decision:
        open_now.append(one)
        assert len(open_now) == 1
        put.append((one.pid, one.tool, waiting))
        await asyncio.sleep(0.001)
        open_now.clear()
        return Decision(allowed=True, by="person", reason=ALWAYS if one.tool == "a" else "")

    async def main() -> list[Decision]:
        approver = InTurn(person)
        asks = [Ask(process="p", pid=pid, tool=name) for pid, name in ((1, "a"), (1, "b"), (1, "a"), (2, "a"), (1, "b"))]
        return await asyncio.gather(*(approver.decide(one) for one in asks))

    made = asyncio.run(main())
    assert all(one.allowed for one in made)
    assert put == [(1, "a", 4), (1, "b", 3), (2, "a", 1), (1, "b", 0)]


@pytest.mark.parametrize(
    ("typed", "decision"),
    [
        (["y"], Decision(allowed=True, by="person")),
        (["", "perhaps", "yes!"], Decision(allowed=True, by="person")),
        (["a"], Decision(allowed=True, by="person", reason=ALWAYS)),
        (["n"], Decision(allowed=False, by="person")),
        (["No, not this one"], Decision(allowed=False, by="person", reason="not this one")),
        (["yes but not now", "n"], Decision(allowed=False, by="person")),
        (["e", '{"path": "b"}'], Decision(allowed=True, by="person", arguments={"path": "b"})),
        (['e {"path": "a"}'], Decision(allowed=True, by="person")),
        (["e", "{", '{"path": 5}', "", "n"], Decision(allowed=False, by="person")),
        ([], Decision(allowed=False, by="unattended")),
    ],
)
def test_what_is_typed_is_read_as_a_decision(typed, decision):
    def check(arguments: dict[str, Any]) -> None:
        if not isinstance(arguments["path"], str):
            raise ToolError("path is no text")

    lines, said = iter(typed), []
    one = Ask(process="p", tool="t", arguments=ARGUMENTS, check=check)
    assert spoken.converse(one, lambda sign: next(lines, None), said.append) == decision


def test_an_ask_that_stands_for_itself_has_no_always():
    one = Ask(process="p", tool="files asks", title="the server asks for a name", arguments={"name": ""}, once=True)
    lines, signs, said = iter(["a", 'e {"name": "x"}']), [], []

    def read(sign: str) -> str:
        signs.append(sign)
        return next(lines)

    assert spoken.converse(one, read, said.append) == Decision(allowed=True, by="person", arguments={"name": "x"})
    assert spoken.title(one) == "the server asks for a name"
    assert said == ["'a' is not clear: y, n or e is needed"] and "lways" not in signs[0]
    put = []

    async def always_yes(asked: Ask, waiting: int) -> Decision:
        put.append(asked)
        return Decision(allowed=True, by="person", reason=ALWAYS)

    async def twice() -> None:
        approver = InTurn(always_yes)
        await approver.decide(one)
        await approver.decide(one)

    asyncio.run(twice())
    assert put == [one, one]


def test_nothing_hides_in_what_a_person_reads():
    one = ask("run\u202e", command="ls\r\x1b[2K\u200bx\nsecond", n=[1, {"a": "\u2066"}])
    shown = f"{spoken.title(one)}\n{spoken.arguments_text(one)}{spoken.arguments_json(one)}"
    assert not set(shown) & set("\r\x1b\u200b\u202e\u2066")
    assert "command: ls␍" in shown and "\n    second" in shown
    long = spoken.arguments_text(ask(text="x" * 200_000, command="rm"))
    assert long.startswith("NOT ALL IS SHOWN: the first 100,000 of 200,018 characters")


# in the loop


def calling(*calls: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    return ({"call": list(calls)}, {"say": "{{result}}"})


def delete_file(path: str, force: bool = False) -> str:
    """Delete a file."""
    return f"deleted {path}{' by force' if force else ''}"


def outcomes(process) -> list[tuple[str, str]]:
    return [(event.outcome, event.result.text) for event in events(process, ToolRan)]


def test_a_refusal_is_a_result_in_words_and_an_event():
    approver = Scripted(Decision(allowed=False, by="person", reason="too many files"))
    call = {"name": "delete_file", "arguments": {"path": "a"}}
    process = scripted(*calling(call), tools=[delete_file], approval=Approval(write="ask"), on=machine(approver=approver))
    result = process.run("go").result()
    said = "not run: a person refused this call: too many files."
    assert (result.text, outcomes(process)) == (said, [("refused", said)])
    (event,) = events(process, Decided)
    assert (event.position, event.name, event.allowed, event.by, event.reason) == (0, "delete_file", False, "person", "too many files")
    assert events(process, ToolStarted) == []
    assert result.notes == ("delete_file refused by you: too many files",)
    (asked,) = approver.asked
    assert (asked.process, asked.pid, asked.call, asked.tool, asked.access) == ("scout", process.pid, 1, "delete_file", "write")
    assert (asked.description, asked.arguments) == ("Delete a file.", {"path": "a"})


def test_changed_arguments_run_and_the_model_is_told():
    changed = {"path": "b", "force": True}
    call = {"name": "delete_file", "arguments": {"path": "a"}}
    process = scripted(*calling(call), tools=[delete_file], approval=Approval(write="ask"), on=machine(approver=Scripted(changed)))
    result = process.run("go").result()
    assert result.text == '[a person changed the arguments: it ran with {"path": "b", "force": true}]\ndeleted b by force'
    assert [event.arguments for event in events(process, Decided)] == ['{"path": "b", "force": true}']
    assert [event.arguments for event in events(process, ToolStarted)] == ['{"path": "b", "force": true}']
    assert result.tool_calls[0].arguments == changed


def test_changed_arguments_that_the_tool_does_not_take_run_nothing():
    call = {"name": "delete_file", "arguments": {"path": "a"}}
    process = scripted(*calling(call), tools=[delete_file], approval=Approval(write="ask"), on=machine(approver=Scripted({"path": 5})))
    process.run("go").result()
    assert [outcome for outcome, _ in outcomes(process)] == ["refused"] and events(process, ToolStarted) == []


def test_without_rules_nothing_is_decided_and_with_rules_every_call_is():
    call = {"name": "delete_file", "arguments": {"path": "a"}}
    plain = scripted(*calling(call), tools=[delete_file])
    plain.run("go").result()
    assert events(plain, Decided) == []
    ruled = scripted(*calling(call), tools=[delete_file], approval=Approval())
    assert ruled.run("go").result().notes == ()
    assert [(event.allowed, event.by) for event in events(ruled, Decided)] == [(True, "default")]


def test_an_approver_that_fails_lets_nothing_through():
    def broken(one: Ask) -> bool:
        raise RuntimeError("no")

    call = {"name": "delete_file", "arguments": {"path": "a"}}
    process = scripted(*calling(call), tools=[delete_file], approval=Approval(write="ask"), on=machine(approver=Scripted(broken)))
    process.run("go").result()
    assert [outcome for outcome, _ in outcomes(process)] == ["failed"] and events(process, ToolStarted) == []


def test_waiting_for_a_person_counts_for_no_limit():
    async def slow(one: Ask) -> bool:
        await asyncio.sleep(0.6)
        return True

    quick = tool(delete_file, timeout_s=0.3)
    calls = [{"name": "delete_file", "arguments": {"path": path}} for path in "ab"]
    on = machine(SystemClock(), approver=Scripted(slow))
    process = scripted(*calling(*calls), tools=[quick], approval=Approval(write="ask"), limits=Limits(seconds=0.5), on=on)
    result = process.run("go").result()
    assert (result.stop_reason, result.text) == ("end_turn", "deleted a\ndeleted b")
    assert result.duration_s > 0.6


def test_an_interrupt_ends_the_ask():
    ended = []

    async def never_answers(one: Ask) -> bool:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(one.tool)
        return True

    calls = [{"name": "delete_file", "arguments": {"path": path}} for path in "ab"]
    approver = Scripted(never_answers)
    process = scripted(*calling(*calls), tools=[delete_file], approval=Approval(write="ask"), on=machine(SystemClock(), approver=approver))
    call = process.run("go")
    while len(approver.asked) < 2:
        time.sleep(0.01)
    call.cancel()
    assert call.result(5).stop_reason == "interrupted"
    assert ended == ["delete_file", "delete_file"]
    said = "not run: the call was interrupted before this tool started"
    assert outcomes(process) == [("refused", said), ("refused", said)]
    assert process.messages[-1].role == "tool"


def test_a_replayed_call_looks_as_it_did_and_asks_nobody():
    calls = [{"name": "delete_file", "arguments": {"path": path}} for path in "abc"]
    answers = {"a": True, "b": {"path": "z"}, "c": Decision(allowed=False, by="person", reason="no <b>")}
    policy = Approval(write="ask", rules=(Rule(decision="never", arguments={"path": "d"}),))
    calls.append({"name": "delete_file", "arguments": {"path": "d"}})
    person = Scripted(lambda one: answers[one.arguments["path"]])
    first = scripted(*calling(*calls), tools=[delete_file], approval=policy, on=machine(approver=person))
    recorded = first.run("go").result()
    nobody = Scripted(False)
    on = machine(approver=nobody, recorded=Recording(first.machine.log.events))
    again = scripted(*calling(*calls), tools=[delete_file], approval=policy, on=on)
    replayed = again.run("go").result()
    assert bundle(replayed) == bundle(recorded)
    assert nobody.asked == []
    fields = ("node", "position", "name", "allowed", "by", "reason", "arguments")
    kept = [[tuple(getattr(event, name) for name in fields) for event in events(one, Decided)] for one in (first, again)]
    assert sorted(kept[0]) == sorted(kept[1]) and len(kept[0]) == 4
    assert "delete_file refused by you: no &lt;b&gt;" in bundle(replayed)["text/html"]


def test_the_rules_are_in_the_log_and_come_back_from_it():
    from llmproc_nb.core.declaration import program_from

    program = Program(name="p", provider="scripted", model="m", approval=EXPECTED)
    assert program_from(program.declaration(), name="p")[0].approval == EXPECTED


def test_an_unanswered_ask_tells_the_model_why():
    said = unanswered(ask()).for_model()
    assert said == "not run: a person must allow this call, and nobody can be asked here."


# system calls


def goes_back(request):
    text = request.path[-1].message.text
    if text.endswith("go back"):
        return {"call": [{"name": "goto", "arguments": {"position": "msg_0", "message": "again"}}]}
    return "went back" if "<goto" in text else "said"


@pytest.mark.parametrize(("answer", "text"), [(True, "went back"), (False, "said")])
def test_a_goto_is_decided_before_the_head_moves_and_a_replay_asks_nobody(answer, text):
    policy = Approval(rules=(Rule(tool="goto", decision="ask"),))
    approver = Scripted(answer)
    first = scripted(goes_back, tools=["goto"], approval=policy, on=machine(approver=approver))
    first.run("one").result()
    assert first.run("go back").result().text == text
    assert [one.arguments for one in approver.asked] == [{"position": "msg_0", "message": "again"}]
    assert [event.allowed for event in events(first, Decided)] == [answer]
    nobody = Scripted(not answer)
    on = machine(approver=nobody, recorded=Recording(first.machine.log.events))
    again = scripted(goes_back, tools=["goto"], approval=policy, on=on)
    again.run("one").result()
    assert again.run("go back").result().text == text
    assert nobody.asked == [] and again.head.id == first.head.id


def forks(request):
    last = request.path[-1].message
    if last.text == "split":
        return {"call": [{"name": "fork", "arguments": {"prompts": ["b", "c"]}}]}
    if last.text in ("b", "c"):
        return {"call": [{"name": "delete_file", "arguments": {"path": last.text}}]}
    return "; ".join(result.text for result in last.tool_results) or "said"


def test_children_keep_to_the_rules_and_wait_for_the_person_on_nobodys_time():
    async def slow(one: Ask) -> bool:
        await asyncio.sleep(0.5)
        return one.arguments["path"] == "b"

    policy = Approval(rules=(Rule(tool="delete_file", decision="ask"),))
    approver = Scripted(slow)
    on = machine(SystemClock(), approver=approver)
    process = scripted(forks, tools=["fork", delete_file], approval=policy, limits=Limits(seconds=0.4), on=on)
    result = process.run("split").result()
    assert result.stop_reason == "end_turn"
    assert sorted(one.process for one in approver.asked) == ["scout.1", "scout.2"]
    assert "deleted b" in result.text and "not run: a person refused this call" in result.text


def read_file(path: str) -> str:
    """Read a file."""
    return "words"


NEVER_DELETE = Approval(rules=(Rule(tool="delete_file", decision="never"), Rule(tool="read_file", decision="always")), default="never")
ALIASES = {
    "its own name": delete_file,
    "another name": tool(delete_file).renamed("rm"),
    "an alias of an alias": tool(delete_file).renamed("rm").renamed("tidy"),
    "the name of what is always allowed": tool(delete_file).renamed("read_file"),
}


@pytest.mark.parametrize("named", ALIASES)
@pytest.mark.parametrize("default", ["never", "always"])
def test_a_rule_for_a_tool_holds_for_a_childs_alias_of_it(named, default):
    (name,) = {getattr(ALIASES[named], "name", "delete_file")}
    script = ({"when": "^go$", "call": [{"name": name, "arguments": {"path": "a.txt"}}]}, {"when": ".", "say": "{{result}}"})
    kid = Program(name="kid", provider="scripted", model="script", script=script, tools=(ALIASES[named],))
    rules = msgspec.structs.replace(NEVER_DELETE, default=default)
    scout = scripted({"say": "x"}, tools=[delete_file, read_file], approval=rules)
    child = scout.spawn(kid)
    result = child.run("go").result()
    assert [run.outcome for run in result.tool_calls] == ["refused"] and "not allowed here" in result.text
    assert child.fork().run("go").result().tool_calls[0].outcome == "refused"


@pytest.mark.parametrize(("verdict", "outcome"), [("never", "refused"), ("always", "ran")])
def test_a_rule_for_an_alias_of_ones_own_holds_for_the_tool_in_children(verdict, outcome):
    rules = Approval(rules=(Rule(tool="rm", decision=verdict),), default="never" if verdict == "always" else "always")
    script = ({"when": "^go$", "call": [{"name": "delete_file", "arguments": {"path": "a.txt"}}]}, {"when": ".", "say": "{{result}}"})
    kid = Program(name="kid", provider="scripted", model="script", script=script, tools=(delete_file,))
    own = {"when": "^go$", "call": [{"name": "rm", "arguments": {"path": "a.txt"}}]}
    scout = scripted(own, {"when": ".", "say": "{{result}}"}, tools=[tool(delete_file).renamed("rm")], approval=rules)
    for process in (scout, scout.fork(), scout.spawn(kid)):
        assert [run.outcome for run in process.run("go").result().tool_calls] == [outcome]


def test_an_allowed_call_that_comes_again_after_a_goto_is_asked_about_again():
    said = iter(("delete", "back", "delete", "end"))

    def script(request):
        word = next(said)
        if word == "delete":
            return {"call": [{"name": "delete_file", "arguments": {"path": "a"}}]}
        if word == "back":
            return {"call": [{"name": "goto", "arguments": {"position": "msg_0", "message": ""}}]}
        return "end"

    approver = Scripted(True)
    policy = Approval(rules=(Rule(tool="delete_file", decision="ask"),))
    process = scripted(script, tools=["goto", delete_file], approval=policy, on=machine(approver=approver))
    process.run("go").result()
    assert [one.tool for one in approver.asked] == ["delete_file"] * 2
