"""`jupyter llmproc`: run, chat, check and log on the command line. Here: the commands and their flags, and what an exit code means.

Each command lives in the file of its name and is imported when it is asked for, so that `--help` loads no SDK, no driver and no core.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from math import isfinite
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias, cast

if TYPE_CHECKING:
    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]

EXIT_ERROR, EXIT_USAGE, EXIT_LIMIT, EXIT_INTERRUPTED, EXIT_PIPE = 1, 2, 3, 130, 141
FRAMES = ("events", "messages", "calls", "tools", "processes", "fds", "code")

_RUN_TEXT = """Run a program until the model stops by itself. The answer goes to stdout and nothing else does; tool
calls, retries, waits and warnings go to stderr. On a terminal the answer is shown while it is written,
and what could act on the terminal is made visible; a file or a pipe gets it unchanged, at the end.

The prompt is that of -p, of -f, what comes in on stdin, or the program's own, in this order."""
_RUN_MORE = """exit codes:
  0    the model stopped by itself
  1    an error: a program that does not load, an API that says no
  2    wrong flags, or no prompt
  3    a limit stopped it: steps, tokens, cost, time, or the length of one reply
  130  interrupted; what was said so far is printed

examples:
  jupyter llmproc run programs/quickstart.toml -p "Which of the columns look wrong?"
  git diff | jupyter llmproc run review.toml --append --cost-limit 0.10 > review.md
  jupyter llmproc run assistant.toml --model openai:gpt-5.4-mini -f question.txt --json | jq -r .text"""
_CHAT_TEXT = """Talk with a program in the terminal. Without PROGRAM, the example programs are listed to choose from.

The program's own prompt is asked first, then its demo prompts, one by one. Then it is your turn:
`exit` or `quit` ends, `reset` goes back to the beginning, `help` lists these words.
Ctrl-C stops an answer and keeps the chat, Ctrl-D ends it. Lines that come in by a pipe are asked in turn."""
_CHAT_MORE = """examples:
  jupyter llmproc chat
  jupyter llmproc chat quickstart
  jupyter llmproc chat programs/assistant.toml --model ollama:qwen3 --cost-limit 1"""
_CHECK_TEXT = """Say what is wrong or odd in program files, one remark a line: `file: [table] key: …`. Nothing is run,
no key is needed. In a folder, and in those below it, every .toml, .yaml and .yml file is checked that
has a table [model]."""
_CHECK_MORE = """exit codes: 0 there is no error, 1 there is one, 2 wrong flags

examples:
  jupyter llmproc check programs/
  jupyter llmproc check --quiet my-program.toml && jupyter llmproc run my-program.toml"""
_LOG_TEXT = """Show a log: who said and did what, one line each; or its frames, as the notebook has them.

FILE is a log, or a folder, of which the newest log is shown (that of the `.llmproc` in it included).
Without FILE it is the working folder."""
_LOG_MORE = """examples:
  jupyter llmproc log --tail 20
  jupyter llmproc log .llmproc/ --frame calls --csv > calls.csv
  jupyter llmproc log recordings/quickstart.jsonl --verify"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (default: that of this process) and give the exit code."""
    parsed = _parsed(arguments)
    sys.stdin, sys.stdout, sys.stderr = _open(sys.stdin, "r"), _open(sys.stdout, "w"), _open(sys.stderr, "w")
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="replace" if stream is sys.stdin else "backslashreplace")
    try:
        return _obey(parsed)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _give_up_stdout()
        return EXIT_PIPE


def _parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """A command line, read. What its command does not know is said with the usage of that command, and with the flag that is near."""
    parsed, unknown = parser().parse_known_args(arguments)
    if unknown:
        from llmproc_nb.core.errors import meant

        flags = [flag for action in parsed.parser._actions for flag in action.option_strings]
        near = next((right for word in unknown if word.startswith("-") and (right := meant(word.split("=")[0], flags))), "")
        parsed.parser.error(f"unrecognized arguments: {' '.join(unknown)}" + (f"; {near}" if near else ""))
    return parsed


def _open(stream: TextIO | None, mode: str) -> TextIO:
    """The stream, or one that leads nowhere in place of one that the caller closed."""
    return stream if stream is not None else cast(TextIO, open(os.devnull, mode, encoding="utf-8"))


