"""Compaction: what happens when a dialog nears its model's window. What was sent stays as it was; the next request is always legal."""

from __future__ import annotations

import asyncio

import msgspec
import pytest
from machines import events, machine, roles, scripted
from simple import is_legal, recorded_run
from strict import check_anthropic, check_chat, check_responses

from llmproc_nb.api import Machine, Program
from llmproc_nb.core.clock import FixedClock
from llmproc_nb.core.declaration import program_from
from llmproc_nb.core.errors import ContextTooLong, PersonError, ProgramError
from llmproc_nb.core.event import Asked, Compacted, Moved, Replied, Warned
from llmproc_nb.core.message import Message, Thinking, parts_of
from llmproc_nb.core.program import Compaction
from llmproc_nb.core.provider import Request, Settings
from llmproc_nb.core.record import processes
from llmproc_nb.core.tool import parts_text
from llmproc_nb.core.usage import Limits
from llmproc_nb.drivers import anthropic, openai
from llmproc_nb.drivers.files import from_text
from llmproc_nb.drivers.files.compaction import own_compaction
from llmproc_nb.drivers.rebuild import rebuild
from llmproc_nb.drivers.replay import Recording, reexecute
from llmproc_nb.drivers.scripted import from_program
from llmproc_nb.drivers.table import LateDrivers
from llmproc_nb.notebook.frames import frames
from llmproc_nb.notebook.seen import seen

ASKED = "This dialog is getting too long"
LONG = "word " * 80  # about 100 tokens


def said(request: Request) -> str:
    message = request.head.message
    return message.text or "\n".join(result.text for result in message.tool_results)


def talkative(request: Request):
    """Answers at length, sums up in a few words."""
    return "they talked" if said(request).startswith(ASKED) else f"re {said(request)[:5]} {LONG}"


def small(policy: str = "summarise", **fields) -> Compaction:
    return Compaction(**{"policy": policy, "at": 0.8, "window": 1000, "keep_last": 3, **fields})


def talking(script=talkative, *, turns: int = 0, rules: Compaction | None = None, **fields):
    scout = scripted(script, compaction=rules or small(), **fields)
    for number in range(turns):
        scout.run(f"q{number} {LONG}").result()
    return scout


def check_request(request: Request) -> None:
    """Raises where one of the APIs would refuse the request."""
    check_anthropic(anthropic.AnthropicProvider(api_key="k").preview(request))
    check_responses(openai.OpenAIResponses(api_key="k").preview(request))
    check_chat(openai.OpenAIChat(name="openai", api_key="k").preview(request))


def test_a_path_that_nears_the_window_goes_on_as_a_summary_and_the_last_messages():
    scout = talking(turns=4)
    full = scout.head
    result = scout.run(f"q4 {LONG}").result()
    assert result.text.startswith("re q4")
    assert roles(scout) == ["system", "user", "user", "assistant", "user", "assistant"]
    assert scout.messages[1].text == (
        "[The first 6 messages of this dialog are left out here: with them it was too long for your window.]\n"
        "<summary>\nthey talked\n</summary>"
    )
    assert [message.text[:5] for message in scout.messages[2:]] == ["q3 wo", "re q3", "q4 wo", "re q4"]
    assert full.id in scout.machine.dialog and [node.message.text[:2] for node in full.path()[1:3]] == ["q0", "re"]
    (compacted,) = events(scout, Compacted)
    assert (compacted.left_out, compacted.policy, compacted.window) == (6, "summarise", 1000)
    assert scout.machine.dialog.find(compacted.before).parent is full and compacted.node == scout.path[-2].id
    assert [event.reason for event in events(scout, Moved)] == ["compacted"]


