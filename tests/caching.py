"""A local server that accounts for its prompt cache the way the real APIs do, is slow to begin, and refuses what they refuse.

`with CachingServer() as server:` runs it in a thread, with its caches, its clock and what it saw at hand; `with serving_apart() as url:`
runs it in a process of its own, for benches. Here: HTTP, limits, what was seen. Not here: what a cache does (promptcache), what is
refused (strict), what is answered (echo).

`GET /stats` gives what came, one record a request; `POST /reset` forgets the records, `POST /forget` empties the caches,
`POST /advance {"seconds": 300}` moves their clock, `POST /delay {"seconds": 0}` changes how long the server takes to begin.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec

if __name__ == "__main__":
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).parent))

from echo import answered, refusal
from promptcache import AnthropicCache, OpenAICache
from strict import Refused, check_anthropic, check_chat, check_responses

JSON = dict[str, Any]
DELAY_S = 0.2
CHECKS: dict[str, Callable[[JSON], None]] = {
    "/v1/messages": check_anthropic,
    "/v1/responses": check_responses,
    "/v1/chat/completions": check_chat,
}


@dataclass(kw_only=True)
class Options:
    """How the server behaves. `requests_a_minute` is a bucket that fills steadily; more than it holds get a 429."""

    delay_s: float = DELAY_S
    least_tokens: int = 1024
    life_s: float = 300.0
    strict: bool = True
    keep_bodies: bool = True
    requests_a_minute: float | None = None
    most_at_once: int | None = None
    text: str = ""


@dataclass(kw_only=True)
class Seen:
    """One request: what it read, wrote and paid for in full, in tokens; `arrived_s` and `began_s` count from the first one."""

    number: int
    path: str
    arrived_s: float
    began_s: float | None = None
    read: int = 0
    written: int = 0
    written_1h: int = 0
    uncached: int = 0
    output: int = 0
    status: int = 200
    refused: str = ""
    raw: bytes = field(default=b"", repr=False)

    @property
    def body(self) -> Any:
        return json.loads(self.raw)

    def paid(self, *, write: float = 1.25, read: float = 0.1) -> float:
        """What the input costs, in tokens at the plain price."""
        return write * (self.written - self.written_1h) + 2 * self.written_1h + read * self.read + self.uncached


class Server:
    """The server itself, on a running loop. `answer` may give the blocks of an Anthropic answer to a body, or raise Refused."""

    def __init__(self, options: Options, answer: Callable[[JSON], list[JSON] | None] | None = None) -> None:
        self.options, self.answer = options, answer
        self.seen: list[Seen] = []
        self.active = self.peak = 0
        self._advanced_s = 0.0
        self._zero = time.monotonic()
        self._bucket = options.requests_a_minute or 0.0
        self._filled_s = self.now()
        self.anthropic = AnthropicCache(self.now, least_tokens=options.least_tokens, life_s=options.life_s)
        self.openai = OpenAICache(self.now, least_tokens=options.least_tokens, life_s=options.life_s)

    def now(self) -> float:
        return time.monotonic() - self._zero + self._advanced_s

    def advance(self, seconds: float) -> None:
        """Let so much time pass for the caches."""
        self._advanced_s += seconds

    def forget(self) -> None:
        """Empty the caches."""
        self.anthropic.entries.clear()
        self.openai.entries.clear()

    def reset(self) -> None:
        """Forget what was seen."""
        self.seen.clear()
        self.peak = 0

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the requests of one connection."""
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
                raw = await _body(head, reader)
                await self._reply(method, path.partition("?")[0], raw, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except asyncio.CancelledError:
            pass  # the server stops
        finally:
            writer.close()

    async def _reply(self, method: str, path: str, raw: bytes, writer: asyncio.StreamWriter) -> None:
        if path in ("/stats", "/forget", "/advance", "/reset", "/delay"):
            _send(writer, 200, "application/json", self._told(path, raw))
        elif method == "POST" and path.startswith("/v1/"):
            await self._asked(path, raw, writer)
        else:
            _send(writer, 404, "application/json", b"{}")
        await writer.drain()

    def _told(self, path: str, raw: bytes) -> bytes:
        if path == "/advance":
            self.advance(json.loads(raw)["seconds"])
        elif path == "/delay":
            self.options.delay_s = json.loads(raw)["seconds"]
        elif path == "/forget":
            self.forget()
        elif path == "/reset":
            self.reset()
        return json.dumps([{**asdict(seen), "raw": len(seen.raw)} for seen in self.seen]).encode()

    async def _asked(self, path: str, raw: bytes, writer: asyncio.StreamWriter) -> None:
        seen = Seen(number=len(self.seen), path=path, arrived_s=self.now(), raw=raw if self.options.keep_bodies else b"")
        self.seen.append(seen)
        limits, wait_s = self._limited()
        if wait_s:
            self._refuse(seen, writer, 429, "too many requests", {"retry-after": f"{wait_s:.2f}", **limits})
            return
        self.active += 1
        self.peak = max(self.peak, self.active)
        try:
            body = msgspec.json.decode(raw)
            if self.options.strict:
                CHECKS[path](body)
            await self._answer(seen, raw, body, writer, limits)
        except (Refused, KeyError, TypeError, ValueError, msgspec.MsgspecError) as error:
            self._refuse(seen, writer, 400, f"{type(error).__name__}: {error}", limits)
        finally:
            self.active -= 1

    async def _answer(self, seen: Seen, raw: bytes, body: JSON, writer: asyncio.StreamWriter, limits: dict[str, str]) -> None:
        content = self.answer(body) if self.answer else None
        cache = self.anthropic if seen.path == "/v1/messages" else self.openai
        account = cache.account(raw)
        seen.read, seen.written, seen.written_1h, seen.uncached = account.read, account.written, account.written_1h, account.uncached
        await asyncio.sleep(self.options.delay_s)
        cache.entries.write(account.writes)
        seen.began_s = self.now()
        made, seen.output = answered(seen.path, body, account, number=seen.number, text=self.options.text, content=content)
        kind = "text/event-stream" if body.get("stream") else "application/json"
        _send(writer, 200, kind, made, {"request-id": f"req_{seen.number}", **limits})

    def _refuse(self, seen: Seen, writer: asyncio.StreamWriter, status: int, words: str, headers: dict[str, str]) -> None:
        seen.status, seen.refused = status, words
        _send(writer, status, "application/json", refusal(seen.path, status, words), headers)

    def _limited(self) -> tuple[dict[str, str], float]:
        """Headers about limits, and how long to wait where one is reached."""
        most, rate = self.options.most_at_once, self.options.requests_a_minute
        if most is not None and self.active >= most:
            return {}, max(0.05, self.options.delay_s)
        if rate is None:
            return {}, 0.0
        now = self.now()
        self._bucket, self._filled_s = min(rate, self._bucket + (now - self._filled_s) * rate / 60), now
        if self._bucket < 1:
            return {"anthropic-ratelimit-requests-remaining": "0"}, (1 - self._bucket) * 60 / rate
        self._bucket -= 1
        return {
            "anthropic-ratelimit-requests-limit": f"{rate:.0f}",
            "anthropic-ratelimit-requests-remaining": f"{self._bucket:.0f}",
            "x-ratelimit-limit-requests": f"{rate:.0f}",
            "x-ratelimit-remaining-requests": f"{self._bucket:.0f}",
        }, 0.0


async def _body(head: bytes, reader: asyncio.StreamReader) -> bytes:
    lines = head.lower().split(b"\r\n")
    if any(line.startswith(b"transfer-encoding:") and b"chunked" in line for line in lines):
        raw = b""
        while count := int((await reader.readline()).split(b";")[0], 16):
            raw += await reader.readexactly(count)
            await reader.readline()
        await reader.readline()
        return raw
    return await reader.readexactly(int(next((line.split(b":")[1] for line in lines if line.startswith(b"content-length:")), b"0")))


def _send(writer: asyncio.StreamWriter, status: int, kind: str, body: bytes, headers: dict[str, str] | None = None) -> None:
    lines = [f"HTTP/1.1 {status} Answer", f"content-type: {kind}", f"content-length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)


async def serve(server: Server, listening: socket.socket, stop: asyncio.Event | None = None) -> None:
    """Serve until stopped."""
    tasks: set[asyncio.Task[None]] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        await server.connected(reader, writer)
        tasks.discard(task)

    serving = await asyncio.start_server(connected, sock=listening, limit=1 << 26, backlog=512)
    await (stop or asyncio.Event()).wait()
    serving.close()
    for task in tuple(tasks):
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class CachingServer(Server):
    """The server in a daemon thread of this process. Its caches, clock and records may be used from outside while nothing is asked."""

    def __init__(self, answer: Callable[[JSON], list[JSON] | None] | None = None, **options: Any) -> None:
        super().__init__(Options(**options), answer)
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=512)
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="caching-server", daemon=True)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(serve(self, self._listening, self._stop))
        self._loop.close()

    def __enter__(self) -> CachingServer:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(5)


@contextmanager
def serving_apart(**options: Any) -> Iterator[str]:
    """The root URL of a server in a process of its own."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=512)
    listening.set_inheritable(True)
    asked = json.dumps({"keep_bodies": False, **options})
    child = subprocess.Popen([sys.executable, __file__, str(listening.fileno()), asked], pass_fds=[listening.fileno()])
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        child.kill()
        child.wait()
        listening.close()


if __name__ == "__main__":
    asyncio.run(serve(Server(Options(**json.loads(sys.argv[2]))), socket.socket(fileno=int(sys.argv[1]))))
