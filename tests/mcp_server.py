"""MCP servers for tests, as programs: `mcp_server.py stdio|sse|http` is a real one made with the SDK, `raw FAULT` speaks the older
protocol by hand, without the SDK, and starts in no time; each has tools that misbehave when they are told to.
"""

import itertools
import json
import os
import sys
import time

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="


def real(transport: str, port_file: str | None) -> None:
    import anyio
    import mcp_types as t
    from mcp.server.mcpserver import Context, MCPServer
    from mcp.server.mcpserver.exceptions import ToolError
    from pydantic import BaseModel

    server = MCPServer("tester", instructions="Add with care.")
    trace = os.environ.get("TRACE")

    def note(text: str) -> None:
        if trace:
            with open(trace, "a") as file:
                file.write(text + "\n")

    class Sum(BaseModel):
        total: int

    @server.tool(annotations=t.ToolAnnotations(read_only_hint=True))
    def add(a: int, b: int) -> int:
        """The sum of two whole numbers."""
        return a + b

    @server.tool()
    def total(numbers: list[int]) -> Sum:
        """The sum, as structured content."""
        return Sum(total=sum(numbers))

    @server.tool()
    def mixed() -> t.CallToolResult:
        """One of each kind of content."""
        blocks = [
            t.TextContent(text="words"),
            t.ImageContent(data=PNG, mime_type="image/jpeg"),
            t.AudioContent(data="AAEC", mime_type="audio/wav"),
            t.EmbeddedResource(resource=t.TextResourceContents(uri="note://1", text="a note", mime_type="text/plain")),
            t.EmbeddedResource(resource=t.BlobResourceContents(uri="doc://1/paper.pdf", blob="JVBERi0xLjQ=", mime_type="application/pdf")),
            t.ResourceLink(uri="note://2", name="second", mime_type="text/plain", size=7, description="more"),
        ]
        return t.CallToolResult(content=blocks, structured_content={"more": [1, 2]})

    @server.tool()
    def fails(why: str) -> str:
        raise ToolError(why)

    @server.tool()
    async def dies(code: int = 3) -> str:
        sys.stderr.write("\x1b[31mabout to die\x1b[0m of KEY=" + os.environ.get("TOKEN", "") + "\n")
        sys.stderr.flush()
        os._exit(code)

    @server.tool()
    async def waits(seconds: float, ctx: Context) -> str:
        note("began")
        try:
            for step in range(int(seconds * 20)):
                await anyio.sleep(0.05)
                await ctx.report_progress(step + 1, seconds * 20, "still here")
        except anyio.get_cancelled_exc_class():
            note("cancelled")
            raise
        note("ended")
        return "waited"

    @server.tool()
    async def sleeps(seconds: float) -> str:
        note("began")
        try:
            await anyio.sleep(seconds)
        except anyio.get_cancelled_exc_class():
            note("cancelled")
            raise
        return "slept"

    @server.tool()
    def folder() -> str:
        return os.getcwd()

    @server.tool()
    def long(chars: int) -> t.CallToolResult:
        return t.CallToolResult(content=[t.TextContent(text="x" * chars)])

    @server.tool()
    async def says(ctx: Context) -> str:
        await ctx.info("a line for \x1b[1mthe log\x1b[0m", logger_name="tester")
        return "said"

    async def ask(ctx: Context, key: str, request):
        """The answer to one question to the client, in the words of whichever protocol is spoken."""
        if ctx.protocol_version >= "2026":
            got = (ctx.input_responses or {}).get(key)
            return got if got is not None else t.InputRequiredResult(input_requests={key: request})
        kinds = {"sampling/createMessage": t.CreateMessageResult, "elicitation/create": t.ElicitResult, "roots/list": t.ListRootsResult}
        return await ctx.session.send_request(request, kinds[request.method])

    @server.tool()
    async def asks_model(ctx: Context):
        message = t.SamplingMessage(role="user", content=t.TextContent(text="Say a word."))
        params = t.CreateMessageRequestParams(messages=[message], max_tokens=9, system_prompt="Be short.", stop_sequences=["."])
        got = await ask(ctx, "word", t.CreateMessageRequest(params=params))
        return got if isinstance(got, t.InputRequiredResult) else f"{got.model} says {got.content.text}"

    @server.tool()
    async def asks_person(ctx: Context):
        schema = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
        got = await ask(ctx, "who", t.ElicitRequest(params=t.ElicitRequestFormParams(message="Who are you?", requested_schema=schema)))
        return got if isinstance(got, t.InputRequiredResult) else f"{got.action} {json.dumps(got.content)}"

    @server.tool()
    async def asks_roots(ctx: Context):
        got = await ask(ctx, "roots", t.ListRootsRequest())
        return got if isinstance(got, t.InputRequiredResult) else " ".join(str(root.uri) for root in got.roots)

    @server.tool()
    async def learns(name: str, ctx: Context) -> str:
        """Add a tool, and tell."""
        server.add_tool(lambda: "new", name=name, description="A new tool.")
        await ctx.session.send_tool_list_changed() if ctx.protocol_version < "2026" else await ctx.notify_tools_changed()
        return "learned"

    @server.resource("note://today", name="today", mime_type="text/plain", description="What is on.")
    def today() -> str:
        return "rain\nthen sun"

    @server.resource("note://picture", name="picture", mime_type="image/png")
    def picture() -> bytes:
        import base64

        return base64.b64decode(PNG)

    reads = itertools.count(1)

    @server.resource("note://day/{day}", name="day")
    def day(day: str) -> str:
        if day == "count":
            return f"{next(reads)} reads"
        return f"nothing on {day}"

    @server.prompt(description="Ask for a review.")
    def review(code: str, style: str = "kind") -> str:
        return f"Review, {style}: {code}"

    @server.prompt(description="Ask for a plan.")
    def plan(days: str = "3") -> str:
        return f"Plan {days} days."

    if transport == "stdio":
        server.run("stdio")
        return
    import socket

    import uvicorn

    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", int(os.environ.get("PORT", "0"))))
    app = server.sse_app() if transport == "sse" else server.streamable_http_app(json_response=bool(os.environ.get("JSON")))
    wanted = os.environ.get("HEADER")

    async def guarded(scope, receive, send):
        headers = {name.decode(): value.decode() for name, value in scope.get("headers", ())}
        if scope["type"] == "http" and wanted and headers.get("authorization") != wanted:
            await send({"type": "http.response.start", "status": 401, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"no"})
            return
        await app(scope, receive, send)

    listener.listen()
    with open(port_file + "~", "w") as file:
        file.write(str(listener.getsockname()[1]))
    os.rename(port_file + "~", port_file)
    uvicorn.Server(uvicorn.Config(guarded, log_level="error", timeout_graceful_shutdown=1)).run(sockets=[listener])


