"""Whether a tool call may run: the rules of a program, what a person is asked, and what was decided. Values and pure functions.

The first rule that matches decides, then the level of access, then the default. Two principles keep surprises on the safe side: what lets
through (always) holds up to a level of access and must describe an argument as a whole, what stops (ask, never) holds from that level on
and needs only to occur in it (pattern.py has the details). An argument that the call does not give matches no condition. Other
arguments than those a rule names may be anything. Not here: how a person is asked (ask in the notebook, chat), and when (toolrun).
"""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from fnmatch import fnmatchcase
from itertools import repeat
from typing import Any, Literal, Protocol, TypeAlias

import msgspec

from llmproc_nb.core import pattern
from llmproc_nb.core.errors import ProgramError
from llmproc_nb.core.tool import Access

Verdict: TypeAlias = Literal["always", "ask", "never"]
ACCESS: tuple[Access, ...] = ("read", "write", "admin")
VERDICTS: tuple[Verdict, ...] = ("always", "ask", "never")  # from the mildest to the strictest

PERSON, UNATTENDED, DEFAULT = "person", "unattended", "default"
ALWAYS = "always in this process"  # the reason of a person who wants no more asks for this tool


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A tool call that waits for a decision: who calls what, with which arguments, and why a person is asked.

    `unattended` is what becomes of it where nobody can be asked. `check` raises ToolError for arguments that the tool does not take, so
    that who changes them hears of it at once; they are checked again before the tool runs. `title` stands in place of the usual first
    line; `once`: an answer cannot hold for later asks as well. `names` are what the tool is called by those whose rules are asked, where
    that is not (only) `tool`: a child may know it by an alias.
    """

    process: str
    tool: str
    arguments: dict[str, Any] = {}
    pid: int = 0
    call: int | None = None
    description: str = ""
    access: Access = "write"
    why: str = ""
    unattended: Literal["always", "never"] = "never"
    check: Callable[[dict[str, Any]], Any] | None = None
    title: str = ""
    once: bool = False
    names: tuple[str, ...] = ()


class Decision(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was decided. `by`: `rule 2`, `write` (a level of access), `default`, `person`, or `unattended`.

    `arguments` are those to run with where they were changed, else None.
    """

    allowed: bool
    by: str
    arguments: dict[str, Any] | None = None
    reason: str = ""

    def for_model(self) -> str:
        """What the model is told of a call that may not run."""
        if self.by == PERSON:
            said = "not run: a person refused this call"
        elif self.by == UNATTENDED:
            said = "not run: a person must allow this call, and nobody can be asked here"
        else:
            said = "not run: calls such as this are not allowed here"
        return f"{said}: {self.reason}" if self.reason else f"{said}."

    def line(self, tool: str) -> str:
        """The decision in one line, for people: `delete_file refused by you: too many files`."""
        what = "allowed" if self.allowed else "refused"
        who = {PERSON: "by you", UNATTENDED: "because nobody could be asked", DEFAULT: "by default"}.get(self.by, f"by {self.by}")
        changed = f" with {json.dumps(self.arguments, ensure_ascii=False, default=str)}" if self.arguments is not None else ""
        return f"{tool} {what} {who}{changed}" + (f": {self.reason}" if self.reason else "")


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A decision for calls of the tools whose name matches `tool` (`*` and `?`), at a level of access, with such arguments.

    `arguments` are conditions by name, all of which must hold. Raises ProgramError for a condition that cannot be used.
    """

    decision: Verdict
    tool: str = "*"
    access: Access | None = None
    arguments: dict[str, str] = {}
    reason: str = ""

    def __post_init__(self) -> None:
        for name, condition in self.arguments.items():
            wrong = pattern.fault(condition)
            if wrong is not None:
                raise ProgramError(wrong[0], place=f"a rule for {self.tool}: arguments.{name}", right=wrong[1])

    def matches(self, ask: Ask) -> bool:
        """Whether this rule decides over a call. What lets through goes by the names that are known where the rule was written."""
        lets_through = self.decision == "always"
        names = (*(() if lets_through and ask.names else (ask.tool,)), *ask.names)
        if not any(fnmatchcase(name, self.tool) for name in names):
            return False
        if self.access is not None:
            level, own = ACCESS.index(ask.access), ACCESS.index(self.access)
            if (level > own) if lets_through else (level < own):
                return False
        holds = pattern.covers if lets_through else pattern.touches
        return all(name in ask.arguments and holds(condition, ask.arguments[name]) for name, condition in self.arguments.items())


class Approval(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which tool calls may run. `read`, `write` and `admin` decide over tools of that access where no rule does, then `default`.

    A level that is not named takes the stricter one of the default and the level below it. `unattended`: what becomes of an ask where
    nobody can be asked.
    """

    default: Verdict = "always"
    read: Verdict | None = None
    write: Verdict | None = None
    admin: Verdict | None = None
    rules: tuple[Rule, ...] = ()
    unattended: Literal["always", "never"] = "never"

    def level(self, access: Access) -> tuple[Verdict, str]:
        """What holds for tools of an access where no rule decides, and by what."""
        found, by = self.default, DEFAULT
        for level in ACCESS[: ACCESS.index(access) + 1]:
            own: Verdict | None = getattr(self, level)
            if own is not None:
                found, by = own, level
            elif VERDICTS.index(self.default) > VERDICTS.index(found):
                found, by = self.default, DEFAULT
        return found, by

    def verdict(self, ask: Ask) -> tuple[Verdict, str, str]:
        """The verdict over a call, by what it is, and the reason."""
        for number, rule in enumerate(self.rules, 1):
            if rule.matches(ask):
                return rule.decision, f"rule {number}", rule.reason
        found, by = self.level(ask.access)
        return found, by, f"it needs {ask.access} access" if found == "never" and by != DEFAULT else ""


