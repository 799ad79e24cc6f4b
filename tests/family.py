"""A run in which everything happens: forks and gotos by the model and by a person, spawns, fds, messages, merges, asides, a kill."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

from llmproc_nb.core.machine import Machine
from llmproc_nb.core.message import parts_of
from llmproc_nb.core.process import Process
from llmproc_nb.core.program import Link, Program
from llmproc_nb.core.provider import Draft, Request
from llmproc_nb.core.tool import parts_text
from llmproc_nb.drivers.scripted import ScriptedProvider


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


def report(about: str) -> str:
    """A long report."""
    return "".join(f"{about} {number}\n" for number in range(2000))


def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


LABEL = r"(\n?\[msg_\d+\] ?)?"
TURNS = (
    {"when": f"^{LABEL}look$", "say": "I look.", "call": [call("report", about="sea"), call("add", a=1, b=2)]},
    {"when": "read_fd again", "call": [call("read_fd", fd="fd:1", start=2)]},
    {"when": "^<fd_content", "say": "Read on."},
    {"when": f"^{LABEL}split$", "say": "I split.", "call": [call("fork", prompts=["task a", "task b"]), call("add", a=2, b=2)]},
    {"when": f"^{LABEL}task a$", "call": [call("report", about="hill")]},
    {"when": "hill 0\nhill 1", "say": "See fd:2."},
    {"when": f"^{LABEL}task b$", "call": [call("add", a=3, b=3)]},
    {"when": f"^6{LABEL}$", "say": "b is six"},
    {"when": '"process": "scout.1"', "say": "Both are back."},
    {"when": "sea 0\nsea 1", "say": "I looked."},
    {"when": f"^{LABEL}wander$", "call": [call("add", a=4, b=4)]},
    {"when": f"^8{LABEL}$", "call": [call("goto", position="msg_3", message="no need to wander"), call("add", a=9, b=9)]},
    {"when": "<goto to=", "say": "Back again."},
    {"when": f"^{LABEL}background$", "call": [call("spawn", prompt="What is it?", program_name="expert", wait=False)]},
    {"when": "runs in the background", "call": [call("send", pid="helper", text="psst"), call("wait", pid="expert")]},
    {"when": "^helper works on it", "say": "The expert says: 42."},
    {"when": ".", "say": "You said: {{last}}"},
)
EXPERT = Program(name="expert", provider="scripted", model="script", system="You know.", script=({"when": ".", "say": "42"},))
SCOUT = Program(
    name="scout",
    provider="scripted",
    model="script",
    system="You scout.",
    script=TURNS,
    tools=("fork", "goto", "spawn", "wait", "send", report, add),
    linked={"expert": Link(program=EXPERT, description="Knows numbers")},
)
PLAIN = Program(name="plain", provider="scripted", model="script", script=({"when": ".", "say": "You said: {{last}}"},))


def full_run(on: Machine, scout_program: Program = SCOUT) -> Process:
    """Do all of it; gives the first process."""
    scout = on.start(scout_program)
    helper = scout.spawn(PLAIN, "helper")
    for words in ("look", "read_fd again", "split", "wander"):
        scout.run(words, cell="cell-1").result()
    scout.run("background").result()
    helper.run("now").result()
    scout.goto("~1", "another way")
    scout.run("hello").result()
    scout.undo()
    idea = scout.fork("idea")
    idea.run("look").result()
    scout.merge(idea, "What the idea gave:")
    asyncio.run(both(scout))
    short = scout.fork(first_k=1, last_n=2)
    scout.send("by the way")
    short.run("short").result()
    scout.run("after that").result()
    plain = on.start(PLAIN)
    for _ in range(2):
        plain.run("the same").result()
        plain.reset_state()
    plain.fork().run("another").result()
    plain.kill()
    on.find("expert").kill()
    scout.goto("~1")
    scout.send("unread")
    scout.send("unread, too", sender=helper)
    return scout


async def both(scout: Process) -> None:
    await scout.fork_map(["p1", "p2"])


def playing(delays: random.Random | None = None, *, forgetful: bool = False) -> Callable[[Request], Any]:
    """The script of SCOUT as a function: each answer comes after a random delay; a forgetful one answers equal questions differently."""
    provider = ScriptedProvider(TURNS)
    count = [0]

    async def answer(request: Request) -> Any:
        if delays is not None:
            await asyncio.sleep(delays.random() * 0.01)
        draft = Draft("scripted")
        message = (await provider.ask(request, draft)).message
        if forgetful and message.text.startswith("You said"):
            count[0] += 1
            return f"answer {count[0]} to {parts_text(parts_of(request.head.message))[:40]}"
        return message

    return answer
