"""A server in a process of its own that answers every model request at once, so that its CPU does not count. `with answering() as url:`"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

TEXT = "word " * 60


def _sse(events: list[tuple[str | None, dict | str]]) -> bytes:
    lines = []
    for name, data in events:
        head = f"event: {name}\n" if name else ""
        lines.append(f"{head}data: {data if isinstance(data, str) else json.dumps(data)}\n\n")
    return "".join(lines).encode()


def anthropic_body() -> bytes:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": [], "stop_reason": None}
    pieces = [TEXT[start : start + 30] for start in range(0, len(TEXT), 30)]
    return _sse(
        [
            ("message_start", {"type": "message_start", "message": {**message, "usage": {"input_tokens": 10, "output_tokens": 1}}}),
            ("content_block_start", {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
            *[
                ("content_block_delta", {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}})
                for piece in pieces
            ],
            ("content_block_stop", {"type": "content_block_stop", "index": 0}),
            ("message_delta", {"type": "message_delta", "delta": {"stop_reason": "end_turn"}, "usage": {"output_tokens": 60}}),
            ("message_stop", {"type": "message_stop"}),
        ]
    )


def chat_body() -> bytes:
    pieces = [TEXT[start : start + 30] for start in range(0, len(TEXT), 30)]
    chunk = {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
    return _sse(
        [
            *[
                (None, {**chunk, "choices": [{"index": 0, "delta": {"role": "assistant", "content": piece}, "finish_reason": None}]})
                for piece in pieces
            ],
            (None, {**chunk, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}),
            (None, {**chunk, "choices": [], "usage": {"prompt_tokens": 10, "completion_tokens": 60, "total_tokens": 70}}),
            (None, "[DONE]"),
        ]
    )


def responses_body() -> bytes:
    item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed"}
    whole = {**item, "content": [{"type": "output_text", "text": TEXT, "annotations": []}]}
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
        "usage": {
            "input_tokens": 10,
            "output_tokens": 60,
            "total_tokens": 70,
            "input_tokens_details": {"cached_tokens": 0},
            "output_tokens_details": {"reasoning_tokens": 0},
        },
    }
    pieces = [TEXT[start : start + 30] for start in range(0, len(TEXT), 30)]
    where = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": "", "annotations": []}
    events = [
        {"type": "response.created", "response": {**response, "status": "in_progress", "output": []}},
        {"type": "response.output_item.added", "output_index": 0, "item": {**item, "content": []}},
        {"type": "response.content_part.added", **where, "part": part},
        *[{"type": "response.output_text.delta", **where, "delta": piece, "logprobs": []} for piece in pieces],
        {"type": "response.output_text.done", **where, "text": TEXT, "logprobs": []},
        {"type": "response.content_part.done", **where, "part": {**part, "text": TEXT}},
        {"type": "response.output_item.done", "output_index": 0, "item": whole},
        {"type": "response.completed", "response": response},
    ]
    return _sse([(event["type"], {**event, "sequence_number": number}) for number, event in enumerate(events)])


BODIES = {b"/v1/messages": anthropic_body, b"/v1/chat/completions": chat_body, b"/v1/responses": responses_body}


def serve(listening: socket.socket) -> None:
    """Answer requests on kept-alive connections until killed."""
    import asyncio

    made = {path: body() for path, body in BODIES.items()}

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(next((line.split(b":")[1] for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")), b"0"))
            await reader.readexactly(length)
            body = made[head.split(b" ")[1]]
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            await writer.drain()

    async def quiet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handle(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def main() -> None:
        server = await asyncio.start_server(quiet, sock=listening, limit=1 << 26)
        await server.serve_forever()

    asyncio.run(main())


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
