"""What can be offered for a flag's value: programs, models, providers, tools, logs.

Here: finding them. Not here: where the cursor is and what may stand there (completion).
"""

from __future__ import annotations

import inspect
import re
import types
from collections.abc import Iterable, Mapping
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmproc_nb.core.address import turns
from llmproc_nb.core.label import label
from llmproc_nb.core.visible import one_line
from llmproc_nb.notebook.tree import first_words

if TYPE_CHECKING:
    from llmproc_nb.core.dialog import Node
    from llmproc_nb.core.machine import Machine
    from llmproc_nb.core.process import Process

MODES = ("live", "record", "replay", "auto")
ENDPOINTS = ("anthropic:", "openai:", "ollama:", "openrouter:", "gemini:")
MODELS = (
    "claude-opus-5-5",
    "claude-sonnet-5-5",
    "claude-haiku-5-5",
    "claude-fable-5-2",
    "claude-sonnet-4-6",
    "claude-haiku-4-5",
    "gpt-6.1-sol",
    "gpt-6-sol",
    "gpt-6-luna",
    "gpt-5.5",
    "gpt-5-mini",
    "gpt-5-nano",
)
WAIT_S = 0.3
MOST_ADDRESSES, MOST_CELLS, FIRST_CHARS, OFFER_CHARS, ID_CHARS = 200, 50, 40, 80, 7
DATA_TYPES = (".csv", ".tsv", ".parquet", ".json", ".jsonl", ".txt", ".xlsx", ".py")
SANDBOX = ("show", "status", "push", "pull", "files", "restart", "notebook")
FRAMES = ("calls", "events", "messages", "tools", "processes", "fds", "code", "seen")
LOGS = frozenset(("recording", "resume", "file", "log"))
LOG_FOLDERS = (".", "recordings", "../recordings", ".llmproc")
LOG_TYPES = (".jsonl",)
PROGRAM_FOLDERS = (".", "programs", "../programs")
PROGRAM_TYPES = (".toml", ".yaml", ".yml")
_SAME_MODELS = {"gemini": "google", "openai_chat": "openai", "openai_responses": "openai", "anthropic_vertex": "anthropic"}
_WORD = re.compile(r"[\w/]\S*")
_NO_MODELS = re.compile(r"^ft:|image|audio|realtime|transcribe|tts|whisper|embedding|moderation|davinci|babbage|curie|^ada$|instruct")


def files(folder: str, word: str, places: Iterable[str], types: tuple[str, ...]) -> list[str]:
    """Files of these types in the usual places below a folder, or where the word leads; folders end in a slash."""
    typed = word.rpartition("/")[0]
    made: list[str] = []
    for place in [typed] if typed else places:
        start = "" if place == "." else f"{place}/"
        try:
            entries = sorted((Path(folder) / place).iterdir())[:500]
        except OSError:
            continue
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "pyproject.toml":
                continue
            if entry.suffix in types and entry.is_file():
                made.append(start + entry.name)
            elif typed and entry.is_dir():
                made.append(f"{start}{entry.name}/")
    return made


def model_names(word: str = "") -> list[str]:
    """Names of models, current ones first; all that have a known price once something is typed."""
    endpoint, colon, _ = word.partition(":")
    if colon:
        return [f"{endpoint}:{name}" for name in (*_of_family(endpoint, MODELS), *_priced(endpoint))]
    return [*MODELS, *endpoints(), *(_priced("anthropic") + _priced("openai") if len(word) > 2 else ())]


def _of_family(endpoint: str, names: Iterable[str]) -> list[str]:
    mark = {"anthropic": "claude", "openai": "gpt"}.get(_SAME_MODELS.get(endpoint, endpoint))
    return [name for name in names if mark and name.startswith(mark)]


def endpoints() -> list[str]:
    from llmproc_nb.drivers.endpoints import ENDPOINTS as named

    return [*ENDPOINTS, *(f"{name}:" for name in named if f"{name}:" not in ENDPOINTS)]


@lru_cache(maxsize=8)
def _priced(endpoint: str) -> tuple[str, ...]:
    """The models of an endpoint that the price list knows, newest names first; empty where there is no list."""
    try:
        from genai_prices.data import providers
    except ImportError:
        return ()
    wanted = _SAME_MODELS.get(endpoint, endpoint)
    names = {model.id for provider in providers if provider.id == wanted for model in provider.models}
    return tuple(sorted((name for name in names if not _NO_MODELS.search(name)), reverse=True))


class Named(str):
    """An offer, with words that say what it is beside it."""

    words: str

    def __new__(cls, text: str, words: str) -> Named:
        made = super().__new__(cls, text)
        made.words = words
        return made