def test_the_summary_is_asked_aside_with_the_same_config_and_costs_what_it_costs():
    seen: list[Request] = []

    def script(request: Request):
        seen.append(request)
        return talkative(request)

    scout = talking(script, turns=4)
    before = scout.usage
    result = scout.run(f"q4 {LONG}").result()
    summary, answer = seen[-2:]
    assert summary.path[:-1] == (*seen[-3].path, *summary.path[-3:-1]) and summary.head.message.text.startswith(ASKED)
    assert summary.config.id == answer.config.id == seen[0].config.id
    assert summary.head not in scout.path and scout.machine.dialog.children(summary.head)[0].message.text == "they talked"
    assert result.usage.requests == len(result.api_calls) == 2
    assert scout.usage == before + result.usage
    assert [event.usage.input_tokens > 500 for event in events(scout, Replied)[-2:]] == [True, False]


def test_the_result_has_all_nodes_of_the_call_and_a_note():
    scout = talking(turns=4)
    result = scout.run(f"q4 {LONG}").result()
    assert [node.message.role for node in result.nodes] == ["user", "assistant"]
    assert [node.message.text[:2] for node in result.nodes] == ["q4", "re"]
    (note,) = result.notes
    assert note == (
        "the dialog fills 92% of the window of script (918 of 1,000 tokens); "
        "its 6 older messages are told in a summary, it goes on from a shorter branch"
    )


def call(name, **arguments):
    return {"name": name, "arguments": arguments}


def look(at: int) -> str:
    """Look at something long."""
    return f"look {at}: {LONG}"


def looking(most: int = 24):
    """A script that calls a tool again and again, and checks that each request is one that the APIs take."""
    asked: list[Request] = []

    def script(request: Request):
        asked.append(request)
        check_request(request)
        if said(request).startswith(ASKED):
            return f"looked {len(asked)} times"
        return {"call": [call("look", at=len(asked))]} if len(asked) < most else "seen enough"

    return script, asked


@pytest.mark.parametrize("keep_last", [1, 2, 3, 5])
def test_a_tool_loop_is_shortened_in_the_middle_and_every_request_is_legal(keep_last):
    script, asked = looking()
    scout = talking(script, rules=small(keep_last=keep_last), tools=[look], limits=Limits(steps=50))
    result = scout.run("look around").result()
    assert result.text == "seen enough" and is_legal(scout)
    assert len(events(scout, Compacted)) >= 2
    assert len(result.tool_calls) == len([one for one in asked if not said(one).startswith(ASKED)]) - 1
    assert [node.message.role for node in result.nodes][:3] == ["user", "assistant", "tool"]
    assert len([node for node in result.nodes if node.message.role == "tool"]) >= len(result.tool_calls)


def test_the_count_of_what_is_left_out_grows_from_one_summary_to_the_next():
    script, _ = looking()
    scout = talking(script, tools=[look], limits=Limits(steps=50))
    scout.run("look around").result()
    left = [event.left_out for event in events(scout, Compacted)]
    told = scout.messages[1].text
    assert len(left) >= 2 and told.startswith(f"[The first {sum(left) - len(left) + 1} messages of this dialog are left out here")
    assert told.count("<summary>") == 1


def test_what_waits_for_an_answer_is_kept_however_long_it_is():
    scout = talking(turns=3)
    result = scout.run("q3 " + LONG * 5).result()
    assert scout.messages[1].text.startswith("[The first 6 messages") and [node.message.text[:2] for node in result.nodes] == ["q3", "re"]
    assert roles(scout) == ["system", "user", "user", "assistant"]


def test_a_last_message_that_is_too_long_by_itself_is_told_and_not_summarised():
    scout = talking(turns=1)
    (note,) = scout.run("q1 " + LONG * 9).result().notes
    assert note.endswith("its last messages alone are so long that a summary would not help")
    assert not events(scout, Compacted) and len(events(scout, Asked)) == 2


def test_without_a_rule_a_dialog_warns_once_for_each_mark():
    scout = talking(lambda request: "yes", rules=small("warn"))
    notes = [note for number in range(36) for note in scout.run(f"q{number} {LONG[:100]}").result().notes]
    step = 'go on from an earlier message, from a shorter fork, or with [compaction] policy = "summarise"'
    assert notes == [
        f"the dialog fills 80% of the window of script (805 of 1,000 tokens); {step}",
        f"the dialog fills 91% of the window of script (912 of 1,000 tokens); {step}",
    ]
    assert [event.text for event in events(scout, Warned)] == notes
    assert not events(scout, Compacted) and len(events(scout, Asked)) == 36


