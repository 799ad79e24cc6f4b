"""[approval]: which tool calls may run, which are asked about. Not here: what the rules mean (core's approval and pattern).

[approval]
default = "always"          # always | ask | never
write = "ask"               # tools that write are asked about; read and admin likewise
unattended = "never"        # where nobody can be asked: never | always

[[approval.rules]]
tool = "delete_*"
decision = "never"
reason = "nothing is deleted here"

[[approval.rules]]
tool = "run"
arguments.command = "git (status|log)( -[a-z]+)*"
decision = "always"
"""

from __future__ import annotations

from collections.abc import Mapping

from llmproc_nb.core import pattern
from llmproc_nb.core.approval import ACCESS, VERDICTS, Approval, Rule
from llmproc_nb.drivers.files.table import Table, meant

UNATTENDED = ("never", "always")


def approval(table: Table | None) -> Approval | None:
    """The policy of an [approval] table; None where there is none."""
    if table is None:
        return None
    found = Approval(
        default=table.choice("default", VERDICTS) or "always",  # type: ignore[arg-type]
        unattended=table.choice("unattended", UNATTENDED) or "never",  # type: ignore[arg-type]
        rules=_rules(table),
        **{level: table.choice(level, VERDICTS) for level in ACCESS},  # type: ignore[arg-type]
    )
    _refuse_unknown(table)
    return found


def _refuse_unknown(table: Table) -> None:
    """Elsewhere a key that nobody knows is a note; here a slip of the pen would let calls through."""
    for key in table.names():
        if key not in table.asked:
            table.error(key, "this key is not known", right=f"there are {', '.join(table.asked)}", step=meant(key, table.asked))


def _rules(table: Table) -> tuple[Rule, ...]:
    found = []
    for place, item in table.items("rules"):
        if not isinstance(item, Mapping):
            table.wrong(place, item, "a rule is a table", "Write it as [[approval.rules]] with a decision.")
            continue
        rule = _rule(table.below(place, item))
        if rule is not None:
            found.append(rule)
    return tuple(found)


def _rule(table: Table) -> Rule | None:
    decision, reason = table.choice("decision", VERDICTS), table.text("reason") or ""
    if "decision" not in table:
        table.error("decision", "a rule without a decision", right=f"it is one of {', '.join(VERDICTS)}")
    name = table.text("tool")
    if name is not None and not name.strip():
        table.error("tool", "the name is empty", right='a tool is named, as in "delete_*"; left out, a rule holds for all tools')
    access, arguments, faults = table.choice("access", ACCESS), {}, False
    below = table.table("arguments")
    for key, condition in table.text_map("arguments").items():
        wrong = pattern.fault(condition)
        if wrong is None:
            arguments[key] = condition
        elif below is not None:
            below.error(key, wrong[0], right=wrong[1])
            faults = True
    _refuse_unknown(table)
    if decision is None or faults:
        return None
    return Rule(decision=decision, tool=name or "*", access=access, arguments=arguments, reason=reason)  # type: ignore[arg-type]
