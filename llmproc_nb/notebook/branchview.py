"""Branches to look at: the children of a fan-out while they run and at the end, and two branches side by side."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from llmproc_nb.core.branch import Branch, Branches
from llmproc_nb.core.dialog import Node
from llmproc_nb.core.fan import is_cached_length
from llmproc_nb.core.message import Image, Message
from llmproc_nb.core.process import Process
from llmproc_nb.core.tool import parts_text
from llmproc_nb.core.visible import one_line, visible
from llmproc_nb.notebook.facts import Table, shown
from llmproc_nb.notebook.fragment import BADGE, CELL, PRE, QUIET, SCRIPTED, arguments_line, frame_html, image_html
from llmproc_nb.notebook.html import escape, escape_code, markdown_html

COLUMNS = ("child", "answer", "stop_reason", "tokens", "cost_usd")
ANSWER_CHARS = 1200
LINE_CHARS, NAME_CHARS = 56, 24
MAX_PICTURES, MAX_EACH = 24, 4
NOTHING_HEARD: Mapping[int, str] = MappingProxyType({})
TOP = "vertical-align:top;text-align:left"
SIDE = f"{TOP};width:50%;overflow-wrap:anywhere"


def branch_table(branches: Branches, *, whole: bool = True, heard: Mapping[int, str] = NOTHING_HEARD) -> Table:
    """One row per child; not `whole`: each in one line of bounded length, for a terminal and while they run.

    `heard` are the last words of those that run, by pid.
    """
    several = len({branch.process.program.model for branch in branches}) > 1
    columns = ("child", "model", *COLUMNS[1:]) if several else COLUMNS
    return Table(columns, (_row(branch, several, ANSWER_CHARS if whole else LINE_CHARS, heard) for branch in branches), empty="no children")


def branch_html(process: Process, branches: Branches, *, whole: bool = True, heard: Mapping[int, str] = NOTHING_HEARD) -> str:
    """The children as a table in the look of a turn; whole answers as the Markdown that they are."""
    table = branch_table(branches, whole=whole, heard=heard)
    answers = table.columns.index("answer")
    head = "".join(f'<th style="{CELL}">{escape(name)}</th>' for name in table.columns)
    rows, room = "", MAX_PICTURES if whole else 0
    for branch, row in zip(branches, table.rows, strict=True):
        cells = [escape(shown(value)) for value in row]
        if whole:
            pictures = [made for image in _pictures(branch) if (made := image_html(image))][: min(room, MAX_EACH)]
            room -= len(pictures)
            cells[answers] = _compact(row[answers]) + "".join(pictures)
        rows += "<tr>" + "".join(f'<td style="{TOP}">{cell}</td>' for cell in cells) + "</tr>"
    return frame_html(
        _title_html(summary_line(process, branches), scripted=process.provider.scripted),
        f"<table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>",
    )


def _pictures(branch: Branch) -> list[Image]:
    """The figures that a child made on the way to its answer."""
    runs = branch.result.tool_calls if branch.result is not None else ()
    return [part for run in runs for part in run.result.content if isinstance(part, Image)]


def branch_frame(branches: Branches) -> Any:
    """The children as a DataFrame, answers whole."""
    import pandas as pd

    columns = ("child", "model", "prompt", "answer", "stop_reason", "error", "tokens", "cost_usd")
    rows = [
        (
            branch.process.name,
            branch.process.model,
            prompt_text(branch),
            branch.text,
            branch.stop_reason,
            str(branch.error) if branch.error is not None else None,
            branch.usage.total_tokens,
            _cost(branch),
        )
        for branch in branches
    ]
    frame = pd.DataFrame(rows, columns=list(columns))
    return frame.astype({"tokens": "Int64", "cost_usd": "Float64", "stop_reason": "category", "error": "string"})


def prompt_text(branch: Branch) -> str:
    return branch.prompt if isinstance(branch.prompt, str) else parts_text(branch.prompt)


def summary_line(process: Process, branches: Branches) -> str:
    """What became of a fan-out and what the common path saved, in one line."""
    ended = sum(branch.call.done() for branch in branches)
    words = (
        f"{process.name}: {ended} of {len(branches)} children have ended"
        if ended < len(branches)
        else f"{process.name}: {len(branches)} children"
    )
    if ended < len(branches) or process.provider.scripted or branches.shared is None:
        return words
    return f"{words}; {_cache_words(branches, branches.shared)}"


def _cache_words(branches: Branches, shared: Node) -> str:
    """What the common path saved, from the usage that the API counted; why it saved nothing, as far as that can be known."""
    read = sum(branch.usage.cache_read_tokens for branch in branches)
    asked = sum(branch.usage.input_tokens for branch in branches)
    if read:
        return f"{read:,} of {asked:,} input tokens were read from the provider's cache"
    why = dict.fromkeys(call.cache_miss for branch in branches if branch.result is not None for call in branch.result.api_calls)
    if words := ", ".join(word.replace("_", " ") for word in why if word):
        return f"nothing was read from a cache; the API says why: {words}"
    if not is_cached_length(shared):
        return "their common path is too short to be cached"
    if len({branch.process.config.id for branch in branches}) == len(branches) > 1:
        return "nothing was read from a cache: each has a model or tools of its own"
    return "nothing was read from a cache: the API counted no cached tokens"


def _row(branch: Branch, several: bool, limit_chars: int, heard: Mapping[int, str]) -> tuple[Any, ...]:
    if not branch.call.done():
        return _running_row(branch, several, heard.get(branch.process.pid, ""))
    answer = branch.text
    if branch.error is not None:
        answer = f"{answer}\n{branch.error}".strip()
    whole = limit_chars > LINE_CHARS
    shown = answer if len(answer) <= limit_chars and whole else one_line(answer, limit_chars)
    return (*_names(branch, several, whole), shown, branch.stop_reason, branch.usage.total_tokens, _cost(branch))


def _running_row(branch: Branch, several: bool, words: str) -> tuple[Any, ...]:
    """What a child that runs said last; tokens and cost are known with its first whole reply."""
    line = " ".join(visible(words).split())
    line = line if len(line) <= LINE_CHARS else f"…{line[1 - LINE_CHARS :]}"
    counted = (branch.usage.total_tokens, _cost(branch)) if branch.usage.requests else (None, None)
    return (*_names(branch, several, whole=False), line, branch.stop_reason, *counted)


def _names(branch: Branch, several: bool, whole: bool) -> tuple[str, ...]:
    names = (branch.process.name, *((branch.process.model,) if several else ()))
    return names if whole else tuple(name if len(name) <= NAME_CHARS else f"{name[: NAME_CHARS - 1]}…" for name in names)


def _cost(branch: Branch) -> float | None:
    return None if branch.usage.unpriced_requests else branch.usage.cost_usd


class Difference:
    """Two branches side by side from where they part."""

    def __init__(self, left: Process, right: Process) -> None:
        self.left, self.right = left, right
        one, other = left.path, right.path
        self.common = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a is not b), min(len(one), len(other)))
        self.only_left, self.only_right = one[self.common :], other[self.common :]

    def _rows(self) -> list[tuple[str, str]]:
        count = max(len(self.only_left), len(self.only_right))
        return [(_said(self.only_left, number), _said(self.only_right, number)) for number in range(count)]

    @property
    def _title(self) -> str:
        count = max(0, self.common - 1)
        shared = f"{self.left.name} and {self.right.name} share {count} message{'' if count == 1 else 's'}"
        return shared if self._rows() else f"{shared} and nothing parts them"

    def __repr__(self) -> str:
        lines = [self._title]
        for name, nodes in ((self.left.name, self.only_left), (self.right.name, self.only_right)):
            lines += [f"--- {name}", *(visible(_said(nodes, number)) for number in range(len(nodes)))]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        head = "".join(f'<th style="{SIDE}">{escape(process.name)}</th>' for process in (self.left, self.right))
        rows = (
            "".join(f'<td style="{SIDE}">{_said_html(nodes, number)}</td>' for nodes in (self.only_left, self.only_right))
            for number in range(max(len(self.only_left), len(self.only_right)))
        )
        body = "".join(f"<tr>{cells}</tr>" for cells in rows)
        table = f'<table style="width:100%;table-layout:fixed"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        return frame_html(_title_html(self._title), table)


def _compact(words: str) -> str:
    """Markdown for a cell of a table: one paragraph alone without the margins of one."""
    made = markdown_html(words).strip()
    return made[3:-4] if made.startswith("<p>") and made.endswith("</p>") and made.count("<p>") == 1 else made


def _title_html(words: str, *, scripted: bool = False) -> str:
    """The line above a table: quiet, as the one above a turn."""
    mark = f' <span style="{BADGE}">{SCRIPTED}</span>' if scripted else ""
    return f'<div style="{QUIET}">{escape(words)}{mark}</div>'


def _said(nodes: tuple[Node, ...], number: int) -> str:
    """A message for a column: who, and the words, a tool's call by its name."""
    if number >= len(nodes):
        return ""
    message = nodes[number].message
    return f"{message.role}: " + "\n".join((*filter(None, (_bounded(message.text),)), *_calls(message), *_answers(message)))


def _said_html(nodes: tuple[Node, ...], number: int) -> str:
    if number >= len(nodes):
        return ""
    message = nodes[number].message
    text = _bounded(message.text)
    words = f"<div>{_compact(text)}</div>" if message.role == "assistant" and text else f"<div>{escape(text)}</div>" if text else ""
    calls = "".join(f"<div><code>{escape_code(call)}</code></div>" for call in _calls(message))
    answers = "".join(f'<pre style="{PRE}">{escape_code(answer)}</pre>' for answer in _answers(message))
    return f'<div style="{QUIET}">{message.role}</div>{words}{calls}{answers}'


def _bounded(words: str) -> str:
    return words if len(words) <= ANSWER_CHARS else one_line(words, ANSWER_CHARS)


def _calls(message: Message) -> list[str]:
    return [f"{call.name}({arguments_line(_read(call.arguments), 60)})" for call in message.tool_calls]


def _answers(message: Message) -> list[str]:
    return [f"{result.name} → {_bounded(result.text)}" for result in message.tool_results]


def _read(arguments: str) -> dict[str, Any] | str:
    try:
        value = msgspec.json.decode(arguments)
    except (msgspec.DecodeError, RecursionError):
        return arguments
    return value if isinstance(value, dict) else arguments
