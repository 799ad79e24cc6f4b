"""Doors for a machine on which a log is run again: behind them is nothing but the log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from llmproc_nb.core.errors import LogError, ReplayMiss
from llmproc_nb.core.event import AnyEvent, CodeRan, Started
from llmproc_nb.core.longtext import LongText
from llmproc_nb.core.program import Link, Program
from llmproc_nb.core.provider import Config, Draft, Provider, Reply, Request, Settings
from llmproc_nb.core.sandbox import SandboxDoor
from llmproc_nb.core.tool import Paged, Shown, Toolset, result_parts
from llmproc_nb.core.usage import Usage
from llmproc_nb.drivers.replay.plaintext import PlainText


class LoggedDrivers:
    """Doors with nothing behind them but the log: providers by name that only a recording can answer for, no tools, no prices."""

    def __init__(self, events: Iterable[AnyEvent]) -> None:
        self._scripted = {event.provider: event.scripted for event in events if isinstance(event, Started)}

    def provider(self, program: Program) -> Provider:
        return _Absent(program.provider, self._scripted.get(program.provider, False))

    def tools(self, wishes: tuple[Any, ...], program: Program) -> Toolset:
        return Toolset()

    def link_path(self, program: Program, link: Link) -> str:
        return ""

    async def connect(self, program: Program, machine: Any, name: str) -> Any:
        raise LogError("no server is needed to run a log again")

    def preload(self, program: Program, folder: str, files: tuple[str, ...]) -> Program:
        return program

    def keep(self, pieces: Iterable[str]) -> LongText:
        return PlainText(pieces)

    def keep_file(self, path: Path) -> LongText:
        raise LogError("no file is needed to run a log again")

    def sandbox(self, program: Program) -> SandboxDoor:
        raise LogError("no code runs when a log is run again")

    async def proof(self, program: Program) -> list[tuple[str, bool | None, str, str]]:
        raise LogError("no code runs when a log is run again")

    async def close(self) -> None:
        """There is nothing to give back."""

    def packed(self, value: Any, name: str) -> Any:
        return value

    def unpacked(self, value: Any) -> Any:
        return value

    def returned(self, value: Any, inline: Callable[[Paged], str]) -> tuple[Shown, ...]:
        return result_parts(value)

    def prompt_value(self, value: Any) -> Any:
        return value

    def notebook(self, cells: Sequence[CodeRan], path: str, given: Sequence[str] = ()) -> None:
        raise LogError("no notebook is written when a log is run again")

    def write_text(self, text: LongText, path: str, **how: Any) -> int:
        raise LogError("no file is written when a log is run again")

    def system(self, program: Program) -> tuple[str, tuple[str, ...]]:
        return program.system, ()

    def settings(self, program: Program) -> Settings:
        return program.settings

    def price(self, model: str, provider: str, usage: Usage, when_ns: int) -> float | None:
        return None

    def window(self, model: str, provider: str) -> int | None:
        return None

    def linked(self, program: Program) -> dict[str, Program]:
        return {}

    def schema(self, kind: Any) -> tuple[dict[str, Any], Callable[[str], Any]]:
        raise LogError("a schema is not needed to run a log again")


class _Absent:
    """Stands where a provider was; asked only if the recording has no answer, which is then said by the recording."""

    def __init__(self, name: str, scripted: bool) -> None:
        self.name, self.api, self.scripted = name, name, scripted

    async def ask(self, request: Request, draft: Draft) -> Reply:
        raise ReplayMiss("there is no provider when a log is run again", right="every reply comes from the log")

    def left_out(self, config: Config) -> tuple[str, ...]:
        return ()

    def preview(self, request: Request) -> dict[str, Any]:
        return {}

    async def close(self) -> None:
        return None
