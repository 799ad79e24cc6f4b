"""A server in a process of its own that answers every model request at once, so that its CPU does not count. `with answering() as url:`

It speaks Anthropic Messages, OpenAI Chat Completions and OpenAI Responses, streamed. Its answer is about 1,100 characters in pieces of 20.
A body in which `QUESTION` stands after the last `RESULT` is answered with one call of the tool `look` instead.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

JSON = dict[str, Any]

WORDS = "The third column has eleven missing values and two outliers, which come from the merge of both tables in March. "
TEXT = WORDS * 10
PIECES = [TEXT[start : start + 20] for start in range(0, len(TEXT), 20)]
ARGUMENTS = '{"column": "age", "rows": 20}'
QUESTION = "QUESTION: what is in the column age? "
RESULT = "RESULT: "
TOOL = {
    "name": "look",
    "description": "Look at a column.",
    "schema": {
        "type": "object",
        "properties": {"column": {"type": "string"}, "rows": {"type": "integer"}},
        "required": ["column", "rows"],
        "additionalProperties": False,
    },
}


def prompt(number: int) -> str:
    """What a person says in turn `number`: 200 to 2,000 characters, 1,000 on average, no two the same."""
    return f"{number}. " + WORDS * (2, 6, 8, 18, 11)[number % 5]


def _sse(events: list[tuple[str | None, JSON | str]]) -> bytes:
    lines = []
    for name, data in events:
        head = f"event: {name}\n" if name else ""
        lines.append(f"{head}data: {data if isinstance(data, str) else json.dumps(data)}\n\n")
    return "".join(lines).encode()


def _named(events: list[JSON]) -> bytes:
    return _sse([(event["type"], event) for event in events])


def anthropic_body(*, tool: bool) -> bytes:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None}
    usage = {"input_tokens": 1000, "output_tokens": 1, "cache_read_input_tokens": 900, "cache_creation_input_tokens": 50}
    if tool:
        block: JSON = {"type": "tool_use", "id": "toolu_1", "name": "look", "input": {}}
        deltas = [{"type": "input_json_delta", "partial_json": ARGUMENTS[at : at + 10]} for at in range(0, len(ARGUMENTS), 10)]
    else:
        block = {"type": "text", "text": ""}
        deltas = [{"type": "text_delta", "text": piece} for piece in PIECES]
    ended = {"stop_reason": "tool_use" if tool else "end_turn", "stop_sequence": None}
    return _named(
        [
            {"type": "message_start", "message": {**message, "usage": usage}},
            {"type": "content_block_start", "index": 0, "content_block": block},
            *[{"type": "content_block_delta", "index": 0, "delta": delta} for delta in deltas],
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": ended, "usage": {"output_tokens": 250}},
            {"type": "message_stop"},
        ]
    )


def chat_body(*, tool: bool) -> bytes:
    chunk = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    if tool:
        function = {"name": "look", "arguments": ""}
        deltas: list[JSON] = [{"role": "assistant", "tool_calls": [{"index": 0, "id": "call_1", "type": "function", "function": function}]}]
        for at in range(0, len(ARGUMENTS), 10):
            deltas.append({"tool_calls": [{"index": 0, "function": {"arguments": ARGUMENTS[at : at + 10]}}]})
    else:
        deltas = [{"role": "assistant", "content": ""}, *[{"content": piece} for piece in PIECES]]
    made = [{**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    made.append({**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls" if tool else "stop"}]})
    made.append({**chunk, "choices": [], "usage": {"prompt_tokens": 1000, "completion_tokens": 250, "total_tokens": 1250}})
    return _sse([*[(None, event) for event in made], (None, "[DONE]")])


def responses_body(*, tool: bool) -> bytes:
    if tool:
        item: JSON = {"id": "fc_1", "type": "function_call", "call_id": "call_1", "name": "look", "status": "completed"}
        whole, opened = {**item, "arguments": ARGUMENTS}, {**item, "arguments": ""}
        where = {"item_id": "fc_1", "output_index": 0}
        inner: list[JSON] = [
            *[
                {"type": "response.function_call_arguments.delta", **where, "delta": ARGUMENTS[at : at + 10]}
                for at in range(0, len(ARGUMENTS), 10)
            ],
            {"type": "response.function_call_arguments.done", **where, "arguments": ARGUMENTS, "name": "look"},
        ]
    else:
        item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed"}
        part = {"type": "output_text", "text": TEXT, "annotations": []}
        whole, opened = {**item, "content": [part]}, {**item, "content": []}
        where = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        inner = [
            {"type": "response.content_part.added", **where, "part": {**part, "text": ""}},
            *[{"type": "response.output_text.delta", **where, "delta": piece, "logprobs": []} for piece in PIECES],
            {"type": "response.output_text.done", **where, "text": TEXT, "logprobs": []},
            {"type": "response.content_part.done", **where, "part": part},
        ]
    usage = {"input_tokens": 1000, "output_tokens": 250, "total_tokens": 1250}
    details = {"input_tokens_details": {"cached_tokens": 900}, "output_tokens_details": {"reasoning_tokens": 0}}
    response = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "m",
        "status": "completed",
        "output": [whole],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": {**usage, **details},
    }
    events = [
        {"type": "response.created", "response": {**response, "status": "in_progress", "output": []}},
        {"type": "response.output_item.added", "output_index": 0, "item": {**opened, "status": "in_progress"}},
        *inner,
        {"type": "response.output_item.done", "output_index": 0, "item": whole},
        {"type": "response.completed", "response": response},
    ]
    return _named([{**event, "sequence_number": number} for number, event in enumerate(events)])


BODIES = {b"/v1/messages": anthropic_body, b"/v1/chat/completions": chat_body, b"/v1/responses": responses_body}


def serve(listening: socket.socket) -> None:
    """Answer requests on kept-alive connections until killed: a thread and a buffer for each, so that reading a long body takes no time."""
    made = {(path, tool): body(tool=tool) for path, body in BODIES.items() for tool in (False, True)}
    while True:
        connection, _ = listening.accept()
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_answer, args=(connection, made), daemon=True).start()


def _answer(connection: socket.socket, made: dict[tuple[bytes, bool], bytes]) -> None:
    buffer = bytearray(1 << 26)
    try:
        while True:
            got, ends = 0, -1
            while ends < 0:
                got += _more(connection, buffer, got)
                ends = buffer.find(b"\r\n\r\n", 0, got)
            head, head_end = bytes(buffer[:ends]), ends + 4
            length = int(next((line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), b"0"))
            while got < head_end + length:
                got += _more(connection, buffer, got)
            tool = buffer.rfind(QUESTION.encode(), head_end, got) > buffer.rfind(RESULT.encode(), head_end, got)
            body = made[head.split(b" ")[1].partition(b"?")[0], tool]
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    except OSError:
        connection.close()


def _more(connection: socket.socket, buffer: bytearray, got: int) -> int:
    """Read what there is behind what was read."""
    with memoryview(buffer) as view:
        count = connection.recv_into(view[got:])
    if not count:
        raise ConnectionResetError
    return count


@contextmanager
def answering() -> Iterator[str]:
    """The server's root URL."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.set_inheritable(True)
    child = subprocess.Popen([sys.executable, __file__, str(listening.fileno())], pass_fds=[listening.fileno()])
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        child.kill()
        child.wait()
        listening.close()


if __name__ == "__main__":
    serve(socket.socket(fileno=int(sys.argv[1])))