def test_off_says_nothing():
    scout = talking(rules=small("off"), turns=7)
    assert not events(scout, Warned) and len(scout.path) == 15


def test_a_script_has_no_window_unless_one_is_set():
    scout = scripted(talkative)
    for number in range(3):
        assert scout.run(f"q{number} {LONG * 50}").result().notes == ()


def test_a_window_that_is_not_known_is_told_once_where_summaries_are_wanted():
    program = Program(
        name="s", provider="openai_chat", model="unheard-of", base_url="http://127.0.0.1:9/v1", compaction=Compaction(policy="summarise")
    )
    scout = program.start(machine=machine())
    call = scout.run("hello")
    with pytest.raises(Exception, match="no connection"):
        call.result()
    (warned,) = events(scout, Warned)
    assert warned.text == (
        "how much unheard-of can read is not known, so nothing is summarised before a request is refused; "
        "window = … under [compaction] says it"
    )


def test_a_summary_that_fails_leaves_the_messages_out_without_one_and_says_so():
    def script(request: Request):
        return {"error": "RequestRefused"} if said(request).startswith(ASKED) else talkative(request)

    scout = talking(script, turns=4)
    result = scout.run(f"q4 {LONG}").result()
    assert result.text.startswith("re q4") and "<summary>" not in scout.messages[1].text
    assert result.notes[0].endswith(
        "; the summary failed (RequestRefused), so its 6 older messages are left out without one, it goes on from a shorter branch"
    )
    assert [event.policy for event in events(scout, Compacted)] == ["shorten"]


def test_a_model_that_calls_a_tool_instead_of_summing_up_is_a_summary_that_failed():
    def script(request: Request):
        return {"call": [call("look", at=1)]} if said(request).startswith(ASKED) else talkative(request)

    scout = talking(script, turns=4, tools=[look])
    result = scout.run(f"q4 {LONG}").result()
    assert "the summary failed (the model said nothing, tool_use)" in result.notes[0] and result.tool_calls == ()
    assert is_legal(scout)


def test_an_earlier_summary_is_not_lost_where_the_next_one_fails():
    def script(request: Request):
        if said(request).startswith(ASKED):
            return {"error": "RequestRefused"} if "<summary>" in request.path[1].message.text else "the first summary"
        return talkative(request)

    scout = talking(script, turns=8)
    assert [event.policy for event in events(scout, Compacted)] == ["summarise", "shorten"]
    assert "<summary>\nthe first summary\n</summary>" in scout.messages[1].text


def refusing(limit_tokens: int, script=talkative):
    """A script of a model whose window is smaller than anybody says; it counts what it refused."""
    refused: list[Request] = []

    def answer(request: Request):
        if sum(len(parts_text(parts_of(node.message))) for node in request.path) > limit_tokens * 4:
            refused.append(request)
            raise ContextTooLong("prompt is too long", place="scripted")
        return script(request)

    return answer, refused


def test_a_request_that_was_too_long_is_made_once_more_from_a_shorter_branch():
    script, refused = refusing(600)
    scout = talking(script, turns=2, rules=small(window=100_000))
    result = scout.run(f"q2 {LONG} {LONG}").result()
    assert result.text.startswith("re q2") and len(refused) == 1
    (compacted,) = events(scout, Compacted)
    assert (compacted.policy, compacted.left_out, compacted.tokens) == ("shorten", 3, None)
    assert result.notes == (
        "the dialog was too long for script; its 3 older messages are left out without a summary, it goes on from a shorter branch",
    )
    assert [node.message.text[:2] for node in result.nodes] == ["q2", "re"]


def test_a_tool_loop_that_was_too_long_goes_on_from_its_last_call():
    script, refused = refusing(450, looking()[0])
    scout = talking(script, tools=[look], rules=small(window=100_000), limits=Limits(steps=50))
    result = scout.run("look around").result()
    assert result.text == "seen enough" and len(refused) == len(events(scout, Compacted)) >= 2 and is_legal(scout)


