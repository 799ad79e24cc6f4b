"""The process in which a model's code runs: it takes cells from its socket, one at a time, and gives back what they do.

Here: the loop, cells, files. Not here: IPython (interpreter), outputs (outlet), copies of the process (frozen), variables (variables).
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import random
import resource
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, TypeAlias

from llmproc_nb.inside import channel, confine, frozen, interpreter, kin, openfiles, outlet, variables
from llmproc_nb.inside.bundle import clean_text
from llmproc_nb.inside.outlet import Outlet
from llmproc_nb.inside.passing import Unfit
from llmproc_nb.inside.rules import Rules

MOST_NAMES = 1000
WARM_UP = (
    "1/0",
    "import pandas\ndisplay(pandas.DataFrame({'a': [1.5, None]}))\npandas.DataFrame({'a': [1]})",
    "import matplotlib.pyplot as plt\nplt.plot([1, 2])\nplt.title('a')\nplt.xlabel('b')",
    "import asyncio\nawait asyncio.sleep(0)",
)
"""What is slow the first time: tracebacks, tables, figures, loops."""


Work: TypeAlias = "Callable[[State, dict[str, Any], bytes], tuple[dict[str, Any], bytes]]"
"""Does what a request asks: what to say, and data."""


class State:
    """What a live shell has: its way out, its area, its rules, and the interpreter."""

    def __init__(self, shell: interpreter.Interpreter, rules: Rules) -> None:
        self.shell, self.rules = shell, rules
        self.area = ""
        self.running = False
        self.kept: list[int] = []
        self.told: set[str] = set()
        self.pipes: tuple[int, ...] = ()
        self.out: Outlet

    @property
    def work(self) -> str:
        """The working folder."""
        return os.path.join(self.area, "work")

    def adopt(self, fds: list[int]) -> None:
        """Take a socket and two pipes as one's own."""
        self.out = Outlet(socket.socket(fileno=fds[0]))
        self.pipes = tuple(fds[1:3])
        for fd, number in zip(self.pipes, (outlet.OUT, outlet.ERR), strict=True):
            os.set_inheritable(fd, False)
            os.dup2(fd, number)
        self.shell.outlet = self.out

    def mend(self) -> None:
        """Open again what a cell has closed of the descriptors that are for text, before another one gets its number."""
        for number, fd in enumerate((-1, *self.pipes)):
            try:
                os.fstat(number)
            except OSError:
                self._reopen(number, fd)

    def _reopen(self, number: int, fd: int) -> None:
        try:
            os.dup2(fd, number)
        except OSError:  # it is stdin, or code has closed this one as well
            nowhere = os.open(os.devnull, os.O_RDWR)
            if nowhere != number:
                os.dup2(nowhere, number)
                os.close(nowhere)

    def leave_pipes(self) -> None:
        """Have the pipes no more, as a copy."""
        for fd in self.pipes:
            with contextlib.suppress(OSError):
                os.close(fd)
        self.pipes = ()

    def move_in(self, mount: int | None, path: str) -> None:
        """Take an area as one's own: it is home, and where temporary files go."""
        self.area = confine.settle(mount, path, self.rules)
        kin.take_orphans()

    def stay(self) -> None:
        """Go on in the area that the process has already, which is another session's no more."""
        confine.stay()
        kin.take_orphans()

    def ready(self) -> None:
        """Say that cells can come."""
        signal.signal(signal.SIGINT, self.interrupted)
        self.out.say({"op": "hello"})

    def interrupted(self, *_: Any) -> None:
        """SIGINT is for the cell, and for nothing while there is none."""
        if self.running:
            raise KeyboardInterrupt


_INTERPRETER: list[interpreter.Interpreter] = []


def prepare() -> None:
    """In the zygote: make the interpreter, and let it do once what is slow the first time."""
    outlet.streams()
    openfiles.watch_maps()
    shell = interpreter.make()
    for code in WARM_UP:
        shell.run_cell(code, store_history=False)
    shell.reset(new_session=True)
    frozen.renew_loop()
    _INTERPRETER.append(shell)


def first(fds: list[int], mount: int | None, path: str, rules: Rules) -> None:
    """In a process that the keeper forked: become the first shell of the family. Comes back when it is over."""
    os.setsid()
    state = State(_INTERPRETER[0], rules)
    state.adopt(fds)
    state.move_in(mount, path)
    state.shell.network = bool(rules.relay)
    state.shell.user_ns["_dh"] = [pathlib.Path.cwd()]  # where %cd has been
    sys.path.insert(0, "")
    sys.argv = [""]
    tempfile.tempdir = None  # a library may have asked for it in the zygote
    random.seed()
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()
    serve(state)


