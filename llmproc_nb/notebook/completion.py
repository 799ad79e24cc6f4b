"""What Tab offers on a magic line and in the body of a `%%agent`, `%%fork` or `%%sandbox` cell.

Here: where the cursor is and what may stand there, and one matcher that joins this to a shell. Not here: finding what fits (offer).
Any other cell pays one look at its first characters.
"""

from __future__ import annotations

import argparse
import builtins
import keyword
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import msgspec

from llmproc_nb.notebook.offer import (
    DATA_TYPES,
    FRAMES,
    LOG_FOLDERS,
    LOG_TYPES,
    LOGS,
    MODES,
    PROGRAM_FOLDERS,
    PROGRAM_TYPES,
    SANDBOX,
    addresses,
    cells,
    endpoints,
    fds,
    files,
    inside,
    model_names,
    node_ids,
    programs,
    readable,
    tool_names,
    turns_back,
)

if TYPE_CHECKING:
    from IPython.core.completer import CompletionContext, SimpleMatcherResult
    from IPython.core.interactiveshell import InteractiveShell

    from llmproc_nb.core.process import Process

PROCESSES = frozenset(("name", "names", "process", "processes", "child", "left", "right", "by"))
_ID = re.compile(r"[0-9a-f]{3,32}")
_LINE = re.compile(r"\s*(?P<marks>%%?)(?P<magic>[A-Za-z_]\w*)\s")
_AT_NAME = re.compile(r"(?:^|[\s(\[{\"'“‘«*,;:=>])@(?P<path>(?:[^\W\d]\w*)?(?:\.\w*)?)$")
_AT_SERVER = re.compile(r"(?:^|[\s(\[{\"'“‘«*,;:=>])@(?P<server>[^\W\d][\w-]*):(?P<name>\S*)$")
_WORD = re.compile(r"(?<![\w.])[^\W\d]\w*$")
_CHAIN = re.compile(r"(?<![\w.\])])(?P<path>(?:[^\W\d]\w*)?(?:\.\w*)?)$")


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to offer. `parsers` are argparse parsers by magic (`%%agent`, or `agent` for both kinds); `folder` is where to look.

    `of_process` gives the process of a name, for what only it can say: its addresses, fds and links; `cells_of` its cells as addresses.
    `inside` gives the variables in a process's sandbox, or the only one's, where they can be had at once.
    """

    namespace: Mapping[str, Any] = {}
    processes: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    parsers: Mapping[str, argparse.ArgumentParser] = {}
    folder: str = "."
    of_process: Callable[[str], Process | None] = lambda name: None
    cells_of: Callable[[Process], list[str]] = lambda process: []
    inside: Callable[[str | None], list[str]] = lambda name: []


def complete_line(line: str, cursor: int, known: Known) -> list[str]:
    """What fits at the cursor of a magic line, each as a replacement of the word (or the item of a list) before the cursor."""
    return complete_word(line, cursor, known)[1]


def complete_word(line: str, cursor: int, known: Known) -> tuple[str, list[str]]:
    """The piece of the line that is being completed, and what fits in its place."""
    before = line[:cursor]
    found = _LINE.match(before)
    parser = None if found is None else known.parsers.get(found["marks"] + found["magic"]) or known.parsers.get(found["magic"])
    if found is None or parser is None:
        return "", []
    words = re.sub(r",\s+", ",", before[found.end() :]).split(" ")
    word, earlier = words[-1], [word for word in words[:-1] if word]
    flag, joined, value = word.partition("=") if word.startswith("--") else ("", "", word)
    if joined:
        return _starting(value, _values(flag, _action(parser, flag), value, known, _bare(parser, earlier)))
    if word.startswith("-"):
        return word, [option for option in _options(parser, earlier) if option.startswith(word)]
    action = _action(parser, earlier[-1]) if earlier and earlier[-1].startswith("-") else None
    if action is not None and action.nargs != 0:
        return _starting(word, _values(earlier[-1], action, word, known, _bare(parser, earlier)))
    if parser is known.parsers.get("%sandbox"):
        return _starting(word, _of_sandbox(_bare(parser, earlier), _process_named(earlier), word, known))
    if parser is known.parsers.get("%spawn"):
        return _starting(word, _of_spawn(parser, earlier, word, known))
    return _starting(word, _positional(parser, earlier, word, known))


def _starting(word: str, offered: Iterable[str]) -> tuple[str, list[str]]:
    """The last item of a comma separated word, and the offers that begin like it."""
    item = word.rpartition(",")[2]
    return item, [offer for offer in dict.fromkeys(offered) if offer.startswith(item)]


def _options(parser: argparse.ArgumentParser | None, earlier: list[str]) -> list[str]:
    """The long flags that were not given yet."""
    made: list[str] = []
    for action in parser._actions if parser else ():
        given = set(action.option_strings) & {word.partition("=")[0] for word in earlier}
        repeatable = type(action).__name__ in ("_AppendAction", "_CountAction")
        if action.help is not argparse.SUPPRESS and (repeatable or not given):
            made += [option for option in action.option_strings if option.startswith("--")]
    return sorted(made)


def _action(parser: argparse.ArgumentParser | None, flag: str) -> argparse.Action | None:
    return next((action for action in (parser._actions if parser else ()) if flag in action.option_strings), None)


def _values(flag: str, action: argparse.Action | None, word: str, known: Known, bare: list[str]) -> list[str]:
    """What may follow a flag: its own choices, or what its name says."""
    if action is not None and action.choices:
        return [str(choice) for choice in action.choices]
    name = action.dest if action is not None else flag.lstrip("-").replace("-", "_")
    if name == "tools":
        taken = set(word.split(",")[:-1])
        return [tool for tool in (*tool_names(known.namespace), *known.tools) if tool not in taken]
    offers: dict[str, Callable[[], list[str]]] = {
        "program": lambda: [*programs(known.namespace), *files(known.folder, word, PROGRAM_FOLDERS, PROGRAM_TYPES)],
        "model": lambda: model_names(word),
        "mode": lambda: list(MODES),
        "provider": lambda: [*(endpoint.rstrip(":") for endpoint in endpoints()), "scripted"],
        "frame": lambda: list(FRAMES),
    }
    if name in LOGS:
        return files(known.folder, word, LOG_FOLDERS, LOG_TYPES)
    if name in PROCESSES:
        return list(known.processes)
    if name in ("at", "address", "fd"):
        process = known.of_process(bare[0]) if bare else None
        if process is None or name == "fd":
            return fds(process) if process is not None else []
        return _places(process, word, known)
    if name == "words":  # %merge CHILD into PROCESS
        return ["into"] if len(bare) == 1 else list(known.processes) if bare[1:] == ["into"] else []
    return offers[name]() if name in offers else []


def _places(process: Process, word: str, known: Known) -> list[str]:
    """Addresses of the kind that is being typed."""
    if _ID.fullmatch(word):
        return node_ids(process, word)
    return turns_back(process) if word.startswith("~") else known.cells_of(process) if word.startswith("c") else addresses(process)


def _positional(parser: argparse.ArgumentParser | None, earlier: list[str], word: str, known: Known) -> list[str]:
    """What stands without a flag: names of processes, frames, logs."""
    bare = _bare(parser, earlier)
    places = [action for action in (parser._actions if parser else ()) if not action.option_strings]
    many = bool(places) and places[-1].nargs in ("*", "+")
    if len(bare) >= len(places) and not many:
        return []
    action = places[min(len(bare), len(places) - 1)]
    if action.dest == "names" and parser is not None and _action(parser, "--at"):
        return []  # names of children to come
    return [offer for offer in _values("", action, word, known, bare) if offer not in bare]


def _of_spawn(parser: argparse.ArgumentParser | None, earlier: list[str], word: str, known: Known) -> list[str]:
    """%spawn NAME from PROGRAM: the name is a new one; the program is a link of the parent, a Program, or a file."""
    bare = _bare(parser, earlier)
    if len(bare) == 1:
        return ["from"]
    if bare[1:] != ["from"]:
        return []
    above = known.of_process(earlier[earlier.index("--by") + 1]) if "--by" in earlier[:-1] else None
    links = list(above.program.linked) if above is not None else []
    return [*links, *programs(known.namespace), *files(known.folder, word, PROGRAM_FOLDERS, PROGRAM_TYPES)]


def _of_sandbox(bare: list[str], process: str | None, word: str, known: Known) -> list[str]:
    """%sandbox [PROCESS] WHAT NAMES: what it does, then variables of the notebook to push, of the sandbox to pull, or files to copy."""
    if not bare:
        return [*SANDBOX, *(known.processes if process is None else ())]
    if bare[0] not in SANDBOX:
        return _of_sandbox(bare[1:], bare[0], word, known) if process is None and bare[0] in known.processes else []
    taken = {name for one in (*bare[1:], word.rpartition(",")[0]) for name in one.split(",")}
    if bare[0] in ("push", "pull"):
        found = known.namespace if bare[0] == "push" else known.inside(process)
        return [name for name in found if not name.startswith("_") and name not in taken]
    return files(known.folder, word, (".", "data"), DATA_TYPES) if bare[0] == "files" else []


def _bare(parser: argparse.ArgumentParser | None, words: list[str]) -> list[str]:
    """The words that are neither flags nor their values."""
    made: list[str] = []
    takes_value = False
    for word in words:
        if word.startswith("-"):
            action = _action(parser, word)
            takes_value = action is not None and action.nargs != 0
        elif takes_value:
            takes_value = False
        else:
            made.append(word)
    return made


def _process_named(earlier: list[str]) -> str | None:
    """The process that a flag names."""
    words = " ".join(earlier).replace("--process=", "-p ").replace("--process ", "-p ").split()
    return next((name for flag, name in pairwise(words) if flag == "-p"), None)


def complete_code(first: str, before: str, known: Known) -> tuple[str, list[str]]:
    """The name that is being typed in a `%%sandbox` cell that begins with this line, and what the sandbox has that fits."""
    found = _WORD.search(before)
    if found is None:
        return "", []
    earlier = first.split()[1:]
    bare = _bare(known.parsers.get("%%sandbox"), earlier)
    names = known.inside(_process_named(earlier) or (bare[0] if bare else None))
    fit = sorted({name for name in (*names, *dir(builtins), *keyword.kwlist) if name.startswith(found[0])}) if names else []
    return found[0], [name for name in fit if found[0].startswith("_") or not name.startswith("_")]


def complete_body(
    before: str, namespace: Mapping[str, Any], readable_of: Callable[[str], list[str]] = lambda server: []
) -> tuple[str, list[str]]:
    """The reference that is being typed at the end of a text, without its `@` or `{{`, and the names that fit; nothing elsewhere.

    `readable_of` gives what there is behind `@server:`.
    """
    line = before.rpartition("\n")[2]
    behind = _AT_SERVER.search(line)
    if behind is not None:
        return behind["name"], sorted(one for one in readable_of(behind["server"]) if one.startswith(behind["name"]))
    found = _AT_NAME.search(line)
    if found is None:
        opened = before.rfind("{{")
        if opened < 0 or "}}" in before[opened:]:
            return "", []
        found = _CHAIN.search(before, opened + 2)
    if found is None:
        return "", []
    return found["path"], _names(found["path"], namespace)


def _readable(line: str, server: str, known: Known) -> list[str]:
    """What can be read of a server, as far as it is known: to a process that the cell's line names, else to any."""
    for name in (*(word for word in line.split() if word in known.processes), *known.processes):
        process = known.of_process(name)
        if process is not None and process.servers is not None and server in process.servers.names:
            found = readable(process.servers.known(server))
            if found:
                return list(found)
    return []