def raw(fault: str) -> None:
    """The older protocol, line by line. Faults at the start by name; `tools/call` does what its tool is called."""
    out = sys.stdout

    def send(value) -> None:
        out.write((value if isinstance(value, str) else json.dumps(value)) + "\n")
        out.flush()

    if fault == "crash":
        sys.stderr.write("Traceback (most recent call last):\n  ...\nImportError: no module named tester\n")
        sys.exit(7)
    if fault == "silent":
        sys.stderr.write("thinking\n")
        sys.stderr.flush()
        time.sleep(60)
    if fault == "noise":
        send("Welcome to the server!")
        send('{"level": "info", "listening": true}')
    if fault == "flood":
        while True:
            out.write("y\n" * 100_000)
    if fault == "chatty":
        sys.stderr.write("lorem ipsum " * 2_000_000)
    for line in sys.stdin:
        asked = json.loads(line)
        if "id" not in asked:
            continue
        answer = {"jsonrpc": "2.0", "id": asked["id"]}
        method, params = asked["method"], asked.get("params") or {}
        if method == "initialize":
            about = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "raw", "version": "1"}}
            send({**answer, "result": about})
        elif method == "tools/list" and fault == "endless":
            send({**answer, "result": {"tools": [], "nextCursor": "again"}})
        elif method == "tools/list":
            words = "ok twice bytes surrogate huge tail_id broken wrong dies quits hangs nan environment"
            names = [*words.split(), "a b/c", "x" * 90]
            tools = [{"name": name, "inputSchema": {"type": "object", "properties": {"_process": {"type": "string"}}}} for name in names]
            send({**answer, "result": {"tools": tools}})
        elif method == "tools/call":
            call(params["name"], params.get("arguments") or {}, answer, send)
        else:
            send({**answer, "error": {"code": -32601, "message": f"no method {method}"}})


def call(name: str, arguments, answer, send) -> None:
    good = {"content": [{"type": "text", "text": json.dumps({"name": name, "pid": os.getpid(), **arguments})}]}
    if name == "twice":
        send({**answer, "result": good})
        send({**answer, "result": {"content": []}})
    elif name == "bytes":
        sys.stdout.buffer.write(
            json.dumps({**answer, "result": {"content": [{"type": "text", "text": "@"}]}}).encode().replace(b"@", b"\xff\xfe") + b"\n"
        )
        sys.stdout.buffer.flush()
    elif name == "surrogate":
        send(json.dumps({**answer, "result": {"content": [{"type": "text", "text": "@"}]}}).replace("@", "\\ud83d!"))
    elif name == "nan":
        send(json.dumps({**answer, "result": {"content": [], "structuredContent": {"x": float("nan")}}}))
    elif name == "huge":
        send({**answer, "result": {"content": [{"type": "text", "text": "x" * arguments["chars"]}]}})
    elif name == "environment":
        send({**answer, "result": {"content": [{"type": "text", "text": json.dumps(dict(os.environ))}]}})
    elif name == "tail_id":
        send(
            '{"jsonrpc":"2.0","result":{"content":[{"type":"text","text":"'
            + "x" * arguments["chars"]
            + '"}]},"id":'
            + str(answer["id"])
            + "}"
        )
    elif name == "broken":
        send(json.dumps({**answer, "result": good})[:-3])
    elif name == "wrong":
        send({**answer, "result": {"content": "words"}})
    elif name == "dies":
        sys.stderr.write("no more memory\n")
        sys.stderr.flush()
        os.kill(os.getpid(), 9)
    elif name == "quits":  # answers, and is gone when the next call comes
        send({**answer, "result": good})
        os._exit(0)
    elif name != "hangs":
        send({**answer, "result": good})


if __name__ == "__main__":
    if sys.argv[1] == "raw":
        raw(sys.argv[2] if len(sys.argv) > 2 else "")
    else:
        real(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
