"""The doors of a machine: everything of the world that it needs, by name, and a recording that answers in its place.

Not here: what stands behind them (drivers), the doors of single things (provider, log, approval, server, fd).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from llmproc_nb.core.event import CodeRan, Decided, FdOpened, Offered, ServerRead, ToolRan
from llmproc_nb.core.longtext import LongText, Numbers
from llmproc_nb.core.program import Link, Program
from llmproc_nb.core.provider import Provider, Settings
from llmproc_nb.core.sandbox import SandboxDoor
from llmproc_nb.core.server import ServerDoor
from llmproc_nb.core.tool import Paged, Shown, Toolset
from llmproc_nb.core.usage import Usage

if TYPE_CHECKING:
    from llmproc_nb.core.machine import Machine


class Recorded(Protocol):
    """A recording that answers in place of the world."""

    @property
    def mode(self) -> str: ...

    def offered(self, lineage: str, call: int) -> Offered | None:
        """The tools that the servers of a process offered when its call number `call` (from 0) began."""
        ...

    def provider(self, real: Provider) -> Provider:
        """A provider that answers what the recording knows, and asks the real one for the rest where the mode allows it."""
        ...

    def tool(self, node_id: str, position: int, lineage: str) -> ToolRan | None:
        """The recorded answer to call number `position` of the reply at that node, as `lineage` got it; None to run the tool.

        Raises ReplayMiss.
        """
        ...

    def decision(self, node_id: str, position: int, lineage: str) -> Decided | None:
        """What was decided on this tool call; None where nothing had to be."""
        ...

    def read(
        self, lineage: str, node_id: str, server: str, name: str, arguments: Mapping[str, str] | None, *, dry: bool = False
    ) -> ServerRead | None:
        """What was read from a server while `lineage` stood on that node; None to ask the server. Raises ReplayMiss.

        `dry`: only to see it; the next one who asks gets the same.
        """
        ...

    def window(self, model: str) -> int | None:
        """The window, in tokens, for which a path to this model was shortened."""
        ...

    def fds(self, node_id: str, position: int, lineage: str) -> list[tuple[FdOpened, str]]:
        """The fds that this tool call had opened, with their texts."""
        ...

    def stop(self, lineage: str, node_id: str) -> str | None:
        """Which limit of a subtree had stopped the call of `lineage` on that node; None where none had."""
        ...

    def cut(self, node_id: str, position: int, lineage: str) -> ToolRan | None:
        """The answer to a system call that was cut short, and is again; None where it came to its end, or comes now (mode auto)."""
        ...

    def end(self, lineage: str, node_id: str) -> str | None:
        """How the call of `lineage` ended that was cut short on that node: interrupted, killed or max_seconds."""
        ...

    def code(self, lineage: str, node_id: str, code: str) -> CodeRan | None:
        """What came of a cell that a person ran at a node; None to run it. Raises ReplayMiss."""
        ...

    def code_at(self, lineage: str, node_id: str, position: int) -> CodeRan | None:
        """What came of the cell of a tool call, where one ran."""
        ...

    def fd_numbers(self, lineage: str) -> Numbers | None:
        """What tells the numbers of fds that no recorded tool call opened: by what comes first they would be chance."""
        ...


class Drivers(Protocol):
    """Everything behind the doors that a machine needs, by name."""

    def provider(self, program: Program) -> Provider: ...

    def tools(self, wishes: tuple[Any, ...], program: Program) -> Toolset:
        """Functions, tools and wishes by name, as a toolset. Raises ProgramError or ToolDeclarationError."""
        ...

    def linked(self, program: Program) -> dict[str, Program]:
        """All programs that can be reached by links, by path. Raises ProgramError."""
        ...

    def link_path(self, program: Program, link: Link) -> str:
        """The key under which `linked` has the program of a link."""
        ...

    async def connect(self, program: Program, machine: Machine, name: str) -> ServerDoor:
        """The servers of a program, connected on this loop; what they ask is answered by the machine. Raises ProgramError."""
        ...

    def preload(self, program: Program, folder: str, files: tuple[str, ...]) -> Program:
        """The program with more files to read at its start, which must lie below a folder or the working folder. Raises ToolError."""
        ...

    def system(self, program: Program) -> tuple[str, tuple[str, ...]]:
        """The system prompt with all that a program adds to it, and what to warn about."""
        ...

    def settings(self, program: Program) -> Settings:
        """The program's settings, with what its provider needs for tools it runs itself."""
        ...

    def keep(self, pieces: Iterable[str]) -> LongText:
        """A text, kept where it does not fill the memory."""
        ...

    def keep_file(self, path: Path) -> LongText:
        """The text of a file, read where it lies where it is long. Raises ToolError."""
        ...

    def sandbox(self, program: Program) -> SandboxDoor:
        """Where the sandboxes of a program's processes come from."""
        ...

    async def proof(self, program: Program) -> list[tuple[str, bool | None, str, str]]:
        """Each promise of a sandbox, tried now in a fresh one: its name, whether it is kept (None: not made), what was tried, what
        happened."""
        ...

    async def close(self) -> None:
        """Give back what is kept ready for processes to come. Called on the owner loop, last."""
        ...

    def packed(self, value: Any, name: str) -> Any:
        """A value that goes into a sandbox: a frame as the bytes of an Arrow stream, plain data as it is. Raises ToolError."""
        ...

    def unpacked(self, value: Any) -> Any:
        """A value that came out of a sandbox."""
        ...

    def returned(self, value: Any, inline: Callable[[Paged], str]) -> tuple[Shown, ...]:
        """What a tool returned, as parts that a model reads; `inline` gives the words for what is to be paged within other data."""
        ...

    def prompt_value(self, value: Any) -> Any:
        """A value that is said to a process, as text or parts within a budget; any other unchanged."""
        ...

    def notebook(self, cells: Sequence[CodeRan], path: str, given: Sequence[str] = ()) -> None:
        """Write code cells with their outputs as a notebook; `given` are variables and files it began with. Raises PersonError."""
        ...

    def write_text(self, text: LongText, path: str, *, mode: Literal["write", "append"], create: bool, exist_ok: bool) -> int:
        """Write a text to a file below the working folder; gives the number of bytes. Raises ToolError."""
        ...

    def price(self, model: str, provider: str, usage: Usage, when_ns: int) -> float | None: ...

    def window(self, model: str, provider: str) -> int | None: ...

    def schema(self, kind: Any) -> tuple[dict[str, Any], Callable[[str], Any]]:
        """The JSON schema of a type, and what reads an answer that follows it."""
        ...
