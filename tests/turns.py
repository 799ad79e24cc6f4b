"""Finished calls for the tests of views, made from what was said."""

from collections.abc import Sequence
from typing import Any

from llmproc_nb.core.dialog import Dialog
from llmproc_nb.core.message import AnyPart, Image, Message, Text, Thinking, ToolCall, ToolResult, user
from llmproc_nb.core.result import ApiCall, RunResult, ToolRun
from llmproc_nb.core.usage import Usage


def tool_turn(
    name: str, arguments: dict[str, Any], content: str | Image, outcome: str = "ran", call_id: str = "c1"
) -> tuple[ToolCall, ToolRun]:
    """A tool call and its run."""
    part = content if isinstance(content, Image) else Text(text=content)
    result = ToolResult(call_id=call_id, name=name, content=(part,), is_error=outcome != "ran")
    call = ToolCall(id=call_id, name=name, arguments="{}")
    return call, ToolRun(name=name, arguments=arguments, result=result, outcome=outcome, duration_s=0.5)


def finished(
    text: str = "The answer is 42.",
    *,
    thinking: str = "",
    tools: Sequence[tuple[ToolCall, ToolRun]] = (),
    replayed: bool = False,
    scripted: bool = True,
    **fields: Any,
) -> RunResult:
    """A call that thought, used tools, and answered."""
    dialog = Dialog()
    messages = [user("question")]
    if thinking or tools:
        parts: list[AnyPart] = [Thinking(text=thinking)] if thinking else []
        messages.append(Message(role="assistant", parts=(*parts, *(call for call, _ in tools))))
    if tools:
        messages.append(Message(role="tool", parts=tuple(run.result for _, run in tools)))
    messages.append(Message(role="assistant", parts=(Text(text=text),)))
    node, nodes = None, []
    for message in messages:
        node, _ = dialog.append(message, node)
        nodes.append(node)
    asked = ApiCall(
        model="demo-1", stop="end_turn", raw_stop=None, id="r1", usage=Usage(), duration_s=1.0, attempts=1, node="n", replayed=replayed
    )
    made: dict[str, Any] = {
        "stop_reason": "end_turn",
        "process": "scout",
        "pid": 1,
        "call": 1,
        "program": "demo",
        "provider": "scripted" if scripted else "anthropic",
        "model": "demo-1",
        "usage": Usage(requests=1, input_tokens=12, output_tokens=7, cost_usd=0.5),
        "duration_s": 1.25,
    }
    return RunResult(
        text=text,
        scripted=scripted,
        nodes=tuple(nodes),
        api_calls=(asked,),
        tool_calls=tuple(run for _, run in tools),
        **{**made, **fields},
    )