def test_it_is_made_once_more_only_once_and_the_question_is_taken_back():
    script, refused = refusing(350)
    scout = talking(script, turns=1, rules=small(window=100_000))
    with pytest.raises(ContextTooLong):
        scout.run(f"q1 {LONG * 4}").result()
    assert len(refused) == 2 and len(events(scout, Compacted)) == 1
    assert [event.reason for event in events(scout, Moved)] == ["compacted", "failed"]
    assert roles(scout) == ["system", "user"] and scout.messages[1].text.startswith("[The first 2 messages")
    assert scout.run("q2 short").result().text.startswith("re q2")


def test_a_single_message_that_is_too_long_cannot_be_shortened():
    script, refused = refusing(50)
    scout = talking(script)
    with pytest.raises(ContextTooLong):
        scout.run(f"q0 {LONG}").result()
    assert len(refused) == 1 and roles(scout) == ["system"]


@pytest.mark.parametrize("policy", ["warn", "off"])
def test_without_the_policy_a_request_that_was_too_long_fails(policy):
    script, refused = refusing(350)
    scout = talking(script, turns=1, rules=small(policy, window=100_000))
    with pytest.raises(ContextTooLong):
        scout.run(f"q1 {LONG * 4}").result()
    assert len(refused) == 1 and len(scout.path) == 3


def test_a_summary_that_is_itself_too_long_falls_back():
    script, refused = refusing(840)
    scout = talking(script, turns=3, rules=small())
    result = scout.run(f"q3 {LONG} {LONG}").result()
    assert "the summary failed (ContextTooLong)" in result.notes[0] and len(refused) == 1 and result.text.startswith("re q3")


def test_a_failure_after_the_summary_takes_the_question_back_and_keeps_what_was_paid_for():
    def script(request: Request):
        if "<summary>" in request.path[1].message.text and said(request).startswith("q4"):
            return {"error": "RequestRefused"}
        return talkative(request)

    scout = talking(script, turns=4)
    with pytest.raises(Exception, match="the script says so"):
        scout.run(f"q4 {LONG}").result()
    assert [message.text[:10] for message in scout.messages[1:]] == ["[The first", "q3 word wo", "re q3 wo w"]
    scout.send("news")
    with pytest.raises(Exception, match="the script says so"):
        scout.run(f"q4 {LONG}").result()
    assert [message.text[:10] for message in scout.messages[3:]] == ["re q3 wo w", "news"]
    asked = len(events(scout, Asked))
    assert scout.run("q5").result().text.startswith("re q5")
    assert len(events(scout, Asked)) == asked + 1


def test_a_recorded_run_is_replayed_with_its_summaries_and_asks_nobody():
    script, _ = looking()
    first = talking(script, tools=[look], limits=Limits(steps=50))
    told = first.run("look around").result()

    def nobody(request: Request):
        raise AssertionError("the script was asked")

    nobody.__name__ = "script"
    recording = Recording(first.machine.log.events, "replay")
    again = talking(nobody, tools=[look], limits=Limits(steps=50), on=machine(recorded=recording))
    result = again.run("look around").result()
    assert again.head.id == first.head.id and result.notes == told.notes and all(call.replayed for call in result.api_calls)
    assert [(event.node, event.left_out) for event in events(again, Compacted)] == [
        (event.node, event.left_out) for event in events(first, Compacted)
    ]


def test_a_replayed_refusal_is_shortened_the_same_way():
    script, _ = refusing(600)
    first = talking(script, turns=2, rules=small(window=100_000))
    first.run(f"q2 {LONG} {LONG}").result()
    again = talking(script, turns=2, rules=small(window=100_000), on=machine(recorded=Recording(first.machine.log.events, "replay")))
    again.run(f"q2 {LONG} {LONG}").result()
    assert again.head.id == first.head.id