def _names(path: str, namespace: Mapping[str, Any]) -> list[str]:
    base, dot, start = path.partition(".")
    if not dot:
        return sorted(name for name in namespace if name.startswith(base) and (base.startswith("_") or not name.startswith("_")))
    if base not in namespace:
        return []
    offered = (name for name in dir(namespace[base]) if name.startswith(start) and (start.startswith("_") or not name.startswith("_")))
    return [f"{base}.{name}" for name in offered]


# in a shell


def install(ip: InteractiveShell, known: Callable[[], Known]) -> Callable[[], None]:
    """Offer all this in a shell; gives what takes it back. `known` says what there is at that moment."""
    from IPython.core.completer import SimpleCompletion, context_matcher

    def result(fragment: str, offered: list[str]) -> SimpleMatcherResult:
        made = [SimpleCompletion(text=text, type=getattr(text, "words", "") or "llmproc") for text in offered]
        return {"completions": made, "matched_fragment": fragment, "suppress": bool(made)}

    @context_matcher(identifier="llmproc")
    def match(asked: CompletionContext) -> SimpleMatcherResult:
        lines = asked.full_text.split("\n")
        line = lines[asked.cursor_line]
        before = line[: asked.cursor_position]
        if asked.cursor_line and lines[0].lstrip().startswith(("%%agent", "%%fork")):
            text = "\n".join([*lines[1 : asked.cursor_line], before])
            return result(*complete_body(text, shown_names(ip), lambda server: _readable(lines[0], server, known())))
        if asked.cursor_line and lines[0].lstrip().startswith("%%sandbox") and not before.lstrip().startswith(("%", "!")):
            return result(*complete_code(lines[0], before, known()))
        if before.lstrip().startswith("%"):
            return result(*complete_word(line, asked.cursor_position, known()))
        return result("", [])

    completer = ip.Completer
    assert completer is not None
    completer.custom_matchers.append(match)

    def uninstall() -> None:
        if match in completer.custom_matchers:
            completer.custom_matchers.remove(match)

    return uninstall


