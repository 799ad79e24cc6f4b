"""The line of a magic, read: what all magics share, and the flags that choose a program."""

from __future__ import annotations

import difflib
import re
import shlex
from typing import Any

import msgspec
from IPython.core.error import UsageError
from IPython.core.magic_arguments import MagicArgumentParser, argument, construct_parser

from llmproc_nb.choose import Choice
from llmproc_nb.core.errors import PersonError

_WORD = re.compile(r"""\s*("[^"]*"(?!\S)|'[^']*'(?!\S)|\S+)""")
_FLAG = re.compile(r"--?[A-Za-z]")
_REST = "…"


class CellFlags(msgspec.Struct, frozen=True, kw_only=True):
    """The line of a `%%agent` cell, read."""

    name: str
    choice: Choice
    tools: tuple[str, ...] = ()
    bg: bool = False
    dry_run: bool = False
    max_steps: int | None = None


def cell_flags(args: Any) -> CellFlags:
    """The flags of a `%%agent` cell from its parsed line. Its --max-steps holds for its own call: it chooses no program."""
    return CellFlags(
        name=args.name,
        choice=msgspec.structs.replace(choice_of(args), max_steps=None),
        tools=tuple(name for word in (args.tools or "").split(",") if (name := word.strip())),
        bg=args.bg,
        dry_run=args.dry_run,
        max_steps=args.max_steps,
    )


def choices(function: Any) -> Any:
    """The flags that choose a program, the same wherever one is chosen."""
    for decorate in (
        argument("--max-steps", type=int, metavar="N", help="how many requests a call may make (default: the program's, or 10)"),
        argument("-s", "--system", metavar="TEXT", help="the system prompt"),
        argument("--base-url", metavar="URL", help="a compatible server (Ollama, vLLM, a gateway)"),
        argument("--provider", metavar="NAME", help="the provider, where the model's name does not say it"),
        argument("-m", "--model", metavar="MODEL", help="a model, as in claude-sonnet-5-5, openai:gpt-5.5 or ollama:llama3.2"),
        argument("-p", "--program", metavar="FILE", help="a program file (.toml, .yaml), or the name of a Program in this notebook"),
    ):
        function = decorate(function)
    return function


def parse(magic: Any, line: str) -> Any:
    """The arguments of a magic's line. Raises PersonError with what is right."""
    parser = parser_of(magic)
    name = ("%%" if magic.__name__.endswith("_cell") else "%") + parser.prog.lstrip("%")
    step = f"See `{name}?`."
    try:
        return parser.parse_intermixed_args(_words(shlex.split(line)))  # flags may stand between the words
    except ValueError as error:
        raise PersonError(str(error), place=name, right="quotes come in pairs", step=step) from None
    except UsageError as error:
        flags = [flag for action in parser._actions for flag in action.option_strings]
        wrong = next((word for word in line.split() if word.startswith("-") and word.split("=")[0] not in flags), "")
        near = difflib.get_close_matches(wrong, flags, 1)
        raise PersonError(
            _without_optional(parser, str(error)), place=name, right=f"did you mean {near[0]}?" if near else "", step=step
        ) from None


def parse_with_text(magic: Any, line: str, words: int) -> Any:
    """As parse, of a line that ends in words for a model: what follows so many words is the last one, as it was typed.

    Flags (none of which takes a value) and a comment are read up to there.
    """
    actions = parser_of(magic)._actions
    head, rest = _split(line, words, flags=any(action.option_strings for action in actions))
    args = parse(magic, f"{head} {_REST}" if rest else head)
    if rest:
        last = [action.dest for action in actions if not action.option_strings][-1]
        getattr(args, last)[-1] = rest
    return args


def _split(line: str, words: int, *, flags: bool) -> tuple[str, str]:
    """So many words of a line with the flags before, among and right after them, and the rest; nothing is left of a comment."""
    end = 0
    while found := _WORD.match(line, end):
        if found[1] == "#":
            return line[:end], ""
        if not (flags and _FLAG.match(found[1])):
            if words == 0:
                break
            words -= 1
        end = found.end()
    return line[:end], line[end:].strip()


def _without_optional(parser: MagicArgumentParser, words: str) -> str:
    """argparse's complaint of what is missing, without the places that may stay empty: it names them too."""
    said, colon, missing = words.partition("are required: ")
    optional = {str(action.metavar or action.dest) for action in parser._actions if action.nargs in ("*", "?")}
    return said + colon + ", ".join(name for name in missing.split(", ") if name not in optional) if colon else words


def _words(words: list[str]) -> list[str]:
    """The words up to a `#` that begins a comment, with the names after --tools in one word: people write `--tools a, b` as well."""
    made: list[str] = []
    listing = False
    for word in words[: words.index("#")] if "#" in words else words:
        if listing and (made[-1].endswith(",") or word.startswith(",")):
            made[-1] += word
            continue
        listing = word.startswith("--tools=") or bool(made and made[-1] in ("-t", "--tools"))
        made.append(word)
    return made


def parser_of(magic: Any) -> MagicArgumentParser:
    """The argparse parser of a magic."""
    function = getattr(magic, "__func__", magic)
    found = getattr(function, "parser", None)
    return found if found is not None else construct_parser(function)


def choice_of(args: Any) -> Choice:
    if args.max_steps is not None and args.max_steps < 1:
        raise PersonError(f"--max-steps {args.max_steps}", right="at least one request is needed")
    return Choice(
        program=args.program, model=args.model, provider=args.provider, base_url=args.base_url, system=args.system, max_steps=args.max_steps
    )