@pytest.mark.parametrize("script", [looking()[0], refusing(450, looking()[0])[0]])
def test_a_log_with_shorter_branches_runs_again_node_by_node(script):
    scout = talking(script, tools=[look], limits=Limits(steps=50))
    scout.run("look around").result()
    scout.run("once more").result()
    compared = reexecute(scout.machine.log.events)
    assert compared.equal, compared
    assert compared.calls == 2


def test_the_log_knows_where_the_process_stands():
    scout = talking(turns=6)
    past = processes(scout.machine.log.events)[scout.pid]
    assert past.head == scout.head.id and past.usage == scout.usage


def test_numbers_lead_to_the_shorter_branch_and_to_the_one_that_was_left():
    scout = talking(turns=10, tools=["goto"], rules=small(window=2400))
    kept = scout.messages[2].text
    assert kept.startswith("[msg_20] q8") and scout.at("msg_20").message.text == kept and scout.at("msg_20") in scout.path
    assert scout.messages[1].text.startswith("[msg_19] [The first 16 messages of this dialog (msg_0 to msg_14) are left out here")
    assert scout.at("msg_16").message.text == kept.replace("[msg_20]", "[msg_16]") and scout.at("msg_16") not in scout.path
    before = scout.head
    scout.goto("msg_1")
    assert scout.run("and now").result().text.startswith("re [msg")
    assert scout.undo() is before


def test_a_models_goto_leads_back_on_the_shorter_branch():
    def script(request: Request):
        words = said(request)
        if words.startswith(ASKED):
            return "they talked"
        if "jump" in words and "went back" not in words:
            position = next(node.message.text for node in request.path if " q8" in node.message.text)[1:].split("]")[0]
            return {"call": [call("goto", position=position, message="again")]}
        return f"re {LONG}"

    scout = talking(script, turns=9, tools=["goto"], rules=small(window=2400))
    result = scout.run(f"jump {LONG}").result()
    assert result.text.startswith("re") and result.tool_calls[0].error is None
    assert [message.text[:14] for message in scout.messages[1:4]] == ["[msg_19] [The ", "[msg_20] q8 wo", "[msg_25] <goto"]


def report(at: int) -> str:
    """Something very long."""
    return f"report {at}\n" + "line\n" * 3000


def test_fds_can_still_be_read_on_the_shorter_branch():
    def script(request: Request):
        words = said(request)
        if words.startswith(ASKED):
            return "it is a long report"
        if words.startswith("report please"):
            return {"call": [call("report", at=1)]}
        if words.startswith("read on"):
            return {"call": [call("read_fd", fd="fd:1", start=2)]}
        return "done"

    scout = talking(script, tools=[report, "read_fd"], rules=small(window=3000, keep_last=1))
    scout.run("report please").result()
    scout.run("more " + LONG * 20).result()
    result = scout.run("read on").result()
    assert "[Fds that they name can still be read: fd:1]" in scout.messages[1].text
    assert result.tool_calls[0].error is None and "line" in result.tool_calls[0].result.text


def test_a_fork_of_a_full_dialog_is_shortened_by_itself():
    scout = talking(turns=4)
    full = scout.head
    branches = scout.fork_map([f"a {LONG}", f"b {LONG}"]).wait()
    assert [branch.stop_reason for branch in branches] == ["end_turn", "end_turn"] and scout.head is full
    assert [len(events(branch.process, Compacted)) for branch in branches] == [1, 1]
    assert all(branch.process.messages[1].text.startswith("[The first 6") for branch in branches)


def test_thoughts_are_not_taken_to_a_branch_on_which_they_do_not_hold():
    def script(request: Request):
        if said(request).startswith(ASKED):
            return "they talked"
        return {"think": "let me see", "say": f"re {LONG}"}

    scout = talking(script, turns=5)
    assert all(not isinstance(part, Thinking) for message in scout.messages[:4] for part in message.parts)


def test_what_the_answer_must_look_like_does_not_hold_for_the_summary():
    asked: list[Request] = []

    def script(request: Request):
        asked.append(request)
        return talkative(request)

    schema = {"type": "object", "properties": {}}
    scout = talking(script, turns=4, settings=Settings(output_schema=schema, tool_choice="any", temperature=0.5))
    scout.run(f"q4 {LONG}").result()
    assert [request.config.settings.output_schema for request in asked[-2:]] == [None, schema]
    assert asked[-2].config.settings == Settings(temperature=0.5)


