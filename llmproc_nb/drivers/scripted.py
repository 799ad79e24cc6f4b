"""A provider without a model: it says what a script says, so that everything can be learned, shown and tested offline.

A script is a list of turns (TOML, dicts, or text alone) or a function of the request. It depends on nothing but the path, so a fork, a
re-run or a replay gets the same words again. Whoever sees its answers sees that no model answered.

A turn has these keys, all optional:
    say          the text; `{{last}}` stands for the words of the last message, `{{result}}` for those of the last tool results
    think        what a model would have thought
    call         a list of tool calls: `{name = "…", arguments = {…}}` (arguments: a table, or a string that is sent as it is)
    when         a regular expression; the turn is for requests whose last message matches it
    delay_s      seconds between two pieces
    stop         end_turn, max_tokens, refusal, … (default: tool_use with calls, else end_turn)
    error        the name of a ProviderError (Overloaded, RateLimited …) to raise after what was said;
    fail         how often it is raised before the turn is answered (default: always)
The first turn whose `when` matches is taken; turns without `when` are for the replies on the path that no `when` took, in order.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec

from llmproc_nb.core import errors
from llmproc_nb.core.dialog import Node
from llmproc_nb.core.errors import ProgramError, ProviderError
from llmproc_nb.core.message import Message, Text, Thinking, parts_of
from llmproc_nb.core.program import Program
from llmproc_nb.core.provider import Config, Draft, Reply, Request
from llmproc_nb.core.tool import parts_text
from llmproc_nb.core.usage import Usage

CHARS_PER_TOKEN = 4
Script = Sequence[str | dict[str, Any]] | Callable[[Request], Any]


class Turn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One scripted reply, as the module's first paragraph says."""

    say: str = ""
    think: str = ""
    call: list[dict[str, Any]] = []
    when: str | None = None
    delay_s: float = 0.0
    stop: str | None = None
    error: str | None = None
    fail: int | None = None


