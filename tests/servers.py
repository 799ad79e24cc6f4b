"""A loopback HTTP server that answers as a test says, over real sockets; and the canned answers of model APIs.

Here: `LoopbackServer`, `Seen`, `Answer`, events as bytes. Not here: recordings of real traffic.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

JSON = dict[str, Any]


@dataclass(frozen=True)
class Seen:
    """A request as it arrived. `body` is the parsed JSON, or the bytes where it is none; header names are lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: Any
    raw: bytes = b""


@dataclass(frozen=True)
class Answer:
    """What to answer. `chunks` go out one by one as a chunked event stream and take the place of `body`.

    `then` says what follows the last byte: "close cleanly" ends the answer as HTTP wants it (the connection lives on), "cut" closes
    in the middle of the stream, "reset" sends a TCP RST, "hang" sends nothing more.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes | str | JSON = b""
    chunks: Iterable[bytes] | None = None
    delay_s: float = 0.0
    then: Literal["close cleanly", "cut", "reset", "hang"] = "close cleanly"


class LoopbackServer:
    """`with LoopbackServer(answer) as server:` serves on `server.url` in its own daemon thread; `server.seen` is what came.

    `answer(request, n)` runs on the server's loop; n counts the requests from 0. `server.dropped` counts connections that the other
    side closed while an answer was still going out.
    """

    def __init__(self, answer: Callable[[Seen, int], Answer]) -> None:
        self._answer = answer
        self.seen: list[Seen] = []
        self.connections = 0
        self.dropped = 0
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="loopback-server", daemon=True)

    def __enter__(self) -> LoopbackServer:
        self._thread.start()
        if not self._ready.wait(5):
            raise RuntimeError("the loopback server did not start")
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(5)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()[:2]
        self.url = f"http://{host}:{port}"
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        try:
            while (seen := await _read(reader)) is not None:
                n = len(self.seen)
                self.seen.append(seen)
                if not await self._reply(self._answer(seen, n), reader, writer):
                    break
        except (ConnectionError, asyncio.IncompleteReadError):
            self.dropped += 1
        except asyncio.CancelledError:
            pass  # the server stops; asyncio.streams would log a cancelled connection as an error
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _reply(self, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        headers = {name.lower(): value for name, value in answer.headers.items()}
        if answer.chunks is None:
            await self._whole(answer, headers, writer)
        else:
            headers.setdefault("content-type", "text/event-stream; charset=utf-8")
            headers["transfer-encoding"] = "chunked"
            writer.write(_head(answer.status, headers))
            await self._trickle(answer, reader, writer)
        await writer.drain()
        if answer.then == "reset":
            writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        elif answer.then == "hang":
            await reader.read()
            self.dropped += 1
        elif answer.then == "close cleanly":
            if answer.chunks is not None:
                writer.write(b"0\r\n\r\n")
                await writer.drain()
            return headers.get("connection") != "close"
        return False

    async def _whole(self, answer: Answer, headers: dict[str, str], writer: asyncio.StreamWriter) -> None:
        body = answer.body
        if isinstance(body, dict):
            body = json.dumps(body)
            headers.setdefault("content-type", "application/json")
        if isinstance(body, str):
            body = body.encode("utf-8", "surrogatepass")
        # a promise that is not kept: whoever reads the answer sees it break
        headers.setdefault("content-length", str(len(body) + (0 if answer.then == "close cleanly" else 1)))
        writer.write(_head(answer.status, headers) + body)

    async def _trickle(self, answer: Answer, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for n, chunk in enumerate(answer.chunks or ()):
            if n and answer.delay_s:
                await asyncio.sleep(answer.delay_s)
            if reader.at_eof():
                raise ConnectionResetError("the other side went away")
            if chunk:
                writer.write(b"%x\r\n%b\r\n" % (len(chunk), chunk))
            if answer.delay_s or n % 64 == 0:
                await writer.drain()


async def _read(reader: asyncio.StreamReader) -> Seen | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.rstrip("\r\n").split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    if headers.get("transfer-encoding", "").lower() == "chunked":
        raw = b""
        while size := int((await reader.readline()).split(b";")[0], 16):
            raw += await reader.readexactly(size)
            await reader.readline()
        await reader.readline()
    else:
        raw = await reader.readexactly(int(headers.get("content-length", "0")))
    try:
        body = json.loads(raw) if raw else None
    except ValueError:
        body = raw
    return Seen(method, path, headers, body, raw)


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Answer", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")


def sse(events: Iterable[JSON]) -> list[bytes]:
    """Events as Anthropic (and OpenAI Responses) send them: a name and the data, one chunk each."""
    return [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in events]


def sse_data(events: Iterable[JSON], *, done: bool = True) -> list[bytes]:
    """Events as OpenAI Chat Completions sends them: data only, and `[DONE]` at the end."""
    chunks = [f"data: {json.dumps(event)}\n\n".encode() for event in events]
    return [*chunks, b"data: [DONE]\n\n"] if done else chunks


def pieces(text: str, count: int = 3) -> list[str]:
    """A text cut into about so many pieces, as deltas."""
    size = max(1, -(-len(text) // count))
    return [text[at : at + size] for at in range(0, len(text), size)]


# Anthropic Messages


def anthropic_message(
    content: Sequence[JSON], *, stop: str = "end_turn", usage: JSON | None = None, model: str = "claude-test"
) -> list[JSON]:
    """The events of a streamed Anthropic message with these finished content blocks."""
    counts = usage or {"input_tokens": 10, "output_tokens": 5}
    message = {"id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": []}
    first = {**counts, "output_tokens": 1}
    events: list[JSON] = [{"type": "message_start", "message": {**message, "stop_reason": None, "stop_sequence": None, "usage": first}}]
    for index, block in enumerate(content):
        events += _anthropic_block(index, block)
    events.append({"type": "message_delta", "delta": {"stop_reason": stop, "stop_sequence": None}, "usage": counts})
    events.append({"type": "message_stop"})
    return events


def _anthropic_block(index: int, block: JSON) -> list[JSON]:
    kind = block.get("type")
    deltas: list[JSON] = []
    start = dict(block)
    if kind == "text":
        start["text"] = ""
        deltas = [{"type": "text_delta", "text": piece} for piece in pieces(block["text"])]
    elif kind == "thinking":
        start |= {"thinking": "", "signature": ""}
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(block["thinking"])]
        deltas.append({"type": "signature_delta", "signature": block.get("signature", "")})
    elif kind in ("tool_use", "server_tool_use", "mcp_tool_use"):
        start["input"] = {}
        text = block["input"] if isinstance(block["input"], str) else json.dumps(block["input"])
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ["", *pieces(text)]]
    return [
        {"type": "content_block_start", "index": index, "content_block": start},
        *({"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas),
        {"type": "content_block_stop", "index": index},
    ]


def anthropic_text(text: str, **more: Any) -> list[JSON]:
    """The events of an answer that is one text."""
    return anthropic_message([{"type": "text", "text": text}], **more)


def anthropic_tools(calls: Sequence[tuple[str, str, JSON | str]], *, text: str = "", **more: Any) -> list[JSON]:
    """The events of an answer that asks for tools: `(id, name, arguments)`; arguments as text go out as they are."""
    blocks: list[JSON] = [{"type": "text", "text": text}] if text else []
    blocks += [{"type": "tool_use", "id": call_id, "name": name, "input": arguments} for call_id, name, arguments in calls]
    return anthropic_message(blocks, **{"stop": "tool_use", **more})


# OpenAI


def openai_chat_text(text: str, *, model: str = "gpt-test", finish: str = "stop", usage: JSON | None = None) -> list[JSON]:
    """The chunks of a Chat Completions answer that is one text, usage in the last one."""
    deltas: list[JSON] = [{"role": "assistant", "content": ""}, *({"content": piece} for piece in pieces(text))]
    return _chat_chunks(deltas, model, finish, usage)


def openai_chat_tools(calls: Sequence[tuple[str, str, JSON | str]], *, model: str = "gpt-test", usage: JSON | None = None) -> list[JSON]:
    """The chunks of a Chat Completions answer that asks for tools: `(id, name, arguments)`."""
    deltas: list[JSON] = [{"role": "assistant", "content": None}]
    for index, (call_id, name, arguments) in enumerate(calls):
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        first = {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
        deltas.append({"tool_calls": [first]})
        deltas += [{"tool_calls": [{"index": index, "function": {"arguments": piece}}]} for piece in pieces(text)]
    return _chat_chunks(deltas, model, "tool_calls", usage)


def _chat_chunks(deltas: Sequence[JSON], model: str, finish: str, usage: JSON | None) -> list[JSON]:
    base = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": model}
    chunks = [{**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None}], "usage": None} for delta in deltas]
    chunks.append({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": finish}], "usage": None})
    counts = usage or {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    chunks.append({**base, "choices": [], "usage": counts})
    return chunks


def openai_responses_text(text: str, **more: Any) -> list[JSON]:
    """The events of a Responses answer that is one text."""
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}]
    return openai_responses([{"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": content}], **more)


def openai_responses_tools(calls: Sequence[tuple[str, str, JSON | str]], **more: Any) -> list[JSON]:
    """The events of a Responses answer that asks for tools: `(call_id, name, arguments)`."""
    items: list[JSON] = []
    for index, (call_id, name, arguments) in enumerate(calls):
        text = arguments if isinstance(arguments, str) else json.dumps(arguments)
        call = {"id": f"fc_{index}", "type": "function_call", "call_id": call_id, "name": name, "arguments": text}
        items.append({**call, "status": "completed"})
    return openai_responses(items, **more)


def openai_responses(items: Sequence[JSON], *, model: str = "gpt-test", usage: JSON | None = None, status: str = "completed") -> list[JSON]:
    """The events of a streamed Responses answer with these finished output items."""
    response = {"id": "resp_1", "object": "response", "created_at": 1, "model": model, "status": "in_progress", "output": []}
    events: list[JSON] = [{"type": "response.created", "response": response}, {"type": "response.in_progress", "response": response}]
    for index, item in enumerate(items):
        events += _responses_item(index, item)
    counts = usage or {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 15,
    }
    events.append({"type": f"response.{status}", "response": {**response, "status": status, "output": list(items), "usage": counts}})
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def _responses_item(index: int, item: JSON) -> list[JSON]:
    place = {"item_id": item["id"], "output_index": index}
    open_item = {**item, "status": "in_progress"}
    inner: list[JSON] = []
    if item["type"] == "function_call":
        open_item["arguments"] = ""
        inner = [{"type": "response.function_call_arguments.delta", **place, "delta": piece} for piece in pieces(item["arguments"])]
        inner.append({"type": "response.function_call_arguments.done", **place, "arguments": item["arguments"]})
    elif item["type"] == "message":
        open_item["content"] = []
        for number, part in enumerate(item["content"]):
            spot = {**place, "content_index": number}
            inner.append({"type": "response.content_part.added", **spot, "part": {**part, "text": ""}})
            inner += [{"type": "response.output_text.delta", **spot, "delta": piece} for piece in pieces(part["text"])]
            inner.append({"type": "response.output_text.done", **spot, "text": part["text"]})
            inner.append({"type": "response.content_part.done", **spot, "part": part})
    added = {"type": "response.output_item.added", "output_index": index, "item": open_item}
    return [added, *inner, {"type": "response.output_item.done", "output_index": index, "item": item}]