def test_an_interrupted_summary_is_counted_and_leaves_the_dialog_as_it_was():
    made = []

    def script(request: Request):
        if said(request).startswith(ASKED):
            made[0].calls[0].cancel()
            return {"say": "they talked " * 50, "delay_s": 0.01}
        return talkative(request)

    scout = talking(script, turns=4)
    made.append(scout)
    full = scout.head
    result = scout.run(f"q4 {LONG}").result()
    assert (result.stop_reason, result.text, result.usage.requests) == ("interrupted", "", 1)
    assert scout.head.parent is full and not events(scout, Compacted)
    (partial,) = scout.machine.dialog.children(scout.machine.dialog.children(scout.head)[0])
    assert partial.message.interrupted and partial.message.text.startswith("they")
    assert processes(scout.machine.log.events)[scout.pid].usage == scout.usage


def test_the_live_view_does_not_see_the_summary():
    shown = []
    scout = talking(turns=4)
    scout.run(f"q4 {LONG}", on_delta=shown.append).result()
    text = "".join(delta.text for delta in shown if delta.kind == "text")
    assert text.startswith("re q4") and "they talked" not in text
    assert [delta.text for delta in shown if delta.kind == "wait"] == ["the dialog nears the model's window: asking for a summary"]


# the table, and a provider's own compaction


def read(table: str, provider: str = "anthropic"):
    return from_text(f'[model]\nname = "m"\nprovider = "{provider}"\n[compaction]\n{table}', "toml")


def test_the_table_is_read():
    program = read('policy = "summarise"\nat = 0.5\nkeep_last = 4\nwindow = 9000\nprompt = "Sum up."\nkeep = 1')
    assert program.compaction == Compaction(policy="summarise", at=0.5, keep_last=4, window=9000, prompt="Sum up.")
    assert [note.text for note in program.notes] == ["this key is not known and not used. Did you mean 'keep_last'?"]
    assert read("").compaction == Compaction() and from_text('[model]\nname = "m"\nprovider = "anthropic"', "toml").compaction is None


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        (
            'policy = "summarize"',
            "policy: found the text 'summarize'; it is one of off, warn, summarise, provider. Did you mean 'summarise'?",
        ),
        ("at = 1.5", "[compaction] at: found the number 1.5; a number from 0 to 1 is needed"),
        ("at = 0", "[compaction] at: found the number 0; a share of the window is above 0"),
        ("keep_last = 0", "[compaction] keep_last: found the number 0; a whole number from 1 up"),
        ("window = 0.5", "[compaction] window: found the number 0.5; a whole number from 1 up"),
        ('prompt = " "', "[compaction] prompt: the text is empty"),
    ],
)
def test_a_wrong_table_is_told_with_its_place(table, fault):
    with pytest.raises(ProgramError) as error:
        read(table)
    assert fault in str(error.value)


@pytest.mark.parametrize("fields", [{"policy": "summarize"}, {"at": 0}, {"at": 2}, {"keep_last": 0}, {"window": 0}])
def test_wrong_rules_in_python_are_refused(fields):
    with pytest.raises(ProgramError, match=r"^compaction: "):
        Compaction(**fields)


def own(provider: str, rules: Compaction, window: int | None, **fields) -> Settings:
    return own_compaction(Program(name="p", provider=provider, model="m", compaction=rules, **fields), window)