def shown_names(ip: InteractiveShell) -> dict[str, Any]:
    """The names somebody made in this shell; not those it was born with."""
    hidden = ip.user_ns_hidden
    return {name: value for name, value in ip.user_ns.items() if name not in hidden or hidden[name] is not value}


def known_of(ip: InteractiveShell, notebook: Any, owners: Iterable[Any]) -> Known:
    """What a shell and its notebook have to offer now, to the magics of these owners."""
    machine = notebook.machine_if_made
    processes = machine.processes.values() if machine is not None else ()
    parsers: dict[str, argparse.ArgumentParser] = {}
    for owner in owners:  # not all of the shell's: it would load those that wait to be used
        for kind, marks in (("cell", "%%"), ("line", "%")):
            for name, function in getattr(owner, "magics", {}).get(kind, {}).items():
                parser = getattr(function, "parser", None)
                if isinstance(parser, argparse.ArgumentParser):
                    parsers[marks + name] = parser
    living = {process.name: process for process in processes if process.alive}
    newest = len(ip.user_ns.get("In", ()))
    return Known(
        namespace=shown_names(ip),
        processes=tuple(living),
        parsers=parsers,
        of_process=living.get,
        cells_of=lambda process: cells(process, newest),
        inside=lambda name: inside(machine, living.get(name) if name is not None else None, name is None),
    )