def _give_up_stdout() -> None:
    """Let what is still to be written go nowhere: the interpreter flushes once more when it ends, and would complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _obey(parsed: argparse.Namespace) -> int:
    from llmproc_nb.cli.terminal import OutputError, Terminal, UsageError
    from llmproc_nb.core.errors import LlmprocError

    command = importlib.import_module(f"{__name__}.{parsed.command}")
    try:
        return int(command.command(parsed))
    except LlmprocError as error:
        Terminal().line(error.for_cell())
        if isinstance(error, OutputError):
            _give_up_stdout()
        return EXIT_USAGE if isinstance(error, UsageError) else EXIT_ERROR


def parser() -> argparse.ArgumentParser:
    """The commands and their flags."""
    top = argparse.ArgumentParser(
        prog="jupyter llmproc",
        description="Agents as processes: run a program, chat with it, check it, read its log.",
        epilog="`jupyter llmproc COMMAND --help` says more. Keys come from the environment or from the nearest .env file; "
        'programs with provider = "scripted" need none.',
        allow_abbrev=False,
    )
    top.add_argument("--version", action=Version, nargs=0, help="show the version and exit")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_run(_command(commands, "run", "run a program once, the answer to stdout", _RUN_TEXT, _RUN_MORE))
    _add_chat(_command(commands, "chat", "talk with a program in the terminal", _CHAT_TEXT, _CHAT_MORE))
    _add_check(_command(commands, "check", "say what is wrong in program files", _CHECK_TEXT, _CHECK_MORE))
    _add_log(_command(commands, "log", "show what a log holds", _LOG_TEXT, _LOG_MORE))
    return top


def _command(commands: Commands, name: str, short: str, text: str, more: str) -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    made = commands.add_parser(name, help=short, description=text, epilog=more, formatter_class=raw, allow_abbrev=False)
    made.set_defaults(parser=made)
    return made


class Version(argparse.Action):
    """Says which version is installed. It is looked up only then."""

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(version())
        parser.exit()


def version() -> str:
    """The name and the version of this package."""
    from importlib import metadata

    return f"llmproc-nb {metadata.version('llmproc-nb')}"


def _add_run(run: argparse.ArgumentParser) -> None:
    run.add_argument("program", metavar="PROGRAM", help="a program file: .toml, .yaml or .yml")
    source = run.add_mutually_exclusive_group()
    source.add_argument("-p", "--prompt", metavar="PROMPT", help="what to ask")
    source.add_argument("-f", "--prompt-file", metavar="FILE", help="a UTF-8 file with what to ask; - is stdin")
    run.add_argument("-a", "--append", action="store_true", help="ask the program's own user prompt, followed by the one given")
    run.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object instead: text, stop_reason, api_calls, tool_calls, usage, cost_usd (null where a "
        "price is not known), model, provider, scripted, process, log; an error is in `error`, which is null otherwise",
    )
    _add_how(run)


def _add_chat(chat: argparse.ArgumentParser) -> None:
    chat.add_argument("program", metavar="PROGRAM", nargs="?", help="a program file, or the name of an example program")
    chat.add_argument(
        "-p",
        "--prompt",
        metavar="PROMPT",
        nargs="?",
        const="",
        help="ask this first, in place of the program's own prompts; alone: ask none of them",
    )
    _add_how(chat)


def _add_how(command: argparse.ArgumentParser) -> None:
    """The flags that run and chat share."""
    command.add_argument("-q", "--quiet", action="store_true", help="say nothing on stderr but errors")
    command.add_argument(
        "--cost-limit", metavar="USD", type=_dollars, help="stop when this much is spent, in dollars; works for models whose price is known"
    )
    command.add_argument(
        "--max-steps", metavar="N", type=_count, help="the requests that one prompt may take (default: the program's, else 10)"
    )
    command.add_argument("--model", metavar="M", help="another model: its name, or provider:model as in openai:gpt-5.4-mini")
    command.add_argument("--base-url", metavar="URL", help="a compatible server (Ollama, vLLM, a gateway), with --model")
    command.add_argument(
        "--log",
        metavar="FILE",
        help="the file to write the log to, at its end; 0 for none (default: a new file in .llmproc/, or as "
        "LLMPROC_NB_LOG says: another folder, or 0)",
    )


def _add_check(check: argparse.ArgumentParser) -> None:
    check.add_argument("files", metavar="FILE", nargs="+", help="program files, or folders to search")
    check.add_argument("--json", action="store_true", help="print a JSON list, an object for each file: file, program, ok, errors, notes")
    check.add_argument("-q", "--quiet", action="store_true", help="print errors only")


def _add_log(log: argparse.ArgumentParser) -> None:
    log.add_argument("file", metavar="FILE", nargs="?", default=".", help="a log, or a folder with logs")
    log.add_argument("--frame", choices=FRAMES, help="show this frame of the log, as a table")
    form = log.add_mutually_exclusive_group()
    form.add_argument(
        "--json", action="store_true", help="one JSON object a line: the rows of the frame, or the events where none is named"
    )
    form.add_argument("--csv", action="store_true", help="the frame as CSV")
    log.add_argument("--tail", metavar="N", type=_count, help="the last N lines only")
    log.add_argument("--verify", action="store_true", help="compute the id of each message again; exit code 1 where one differs")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 up")
    return int(text)


def _dollars(text: str) -> float:
    try:
        value = float(text.removeprefix("$"))
    except ValueError:
        value = -1.0
    if not isfinite(value) or value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no amount in dollars above 0, such as 0.50")
    return value