def test_anthropics_own_compaction_is_asked_for_in_body_and_header():
    rules = Compaction(policy="provider", prompt="Keep numbers.")
    made = own("anthropic", rules, 200_000, settings=Settings(headers={"anthropic-beta": "x-1"}, body={"metadata": {}}))
    edit = {"type": "compact_20260112", "trigger": {"type": "input_tokens", "value": 160_000}, "instructions": "Keep numbers."}
    assert made.body == {"metadata": {}, "context_management": {"edits": [edit]}}
    assert made.headers == {"anthropic-beta": "x-1,compact-2026-01-12"}
    assert own("anthropic_vertex", rules, 20_000).body["context_management"]["edits"][0]["trigger"]["value"] == 50_000
    program = Program(name="p", provider="anthropic", model="claude-opus-4-6", settings=made)
    scout = program.start(machine=machine())
    assert scout.provider.preview(scout.request(scout.config))["context_management"] == {"edits": [edit]}


def test_openais_own_compaction_is_asked_for_in_the_body():
    rules = Compaction(policy="provider", at=0.5)
    assert own("openai_responses", rules, 400_000).body == {"context_management": [{"type": "compaction", "compact_threshold": 200_000}]}
    assert own("openai_responses", rules, None).body == {"context_management": [{"type": "compaction"}]}


@pytest.mark.parametrize("provider", ["openai_chat", "scripted", "gemini"])
def test_a_provider_without_its_own_compaction_is_refused(provider):
    with pytest.raises(ProgramError, match=r"has no compaction of its own; policy = \"summarise\" works with every model"):
        own(provider, Compaction(policy="provider"), None)
    with pytest.raises(ProgramError, match=r"\[compaction\] policy: the API of provider"):
        read('policy = "provider"', provider)


def test_a_body_that_manages_the_context_itself_is_refused():
    with pytest.raises(ProgramError, match="both say the same"):
        own("anthropic", Compaction(policy="provider"), None, settings=Settings(body={"context_management": {}}))


def test_the_rules_are_in_the_log_and_come_back_from_it():
    scout = talking()
    declared = scout.program.declaration()
    assert declared["compaction"] == {"policy": "summarise", "at": 0.8, "keep_last": 3, "window": 1000}
    assert program_from(declared)[0].compaction == small()


# what the model saw


def test_each_step_shows_what_the_model_saw_also_after_the_path_was_left():
    asked: list[Request] = []

    def script(request: Request):
        asked.append(request)
        return talkative(request)

    scout = talking(script, turns=5)
    steps = seen(scout)
    assert list(steps["step"]) == [1, 2, 3, 4, 5, 6] and list(steps["messages"]) == [2, 4, 6, 8, 11, 5]
    assert steps["last"][4].startswith(ASKED) and list(steps["call"]) == [1, 2, 3, 4, 5, 5]
    for number, request in enumerate(asked, 1):
        frame = seen(scout.machine, number)
        assert list(frame["node"]) == [node.id for node in request.path]
        assert [msgspec.json.decode(text, type=Message) for text in frame["content"]] == [node.message for node in request.path]
    last = seen(scout.machine.log.events, -1)
    assert list(last["role"]) == ["system", "user", "user", "assistant", "user"] and list(last["number"][1:]) == [9, 10, 11, 12]
    assert last.attrs == {"process": "scout", "call": 5, "model": "script", "tools": [], "settings": {}}


def test_steps_are_those_of_one_process_or_one_call():
    scout = talking(turns=2)
    child = scout.fork("alice")
    child.run("hello").result()
    machine_of_both = scout.machine
    assert len(seen(machine_of_both)) == 3 and len(seen(child)) == 1 and len(seen(scout)) == 2
    assert seen(machine_of_both, 1, process="alice")["text"].iloc[-1] == "hello"
    assert seen(machine_of_both, 1, call=2)["text"].iloc[-1].startswith("q1")


def test_a_log_on_disk_shows_the_same(tmp_path):
    scout = recorded_run(tmp_path / "log.jsonl")
    there, here = seen(tmp_path / "log.jsonl", 3), seen(scout.machine, 3)
    assert list(there["content"]) == list(here["content"]) and there.attrs == here.attrs


@pytest.mark.parametrize("step", [0, 4, -4])
def test_a_step_that_never_was_is_told(step):
    scout = talking(turns=3)
    with pytest.raises(PersonError, match=rf"seen: there is no step {step}; requests 1 to 3 went out"):
        seen(scout, step)
    with pytest.raises(PersonError, match="there is no process 'bob' in the log; there are scout"):
        seen(scout.machine, 1, process="bob")


