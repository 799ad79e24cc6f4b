"""What a server may ask of us during a call: a model's reply, something of the person, our folders. Here: the SDK's questions as ours."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from llmproc_nb.core.errors import LlmprocError
from llmproc_nb.drivers.mcp.calls import Calls
from llmproc_nb.drivers.mcp.parts import sampling_messages
from llmproc_nb.drivers.mcp.values import Ears, ElicitAnswer, ElicitAsk, SamplingAsk

if TYPE_CHECKING:
    import mcp_types as mcp

T = TypeVar("T")
REFUSED, FAILED = -1, -32603


def sampling(server: str, ears: Ears, calls: Calls) -> Any:
    """What answers sampling/createMessage; None where nobody does, so that the server is told before it asks."""
    sampler = ears.sampler
    if sampler is None:
        return None

    async def answer(_: Any, asked: mcp.CreateMessageRequestParams) -> Any:
        import mcp_types as mcp

        preferences = asked.model_preferences
        ask = SamplingAsk(
            server=server,
            messages=sampling_messages(asked.messages),
            system=asked.system_prompt or "",
            max_tokens=asked.max_tokens,
            temperature=asked.temperature,
            stop_sequences=tuple(asked.stop_sequences or ()),
            model_hints=tuple(hint.name for hint in (preferences.hints if preferences else None) or () if hint.name),
            caller=calls.caller,
        )
        got = await _asked(calls, sampler, ask)
        if isinstance(got, mcp.ErrorData):
            return got
        content = mcp.TextContent(text=got.text)
        return mcp.CreateMessageResult(role="assistant", content=content, model=got.model, stop_reason=got.stop_reason)

    return answer


def elicitation(server: str, ears: Ears, calls: Calls) -> Any:
    """What answers elicitation/create; where nobody does it is declined, which servers can live with."""

    async def answer(_: Any, asked: Any) -> Any:
        import mcp_types as mcp

        schema = getattr(asked, "requested_schema", None)
        ask = ElicitAsk(server=server, message=asked.message, schema=schema, url=getattr(asked, "url", None), caller=calls.caller)
        got: Any = ElicitAnswer() if ears.elicitor is None else await _asked(calls, ears.elicitor, ask)
        if isinstance(got, mcp.ErrorData):
            return got
        form = got.action == "accept" and schema is not None
        return mcp.ElicitResult(action=got.action, content=(got.content or {}) if form else None)

    return answer


def roots(folders: tuple[Path, ...]) -> Any:
    """What answers roots/list."""

    async def answer(_: Any) -> Any:
        import mcp_types as mcp
        from pydantic import FileUrl

        return mcp.ListRootsResult(roots=[mcp.Root(uri=FileUrl(folder.as_uri()), name=folder.name or "/") for folder in folders])

    return answer


async def _waited(answer: Awaitable[T]) -> T:
    return await answer


async def _asked(calls: Calls, ask: Callable[[Any], Awaitable[T]], question: Any) -> Any:
    """The answer, or the SDK's form of an error where it was refused."""
    import mcp_types as mcp

    calls.pause()
    try:
        return await asyncio.get_running_loop().create_task(_waited(ask(question)), context=calls.where)
    except LlmprocError as error:
        return mcp.ErrorData(code=REFUSED, message=error.for_model())
    except Exception as error:  # foreign code: its fault is an answer to the server, and not the end of the connection
        return mcp.ErrorData(code=FAILED, message=f"{type(error).__name__}: {error}")
    finally:
        calls.go_on()