def addresses(process: Process) -> list[str]:
    """The messages a process can go to, newest first, with their first words: those on its path, then those on branches it left."""
    on_path = {node.id for node in process.path}
    found = [(number, node) for number, node in islice(process.labels.newest_first(), MOST_ADDRESSES) if node.message.role != "tool"]
    found.sort(key=lambda one: one[1].id not in on_path)
    return [Named(label(number), f"{_whose(node, on_path)}: {one_line(node.message.text, FIRST_CHARS)}") for number, node in found]


def node_ids(process: Process, word: str) -> list[str]:
    """The nodes a process was on whose ids begin so, newest first, each by as many characters as name it alone."""
    on_path = {node.id for node in process.path}
    known = {node.id: node for node in (*(node for _, node in process.labels.newest_first()), *reversed(process.path))}
    found = islice((node for key, node in known.items() if key.startswith(word)), MOST_ADDRESSES)
    alike = [node.id for node in process.machine.dialog if node.id.startswith(word)]
    return [Named(_short(node.id, word, alike), f"{_whose(node, on_path)}: {first_words(node.message, FIRST_CHARS)}") for node in found]


def _short(key: str, word: str, alike: list[str]) -> str:
    """So much of an id that no other one begins like it."""
    lengths = range(max(ID_CHARS, len(word)), len(key))
    return next((key[:length] for length in lengths if sum(other.startswith(key[:length]) for other in alike) == 1), key)


def _whose(node: Node, on_path: set[str]) -> str:
    """Who said it, and whether the process stands somewhere else by now."""
    return node.message.role if node.id in on_path else f"{node.message.role}, left"


def turns_back(process: Process) -> list[str]:
    """`~1`, `~2` …, with the words that began each turn."""
    starts = islice(reversed(turns(process)), MOST_ADDRESSES)
    return [Named(f"~{number}", f"before: {one_line(node.message.text, FIRST_CHARS)}") for number, node in enumerate(starts, 1)]


def cells(process: Process, newest: int) -> list[str]:
    """`cell:7`, `cell:5` …: the cells up to a number after which the process stood somewhere, newest first."""
    ends = ((number, process.machine.find_cell(process, str(number))) for number in range(newest, max(0, newest - MOST_CELLS), -1))
    return [Named(f"cell:{number}", f"after it: {one_line(node.message.text, FIRST_CHARS)}") for number, node in ends if node is not None]


def fds(process: Process) -> list[str]:
    """The fds of a process, with what they are."""
    return [Named(str(fd.number), one_line(fd.label, FIRST_CHARS)) for fd in process.fds]


def readable(known: Iterable[Any]) -> list[Named]:
    """The resources and prompts of a server, each by a name that can stand in a text, with what it is; of a template what comes first."""
    made = []
    for one in known:
        kind = "resource" if hasattr(one, "uri") else f"prompt, needs {', '.join(one.required)}" if one.required else "prompt"
        words = f"{kind}: {one.description}" if one.description else kind
        if kind == "resource" and one.template:
            made.append(Named(one.uri.partition("{")[0], f"resource: {one.uri}"))
            continue
        fit = [name for name in (one.name, getattr(one, "uri", "")) if _WORD.fullmatch(name)]
        made += [Named(name, one_line(words, OFFER_CHARS)) for name in fit[:1]]
    return made


def inside(machine: Machine | None, process: Process | None, any_process: bool = False) -> list[str]:
    """The variables in the sandbox of a process, or of the only one that has a sandbox. It starts nothing, and waits for a moment only."""
    if process is None and any_process and machine is not None:
        pids = {pid for family in machine.families.values() for pid in family.sandboxes}
        having = [one for pid in pids if (one := machine.processes.get(pid)) is not None and one.alive]
        process = having[0] if len(having) == 1 else None
    return [name for name in process.sandbox.names(WAIT_S) if name.isidentifier()] if process is not None else []


def programs(namespace: Mapping[str, Any]) -> list[str]:
    return [name for name, value in namespace.items() if not name.startswith("_") and type(value).__name__ == "Program"]


def tool_names(namespace: Mapping[str, Any]) -> list[str]:
    """The functions somebody wrote in the notebook; not private, not imported."""
    return sorted(name for name, value in namespace.items() if not name.startswith("_") and _is_own_function(value))


def _is_own_function(value: Any) -> bool:
    if isinstance(value, type | types.ModuleType | types.BuiltinFunctionType | types.MethodType):
        return False
    if type(value).__name__ == "Tool" and hasattr(value, "spec"):
        return True
    function = inspect.unwrap(value) if isinstance(value, types.FunctionType) else None
    return function is not None and function.__module__ == "__main__"