def serve(state: State) -> None:
    """Take requests until the other side closes."""
    state.ready()
    while True:
        try:
            header, body, fds = channel.receive(state.out.sock)
        except (EOFError, OSError):
            return
        answer(state, header, body, fds)
        if not state.out.own:  # a child that code of the cell forked came out of it
            return


def answer(state: State, header: dict[str, Any], body: bytes, fds: list[int]) -> None:
    """Do what is asked, and say how it went."""
    op = header["op"]
    if op == "run":
        run(state, header["n"], body.decode())
    elif op == "keep":
        frozen.keep(state, header["n"], fds)
    else:
        ask(state, OPS[op], header, body)


def run(state: State, n: int, code: str) -> None:
    """Run a cell, to its end or an interrupt."""
    began, before = time.process_time(), _children_cpu()
    error: BaseException | None = None
    try:
        error = _cell(state, code)
    except KeyboardInterrupt as stop:  # it came when the cell was over, or not yet begun
        error = stop
    finally:
        state.running = False
    if not state.out.own:
        os._exit(0)
    state.mend()
    outlet.flush()
    state.out.say(
        {
            "op": "done",
            "n": n,
            "status": _status(error),
            "cpu_s": round(time.process_time() - began + _children_cpu() - before, 6),
            "notes": _left_behind(state),
            "memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000, 1),
        }
    )


def _cell(state: State, code: str) -> BaseException | None:
    signal.signal(signal.SIGINT, state.interrupted)
    outlet.ErrorText.waits = outlet.MOST_WAITS
    state.running = True
    result = state.shell.run_cell(code, store_history=True)
    state.running = False
    error: BaseException | None = result.error_before_exec or result.error_in_exec
    return error


def _status(error: BaseException | None) -> str:
    if error is None or (isinstance(error, SystemExit) and not error.code):
        return "ok"
    return "interrupted" if isinstance(error, KeyboardInterrupt) else "error"


def _left_behind(state: State) -> list[str]:
    """A note of what neither forks nor gotos take along, where there is something that was not said before."""
    things = frozen.left_behind(state)
    new, state.told = set(things) - state.told, set(things)
    return [f"{', '.join(things)}: forks of this state, and gotos back to it, go on without."] if new else []


def _children_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def ask(state: State, work: Work, header: dict[str, Any], body: bytes) -> None:
    """Answer a question about the state; what goes wrong is the answer."""
    try:
        said, data = work(state, header, body)
    except Exception as error:  # the objects it asks are the cell's
        said, data = {"error": f"{type(error).__name__}: {error}"[:2000]}, b""
    state.out.say({"op": "answer", "n": header["n"], **said}, data)


def _put(state: State, header: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    state.shell.user_ns[header["name"]] = variables.read(header["kind"], body)
    return {}, b""


def _get(state: State, header: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    name = header["name"]
    if name not in state.shell.user_ns:
        return {"error": f"there is no variable {name!r}"}, b""
    try:
        kind, data = variables.written(name, state.shell.user_ns[name])
    except Unfit as error:
        return {"error": str(error)[:2000]}, b""
    return {"kind": kind}, data


def _look(state: State, header: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    hidden = state.shell.user_ns_hidden
    names = [name for name in tuple(state.shell.user_ns) if isinstance(name, str) and not name.startswith("_") and name not in hidden]
    found = [variables.described(name, state.shell.user_ns.get(name)) for name in names[:MOST_NAMES]]
    return {}, json.dumps({"variables": found, "files": _sizes(os.path.realpath(state.work))}).encode()


def _sizes(work: str) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    for folder, inner, names in os.walk(work):
        inner.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            with contextlib.suppress(OSError):
                found.append((clean_text(os.path.relpath(path, work)), os.lstat(path).st_size))
            if len(found) >= MOST_NAMES:
                return found
    return found


def _write_file(state: State, header: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    path = _inside(state, header["path"])
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(body)
    return {}, b""


def _read_file(state: State, header: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    with open(_inside(state, header["path"]), "rb") as file:
        data = file.read(header["most"] + 1)
    return ({"error": f"it has more than {header['most']:,} bytes"}, b"") if len(data) > header["most"] else ({}, data)


def _inside(state: State, path: str) -> str:
    """The full path; links that lead out of the working folder are refused."""
    work = os.path.realpath(state.work)
    full = os.path.realpath(os.path.join(work, path))
    if os.path.commonpath([work, full]) != work or full == work:
        raise PermissionError(f"{path} is no file of the working folder")
    return full


def _part(state: State, header: dict[str, Any], body: bytes) -> tuple[dict[str, Any], bytes]:
    return {"parted": confine.part()}, b""


OPS = {"part": _part, "put": _put, "get": _get, "look": _look, "write_file": _write_file, "read_file": _read_file}