class ScriptedProvider:
    """Answers from a script. Needs no key, no network and no clock but for `delay_s`."""

    name = "scripted"
    api = "scripted"
    scripted = True

    def __init__(self, script: Script) -> None:
        self._function = script if callable(script) else None
        self._turns = () if callable(script) else tuple(_made_turn(entry, number) for number, entry in enumerate(script, 1))
        self._failed: dict[tuple[str, str, int], int] = {}

    async def ask(self, request: Request, draft: Draft) -> Reply:
        turn = await self._choose(request)
        draft.model = request.config.model
        draft.usage = Usage(input_tokens=_tokens(request.path))
        if turn.think:
            await _stream(draft, 0, "thinking", turn.think, turn.delay_s)
        if turn.say:
            await _stream(draft, 1, "text", _filled(turn.say, request.head), turn.delay_s)
        for number, call in enumerate(turn.call):
            _write_call(draft, request, number, call)
        self._raise_if_told(turn, request)
        written = sum(len(part.text) for part in draft.message().parts if isinstance(part, Text | Thinking))
        draft.usage = msgspec.structs.replace(draft.usage, output_tokens=written // CHARS_PER_TOKEN + 1)
        draft.stop = turn.stop or ("tool_use" if turn.call else "end_turn")  # type: ignore[assignment]
        return draft.reply()

    def left_out(self, config: Config) -> tuple[str, ...]:
        return ()

    def preview(self, request: Request) -> dict[str, Any]:
        messages = [{"role": node.message.role, "text": parts_text(parts_of(node.message))} for node in request.path]
        return {
            "scripted": True,
            "model": request.config.model,
            "messages": messages,
            "tools": [tool.name for tool in request.config.tools],
        }

    async def close(self) -> None:
        self._failed.clear()

    async def _choose(self, request: Request) -> Turn:
        if self._function is not None:
            return await _asked(self._function, request)
        words = parts_text(parts_of(request.head.message))
        for turn in self._turns:
            if turn.when is not None and re.search(turn.when, words):
                return turn
        plain = [turn for turn in self._turns if turn.when is None]
        used = sum(1 for words in _asked_before(request.path) if not self._takes(words))
        if used < len(plain):
            return plain[used]
        raise errors.RequestRefused(
            f"the script has no turn for this request (reply {used + 1} without a matching `when`; last words: {words[-80:]!r})",
            place="scripted",
            right=f"it has {len(plain)} turns in order and {len(self._turns) - len(plain)} with `when`",
            step="Add a turn to [script], or choose a real model with `--model`.",
        )

    def _takes(self, words: str) -> bool:
        return any(turn.when is not None and re.search(turn.when, words) for turn in self._turns)

    def _raise_if_told(self, turn: Turn, request: Request) -> None:
        if turn.error is None:
            return
        key = (request.digest, request.lineage, request.sibling)
        times = self._failed.get(key, 0)
        if turn.fail is None or times < turn.fail:
            self._failed[key] = times + 1
            raise _error_kind(turn.error)("the script says so", place="scripted")


def _asked_before(path: tuple[Node, ...]) -> Iterator[str]:
    """The words before each reply on the path."""
    for node in path:
        if node.message.role == "assistant" and node.parent is not None:
            yield parts_text(parts_of(node.parent.message))


def _turn(entry: dict[str, Any] | Turn, number: int) -> Turn:
    if isinstance(entry, Turn):
        return entry
    entry = {"say" if key == "reply" else key: value for key, value in entry.items()}
    try:
        turn = msgspec.convert(entry, Turn)
        re.compile(turn.when or "")
    except (msgspec.ValidationError, re.error) as error:
        raise ProgramError(str(error), place=f"[script] turn {number}", right=f"a turn has {', '.join(Turn.__struct_fields__)}") from None
    if turn.error is not None:
        _error_kind(turn.error)
    return turn


async def _asked(function: Callable[[Request], Any], request: Request) -> Turn:
    """What a script function says. Its own faults are told as such."""
    place = getattr(function, "__name__", "[script]")
    try:
        made = function(request)
        made = await made if inspect.isawaitable(made) else made
    except ProviderError:
        raise  # a script may play a fault
    except Exception as error:  # foreign code, called in place of a model
        raise ProgramError(f"the script raised {type(error).__name__}: {error}", place=place) from error
    return _made_turn(made, 1, place)


def _made_turn(made: Any, number: int, place: str = "[script]") -> Turn:
    """What a script may have, or a function of it give: text, a turn, a dict, or a Message."""
    if not isinstance(made, str | dict | Turn | Message):
        raise ProgramError(f"the script gave {errors.kind_of(made)}", place=place, right="text, a turn as a dict, or a Message is needed")
    if isinstance(made, Message):
        calls = [{"name": call.name, "arguments": call.arguments, "id": call.id} for call in made.tool_calls]
        return Turn(say=made.text, think="".join(part.text for part in made.parts if isinstance(part, Thinking)), call=calls)
    if isinstance(made, str):
        return Turn(say=made)
    return _turn(made, number)


def _error_kind(name: str) -> type[ProviderError]:
    kind = getattr(errors, name, None)
    if isinstance(kind, type) and issubclass(kind, ProviderError):
        return kind
    raise ProgramError(
        f"unknown error {name!r}", place="[script]", right="a ProviderError is needed: Overloaded, RateLimited, ServerFailed …"
    )


async def _stream(draft: Draft, key: int, kind: Any, text: str, delay_s: float) -> None:
    draft.open(key, kind)
    for piece in re.findall(r"\s*\S+|\s+$", text) or [text]:
        draft.write(key, piece)
        if delay_s:
            await asyncio.sleep(delay_s)


def _write_call(draft: Draft, request: Request, number: int, call: dict[str, Any]) -> None:
    arguments = call.get("arguments", {})
    name = str(call.get("name", ""))
    draft.open(2 + number, "tool", id=call.get("id") or f"call_{len(request.path)}_{number + 1}", name=name)
    draft.write(2 + number, arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False))


def _filled(text: str, head: Node) -> str:
    text = text.strip("\n")  # TOML's long strings end with one
    if "{{" not in text:
        return text
    parts = tuple(parts_of(head.message))
    words = parts_text([part for part in parts if isinstance(part, Text)] or parts)
    return text.replace("{{last}}", words).replace("{{result}}", words.rstrip("\n"))


def _tokens(path: tuple[Node, ...]) -> int:
    return sum(len(parts_text(parts_of(node.message))) for node in path) // CHARS_PER_TOKEN + 1


def from_program(program: Program) -> ScriptedProvider:
    """The scripted provider of a program."""
    if not program.script:
        place = program.source or program.name
        raise ProgramError(
            "there is no script", place=place, right='`provider = "scripted"` needs [[script.turns]], or a function in Python'
        )
    return ScriptedProvider(program.script)
