"""The door to sandboxes: confined Python in processes of its own, whose live state can be kept and woken again.

Here: the declaration, what a cell gives, the door. Not here: which state belongs to a place of a dialog (state), how it is done (drivers).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, Literal, Protocol, TypeAlias, get_args

import msgspec

from llmproc_nb.core.errors import ProgramError

Tier: TypeAlias = Literal["namespaces", "landlock", "process"]
OnFork: TypeAlias = Literal["fork", "fresh", "replay", "share"]


class SandboxRules(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the sandbox of a program's processes is confined, and what it has.

    `tier`: which confinement there must be; one that cannot be had is an error, never less. `on_fork`: a child goes on with the live state
    (fork), with nothing (fresh), with the cells run again (replay), or in the same session as its parent (share). `kernel`: another
    kernelspec, which cannot fork. `files` are copied into the working folder, relative to the program; `variables` are taken from the
    notebook. `readable` are paths of the host that are shown read-only at the same place, absolute, with `~` or relative to the program:
    for data, or what a kernel keeps in the home; a socket in there can be connected to. `hosts` may be connected to, through a proxy; none:
    no network. `timeout_s` is for a cell; `processes` and `cpu_s` are for a session with what it starts, `memory_mb` for each process, and
    for all of a family together what they have not in common. At most `checkpoints` states are kept, in `checkpoints_mb` of memory; others
    come back by running the cells again.

    Between a session and its forks it holds for what begins after the fork, in either: no folder of the other is reached (namespaces), no
    process of it signalled or read (from Linux 6.12). What ran or was changed before is in the fork as well; servers on the loopback are
    shared.
    """

    tier: Tier = "namespaces"
    on_fork: OnFork = "fork"
    kernel: str = ""
    files: tuple[str, ...] = ()
    variables: tuple[str, ...] = ()
    readable: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    env: dict[str, str] = {}
    timeout_s: float = 60.0
    cpu_s: int = 3600
    memory_mb: int = 4096
    disk_mb: int = 512
    processes: int = 64
    output_mb: int = 50
    checkpoints: int = 20
    checkpoints_mb: int = 1000

    def __post_init__(self) -> None:
        for name, kind in (("tier", Tier), ("on_fork", OnFork)):
            if getattr(self, name) not in get_args(kind):
                raise ProgramError(
                    f"{name} is {getattr(self, name)!r}", place="[sandbox]", right=f"it is one of {', '.join(get_args(kind))}"
                )
        for name in ("timeout_s", "cpu_s", "memory_mb", "disk_mb", "processes", "output_mb"):
            if getattr(self, name) <= 0:
                raise ProgramError(f"{name} is {getattr(self, name)!r}", place="[sandbox]", right="it is above 0")


def rules_of(fields: Mapping[str, Any], place: str) -> SandboxRules:
    """The rules as a file says them. Raises ProgramError, also for a key that there is not."""
    known = SandboxRules.__struct_fields__
    for name in fields:
        if name not in known:
            near = get_close_matches(str(name), known, 1)
            step = f"Did you mean {near[0]!r}?" if near else ""
            raise ProgramError(f"there is no key {name!r}", place=place, right=f"there are {', '.join(known)}", step=step)
    try:
        return msgspec.convert(fields, SandboxRules)
    except msgspec.ValidationError as error:
        raise ProgramError(str(error), place=place) from None


