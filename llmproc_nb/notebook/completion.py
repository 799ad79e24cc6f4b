"""What Tab offers on a magic line and in the body of a `%%agent` cell.

Here: pure functions over what is known, and one matcher that joins them to a shell. Any other cell pays one look at its first characters.
"""

from __future__ import annotations

import argparse
import inspect
import re
import types
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from IPython.core.completer import CompletionContext, SimpleMatcherResult
    from IPython.core.interactiveshell import InteractiveShell

MAGICS = ("agent", "ps", "log", "replay", "kill", "wait")
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
FRAMES = ("calls", "events", "messages", "tools", "processes")
_LOGS = frozenset(("recording", "resume", "file", "log"))
_LOG_FOLDERS = (".", "recordings", "../recordings", ".llmproc")
_LOG_TYPES = (".jsonl",)
_PROGRAM_FOLDERS = (".", "programs", "../programs")
_PROGRAM_TYPES = (".toml", ".yaml", ".yml")
_SAME_MODELS = {"gemini": "google", "openai_chat": "openai", "openai_responses": "openai", "anthropic_vertex": "anthropic"}
_NO_MODELS = re.compile(r"^ft:|image|audio|realtime|transcribe|tts|whisper|embedding|moderation|davinci|babbage|curie|^ada$|instruct")
_LINE = re.compile(r"\s*(?P<marks>%%?)(?P<magic>[A-Za-z_]\w*)\s")
_AT_NAME = re.compile(r"(?:^|[\s(\[{\"'“‘«*,;:=>])@(?P<path>(?:[^\W\d]\w*)?(?:\.\w*)?)$")
_CHAIN = re.compile(r"(?<![\w.\])])(?P<path>(?:[^\W\d]\w*)?(?:\.\w*)?)$")


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What there is to offer. `parsers` are argparse parsers by magic (`%%agent`, or `agent` for both kinds); `folder` is where to look."""

    namespace: Mapping[str, Any] = {}
    processes: tuple[str, ...] = ()
    tools: tuple[str, ...] = ()
    parsers: Mapping[str, argparse.ArgumentParser] = {}
    folder: str = "."


def complete_line(line: str, cursor: int, known: Known) -> list[str]:
    """What fits at the cursor of a magic line, each as a replacement of the word (or the item of a list) before the cursor."""
    return complete_word(line, cursor, known)[1]


def complete_word(line: str, cursor: int, known: Known) -> tuple[str, list[str]]:
    """The piece of the line that is being completed, and what fits in its place."""
    before = line[:cursor]
    found = _LINE.match(before)
    if found is None or found["magic"] not in MAGICS:
        return "", []
    words = before[found.end() :].split(" ")
    word, earlier = words[-1], [word for word in words[:-1] if word]
    parser = known.parsers.get(found["marks"] + found["magic"]) or known.parsers.get(found["magic"])
    flag, joined, value = word.partition("=") if word.startswith("--") else ("", "", word)
    if joined:
        return _starting(value, _values(flag, _action(parser, flag), value, known))
    if word.startswith("-"):
        return word, [option for option in _options(parser, earlier) if option.startswith(word)]
    action = _action(parser, earlier[-1]) if earlier and earlier[-1].startswith("-") else None
    if action is not None and action.nargs != 0:
        return _starting(word, _values(earlier[-1], action, word, known))
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


def _values(flag: str, action: argparse.Action | None, word: str, known: Known) -> list[str]:
    """What may follow a flag: its own choices, or what its name says."""
    if action is not None and action.choices:
        return [str(choice) for choice in action.choices]
    name = action.dest if action is not None else flag.lstrip("-").replace("-", "_")
    if name == "tools":
        taken = set(word.split(",")[:-1])
        return [tool for tool in (*tool_names(known.namespace), *known.tools) if tool not in taken]
    offers: dict[str, Callable[[], list[str]]] = {
        "program": lambda: [*_programs(known.namespace), *files(known.folder, word, _PROGRAM_FOLDERS, _PROGRAM_TYPES)],
        "model": lambda: model_names(word),
        "mode": lambda: list(MODES),
        "provider": lambda: [*(endpoint.rstrip(":") for endpoint in _endpoints()), "scripted"],
        "frame": lambda: list(FRAMES),
    }
    if name in _LOGS:
        return files(known.folder, word, _LOG_FOLDERS, _LOG_TYPES)
    if name in ("name", "names", "process"):
        return list(known.processes)
    return offers[name]() if name in offers else []


def _positional(parser: argparse.ArgumentParser | None, earlier: list[str], word: str, known: Known) -> list[str]:
    """What stands without a flag: names of processes, frames, logs."""
    bare = _bare(parser, earlier)
    places = [action for action in (parser._actions if parser else ()) if not action.option_strings]
    many = bool(places) and places[-1].nargs in ("*", "+")
    if len(bare) >= len(places) and not many:
        return []
    action = places[min(len(bare), len(places) - 1)]
    return [offer for offer in _values("", action, word, known) if offer not in bare]


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
    return [*MODELS, *_endpoints(), *(_priced("anthropic") + _priced("openai") if len(word) > 2 else ())]


def _of_family(endpoint: str, names: Iterable[str]) -> list[str]:
    mark = {"anthropic": "claude", "openai": "gpt"}.get(_SAME_MODELS.get(endpoint, endpoint))
    return [name for name in names if mark and name.startswith(mark)]


def _endpoints() -> list[str]:
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


def _programs(namespace: Mapping[str, Any]) -> list[str]:
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


def complete_body(before: str, namespace: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The reference that is being typed at the end of a text, without its `@` or `{{`, and the names that fit; nothing elsewhere."""
    found = _AT_NAME.search(before.rpartition("\n")[2])
    if found is None:
        opened = before.rfind("{{")
        if opened < 0 or "}}" in before[opened:]:
            return "", []
        found = _CHAIN.search(before, opened + 2)
    if found is None:
        return "", []
    return found["path"], _names(found["path"], namespace)


