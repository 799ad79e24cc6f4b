"""A prompt with its values in it, as parts.

Here: what happens to the text around a value. Not here: what counts as a reference (reference), how a value is told to a model (values),
how long it may be (fit).

A frame, an array or the source of a function stands below the line that refers to it, by its name; on a line of its own in that place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from llmproc_nb.core.message import AnyPart, Text, clean
from llmproc_nb.drivers.value import asked
from llmproc_nb.notebook.fit import Fit
from llmproc_nb.notebook.reference import Lookup, Resources, pieces
from llmproc_nb.notebook.values import is_block, value_parts


def render_prompt(
    source: str, lookup: Lookup, evaluate: Callable[[str], Any], fit: Fit | None = None, resources: Resources | None = None
) -> tuple[AnyPart, ...]:
    """The prompt as parts: text as it is, values in the form a model reads, neighbouring texts merged, order kept.

    `lookup` are the names (or a function that raises KeyError or NameError), `evaluate` gives an expression's value, `fit` says how much
    of a value there is room for, `resources` are those of servers. Raises PromptError, naming the reference, before anything is sent.
    """
    fit = fit or Fit()
    found = list(pieces(source, lookup, evaluate, resources))
    made: list[AnyPart] = []
    waiting: list[str] = []
    shown: set[tuple[str, int]] = set()
    for position, (text, label, value) in enumerate(found):
        if label is None:
            made.append(Text(text=_with_blocks(clean(text), waiting)))
        elif not asked(partial(is_block, value), f"showing {label}") or _alone(found, position):
            made += _parts(value, label, fit)
        else:
            made.append(Text(text=label))
            if (label, id(value)) not in shown:
                waiting += [_block(part.text) for part in _parts(value, label, fit) if isinstance(part, Text)]
            shown.add((label, id(value)))
    if waiting:
        made.append(Text(text=_with_blocks("\n", waiting)))
    return _merged(made, fit)


def _parts(value: Any, label: str, fit: Fit) -> tuple[AnyPart, ...]:
    """A value as parts. Raises PromptError also for whatever the value's own code raises."""
    made: tuple[AnyPart, ...] = asked(partial(value_parts, value, label, fit), f"showing {label}")
    return made


def _with_blocks(text: str, waiting: list[str]) -> str:
    """The text with the blocks that wait for the end of their line; none waits then."""
    line, end, rest = text.partition("\n")
    if not waiting or not end:
        return text
    blocks = "\n".join(waiting)
    waiting.clear()
    return f"{line}\n\n{blocks}\n{rest}" if rest else f"{line}\n\n{blocks}"


def _block(text: str) -> str:
    return text.rstrip("\n") + "\n"


def _alone(found: list[tuple[str, str | None, Any]], position: int) -> bool:
    """Whether a reference has a line of its own."""
    before = found[position - 1][0] if position else ""
    after = found[position + 1][0] if position + 1 < len(found) else ""
    starts = (before == "" and position <= 1) or before.rstrip(" \t").endswith("\n")
    ends = (after == "" and position + 2 >= len(found)) or after.lstrip(" \t").startswith("\n")
    return starts and ends


def _merged(parts: Iterable[AnyPart], fit: Fit) -> tuple[AnyPart, ...]:
    made: list[AnyPart] = []
    for part in parts:
        if isinstance(part, Text) and not part.text:
            continue
        last = made[-1] if made else None
        if isinstance(last, Text) and isinstance(part, Text) and _joins(last, part, fit):
            made[-1] = Text(text=last.text + part.text)
        else:
            made.append(part)
    return tuple(made)


def _joins(one: Text, other: Text, fit: Fit) -> bool:
    """Whether two neighbouring texts are one."""
    return all(part.extra is None and not fit.is_paged(part.text) for part in (one, other))