class Output(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One output of a cell, as a notebook keeps it.

    `kind` stream: `name` (stdout, stderr) and `text`; display_data and execute_result: `data`, a bundle by MIME type, binary content as
    base64 text, and the `display_id` of one that may be updated; error: `name` (the exception's), `text` (its message) and `trace` lines,
    which may hold ANSI colours.

    Whoever reads outputs as they come gets two more, which are kept as what they do: a display with `update` takes the place of the one
    with its `display_id`, and of kind clear: what was shown is gone, with `update` not before the next output comes.
    """

    kind: Literal["stream", "display_data", "execute_result", "error", "clear"]
    name: str = ""
    display_id: str = ""
    update: bool = False
    text: str = ""
    data: dict[str, Any] = {}
    trace: tuple[str, ...] = ()

    @property
    def words(self) -> str:
        """The output in words, as code wrote them."""
        if self.kind == "stream":
            return self.text
        if self.kind == "error":
            return "\n".join(self.trace or (f"{self.name}: {self.text}",)) + "\n"
        words = self.data.get("text/plain")
        return f"{words}\n" if isinstance(words, str) else ""


class Ran(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a cell gave. All text in it is hostile until escaped.

    `status` ok; error: it raised; timed_out, interrupted: it was stopped, the state goes on; died: the session ended with it, its
    variables are lost. `notes` are for whoever ran it: threads that no checkpoint has, output that was too much, what was lost.
    `memory_mb` is what its process had at most.
    """

    status: Literal["ok", "error", "timed_out", "interrupted", "died"]
    outputs: tuple[Output, ...] = ()
    notes: tuple[str, ...] = ()
    duration_s: float = 0.0
    cpu_s: float = 0.0
    memory_mb: float = 0.0

    @property
    def text(self) -> str:
        """All outputs in words, one after the other."""
        return "".join(output.words for output in self.outputs)

    def __repr__(self) -> str:
        words = self.text.strip()
        return f"<Ran {self.status}: {words if len(words) <= 200 else words[:199] + '…'!r}>" if words else f"<Ran {self.status}>"


class Variable(msgspec.Struct, frozen=True, kw_only=True):
    """A variable by its name, the name of its type, and what can be said of it in a few words. All of it is hostile until escaped."""

    name: str
    kind: str = ""
    said: str = ""


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What a session has: its variables, and the files of its working folder with their sizes in bytes."""

    variables: tuple[Variable, ...] = ()
    files: tuple[tuple[str, int], ...] = ()


OutputReader: TypeAlias = Callable[[Output], None]


class Shell(Protocol):
    """A live session. It belongs to the owner loop, and runs one cell at a time; who calls sees to that."""

    @property
    def alive(self) -> bool: ...

    async def run(self, code: str, *, timeout_s: float, on_output: OutputReader | None = None) -> Ran:
        """Run a cell. `on_output` gets outputs as they come. Never raises for what the code does, nor where the shell dies."""
        ...

    async def interrupt(self) -> None:
        """Stop the cell that runs: its `run` gives what came of it, with the status interrupted, or died where it would not stop."""
        ...

    async def keep(self) -> Checkpoint | None:
        """A frozen copy of the session and its working folder as they are now; None where this kind of session cannot be copied."""
        ...

    async def put(self, variables: Mapping[str, bytes | Any]) -> None:
        """Set variables: a pandas frame as the bytes of an Arrow stream, anything else as plain JSON data. Raises ToolError."""
        ...

    async def get(self, name: str) -> bytes | Any:
        """A variable: a frame as the bytes of an Arrow stream, anything else as JSON data. Raises ToolError where it is neither."""
        ...

    async def look(self) -> Look:
        """What there is, without a trace. Raises ToolError."""
        ...

    async def write_file(self, path: str, data: bytes) -> None:
        """Write a file in the working folder; `path` is relative to it. Raises ToolError."""
        ...

    async def read_file(self, path: str) -> bytes:
        """A file of the working folder. Raises ToolError."""
        ...

    async def close(self) -> None:
        """End the session and everything that it started."""
        ...


class Checkpoint(Protocol):
    """A session as it was once. It can be woken again and again."""

    @property
    def memory_mb(self) -> float:
        """The memory that is its alone, as last measured."""
        ...

    async def wake(self, *, owner: str = "") -> Shell:
        """A live session that goes on from here, with a working folder of its own. Raises ToolError where the copy is gone.

        `owner` names another process that it is for: `random` and NumPy's global generator go on in a way of its own, which follows from
        their states. So children do not draw alike, and each draws the same again where they were seeded.
        """
        ...

    async def close(self) -> None: ...


class SandboxDoor(Protocol):
    """Where the sandboxes of one family (a process and its forks) come from. It lives on the owner loop of its machine."""

    def warm(self) -> None:
        """Begin to get ready what makes `start` quick. Returns at once, raises nothing, costs nothing where it is done."""
        ...

    async def start(self) -> Shell:
        """A fresh session, with the program's files in its working folder and nothing else.

        Raises ToolError where a file is missing, or the confinement that is asked for cannot be had.
        """
        ...

    async def close(self) -> None:
        """End all sessions and checkpoints of the family."""
        ...