def _names(path: str, namespace: Mapping[str, Any]) -> list[str]:
    base, dot, start = path.partition(".")
    if not dot:
        return sorted(name for name in namespace if name.startswith(base) and (base.startswith("_") or not name.startswith("_")))
    if base not in namespace:
        return []
    offered = (name for name in dir(namespace[base]) if name.startswith(start) and (start.startswith("_") or not name.startswith("_")))
    return [f"{base}.{name}" for name in offered]


# in a shell


def install(ip: InteractiveShell, notebook: Any = None) -> Callable[[], None]:
    """Offer all this in a shell; gives what takes it back. `notebook` says which processes there are, or is a Known as it is."""
    from IPython.core.completer import SimpleCompletion, context_matcher

    def result(fragment: str, offered: list[str]) -> SimpleMatcherResult:
        made = [SimpleCompletion(text=text, type="llmproc") for text in offered]
        return {"completions": made, "matched_fragment": fragment, "suppress": bool(made)}

    @context_matcher(identifier="llmproc")
    def match(asked: CompletionContext) -> SimpleMatcherResult:
        lines = asked.full_text.split("\n")
        line = lines[asked.cursor_line]
        before = line[: asked.cursor_position]
        if asked.cursor_line and lines[0].lstrip().startswith("%%agent"):
            text = "\n".join([*lines[1 : asked.cursor_line], before])
            return result(*complete_body(text, shown_names(ip)))
        if before.lstrip().startswith("%"):
            return result(*complete_word(line, asked.cursor_position, notebook if isinstance(notebook, Known) else known_of(ip, notebook)))
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


def known_of(ip: InteractiveShell, notebook: Any) -> Known:
    """What a shell and its notebook have to offer now."""
    machine = getattr(notebook, "machine_if_made", None)
    processes = machine.processes.values() if machine is not None else ()
    parsers: dict[str, argparse.ArgumentParser] = {}
    for kind, marks in (("cell", "%%"), ("line", "%")):
        for name, function in ip.magics_manager.magics[kind].items():
            parser = getattr(function, "parser", None)
            if name in MAGICS and isinstance(parser, argparse.ArgumentParser):
                parsers[marks + name] = parser
    living = tuple(dict.fromkeys(process.name for process in processes if process.alive))
    return Known(namespace=shown_names(ip), processes=living, parsers=parsers)