# the log, and what is built from it


class Measured(LateDrivers):
    """The drivers that ship, but for a script that counts as a model with a window."""

    def __init__(self, window: int) -> None:
        super().__init__(dict)
        self._window = window

    def provider(self, program: Program):
        made = from_program(program)
        made.scripted = False
        return made

    def window(self, model: str, provider: str) -> int | None:
        return self._window


def measured(window: int, **fields) -> Machine:
    return Machine(Measured(window), clock=FixedClock(), **fields)


def test_a_replay_takes_the_window_from_the_recording():
    rules = Compaction(policy="summarise", keep_last=3)
    first = talking(turns=5, rules=rules, on=measured(1000))
    assert len(events(first, Compacted)) == 1
    again = talking(turns=5, rules=rules, on=measured(10**6, recorded=Recording(first.machine.log.events, "replay")))
    assert again.head.id == first.head.id
    compared = reexecute(first.machine.log.events)
    assert compared.equal, compared


def test_a_call_that_a_limit_ended_runs_again_with_its_summary():
    script, _ = looking()
    scout = talking(script, tools=[look], limits=Limits(steps=12))
    assert scout.run("look around").result().stop_reason == "max_steps" and len(events(scout, Compacted)) == 1
    compared = reexecute(scout.machine.log.events)
    assert compared.equal, compared


def test_a_summary_that_was_interrupted_before_a_word_runs_again_as_such():
    made = []

    async def script(request: Request):
        if said(request).startswith(ASKED):
            made[0].calls[0].cancel()
            await asyncio.sleep(0.05)
        return talkative(request)

    scout = talking(script, turns=4)
    made.append(scout)
    assert scout.run(f"q4 {LONG}").result().stop_reason == "interrupted"
    assert not scout.machine.dialog.children(scout.machine.dialog.children(scout.head)[0])
    compared = reexecute(scout.machine.log.events)
    assert compared.equal, compared


def test_a_kernel_that_died_anywhere_in_a_summary_leaves_a_process_that_can_go_on():
    scout = talking(turns=5, rules=small(keep_last=2))
    happened = list(scout.machine.log.events)
    began = max(at for at, event in enumerate(happened) if isinstance(event, Asked) and event.aside)
    moved = next(at for at, event in enumerate(happened) if isinstance(event, Moved))
    for cut in range(began, len(happened) + 1):
        (one,) = rebuild(happened[:cut], machine(), programs={"scout": scout.program})
        assert one.process is not None
        whole = cut > moved
        answered = cut >= len(happened) - 2
        assert (one.unanswered or "")[:2] == ("" if answered else "q4")
        assert len(one.process.path) == (5 if answered else 3 if whole else 9)
    assert (one.process.head.id, one.process.labels.next) == (scout.head.id, scout.labels.next)
    assert [one.process.labels.get(number) and one.process.labels.get(number).id for number in range(scout.labels.next)] == [
        scout.labels.get(number) and scout.labels.get(number).id for number in range(scout.labels.next)
    ]


def test_frames_count_the_summary_for_its_call_and_not_as_its_answer():
    scout = talking(turns=5)
    calls = frames(scout.machine.log.events).calls
    assert list(calls["requests"]) == [1, 1, 1, 1, 2] and calls["text"].iloc[-1].startswith("re q4")
    assert frames(scout.machine.log.events).events["summary"].tolist().count("6 messages told in short (summarise)") == 1


def test_the_providers_own_compaction_is_put_into_the_request_at_the_start():
    rules = Compaction(policy="provider", window=100_000)
    scout = Program(provider="anthropic", model="claude-opus-4-6", compaction=rules).start(machine=machine())
    body = scout.provider.preview(scout.request(scout.config))
    assert body["context_management"]["edits"][0]["trigger"] == {"type": "input_tokens", "value": 80_000}
    with pytest.raises(ProgramError, match="has no compaction of its own"):
        scripted({"say": "x"}, compaction=rules)