class Approver(Protocol):
    """The door to a person. One for a machine; asked for each call that the rules leave to a person."""

    async def decide(self, ask: Ask) -> Decision:
        """A decision, whenever it comes: nothing counts the time. Called on the owner loop, for several calls at once.

        Where nobody can be asked it gives `unanswered(ask)`. When cancelled, the ask is over and must be taken away.
        """
        ...


class InTurn:
    """An approver that asks a person one thing at a time, in order, and no more where the answer was `always`.

    `put` puts one ask before the person and gives the decision; it is told how many more wait.
    """

    def __init__(self, put: Callable[[Ask, int], Awaitable[Decision]]) -> None:
        self._put, self._turn, self._waiting = put, asyncio.Lock(), 0
        self._always: set[tuple[int, str]] = set()

    async def decide(self, ask: Ask) -> Decision:
        self._waiting += 1
        try:
            async with self._turn:
                if not ask.once and (ask.pid, ask.tool) in self._always:
                    return Decision(allowed=True, by=PERSON, reason=ALWAYS)
                await asyncio.sleep(0)  # those of the same reply come at once: let them be counted
                made = await self._put(ask, self._waiting - 1)
        finally:
            self._waiting -= 1
        if made.allowed and made.by == PERSON and made.reason == ALWAYS and not ask.once:
            self._always.add((ask.pid, ask.tool))
        return made


Answer: TypeAlias = bool | Decision | dict[str, Any]


class Scripted:
    """An approver for tests and scripts, from a value or a function of the ask: True, False, changed arguments, or a Decision.

    `asked` has every ask there was.
    """

    def __init__(self, answer: Callable[[Ask], Answer | Awaitable[Answer]] | Answer) -> None:
        self._answer = answer
        self.asked: list[Ask] = []

    async def decide(self, ask: Ask) -> Decision:
        self.asked.append(ask)
        given: Any = self._answer(ask) if callable(self._answer) else self._answer
        if inspect.isawaitable(given):
            given = await given
        if isinstance(given, Decision):
            return given
        if isinstance(given, dict):
            return Decision(allowed=True, by=PERSON, arguments=given)
        return Decision(allowed=given is True, by=PERSON)


def by_policy(policy: Approval, ask: Ask) -> Decision | None:
    """What the rules decide; None where a person is to be asked."""
    verdict, by, reason = policy.verdict(ask)
    return None if verdict == "ask" else Decision(allowed=verdict == "always", by=by, reason=reason)


def by_policies(policies: Iterable[Approval], ask: Ask, names: Iterable[tuple[str, ...]] = repeat(())) -> Decision | Ask:
    """What several sets of rules decide together (a process's own first, then of those above it): the strictest one counts.

    `names` are what the tool is called by those whose rules they are. Gives the Ask to put before a person, with why, where that is to
    be done.
    """
    allowed, put = Decision(allowed=True, by=DEFAULT), None
    for policy, called in zip(policies, names, strict=False):
        verdict, by, reason = policy.verdict(msgspec.structs.replace(ask, names=called))
        if verdict == "never":
            return Decision(allowed=False, by=by, reason=reason)
        if verdict == "always":
            allowed = Decision(allowed=True, by=by, reason=reason) if allowed.by == DEFAULT else allowed
            continue
        unattended = "never" if "never" in (policy.unattended, put.unattended if put else "always") else "always"
        put = msgspec.structs.replace(put or ask, why=(put.why if put else "") or reason, unattended=unattended)
    return put or allowed


def unanswered(ask: Ask) -> Decision:
    """The decision where nobody can be asked."""
    return Decision(allowed=ask.unattended == "always", by=UNATTENDED)


async def decided(
    policies: Sequence[Approval], ask: Ask, approver: Approver | None, names: Sequence[tuple[str, ...]] | None = None
) -> Decision:
    """The decision over a call: by the rules, else by a person, else as for unattended runs. Changed arguments must keep to the rules."""
    called = names if names is not None else [()] * len(policies)
    found = by_policies(policies, ask, called)
    if isinstance(found, Decision):
        return found
    made = await approver.decide(found) if approver is not None else unanswered(found)
    if made.arguments is None or not made.allowed:
        return made
    again = by_policies(policies, msgspec.structs.replace(ask, arguments=made.arguments), called)
    return again if isinstance(again, Decision) and not again.allowed else made
