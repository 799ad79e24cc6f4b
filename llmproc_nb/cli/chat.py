"""`jupyter llmproc chat`: a conversation in the terminal."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from llmproc_nb.api import Program
from llmproc_nb.cli.example import SUFFIXES, Example, examples
from llmproc_nb.cli.start import Started, how_it_ended, spent, started, who
from llmproc_nb.cli.terminal import Terminal, UsageError, shortened
from llmproc_nb.cli.typed import Typed
from llmproc_nb.core.errors import LlmprocError
from llmproc_nb.core.message import clean

WORDS = {
    "help": "lists these words",
    "reset": "goes back to the beginning; what was said stays in the log",
    "exit, quit": "end the chat, as Ctrl-D does",
}


class Ended(Exception):
    """The person has had enough."""


def command(flags: Namespace) -> int:
    """Chat until the person ends it; gives the exit code."""
    terminal, typed = Terminal(quiet=flags.quiet), Typed()
    program = Program.from_file(_program_file(flags.program, terminal, typed))
    with started(flags, program, terminal, results=False, typed=typed) as begun:
        _greet(begun)
        try:
            _begin(flags, program, begun, typed)
            while True:
                _obey(begun, _line(begun, typed, "> "))
        except Ended:
            pass
        finally:
            where = f", log {begun.log}" if begun.log else ""
            terminal.note(f"{begun.process.name}: {spent(begun.process.usage)}{where}")
    return 0


def _program_file(given: str | None, terminal: Terminal, typed: Typed) -> Path:
    """The program's file: as given, by the name of an example, or chosen from the list of examples."""
    if given is not None and (Path(given).exists() or given.endswith(SUFFIXES)):
        return Path(given)
    offered = examples()
    if given is not None:
        return _chosen(given, offered).path
    if not offered:
        raise UsageError("no program is given, and there are no examples here", right="jupyter llmproc chat PROGRAM")
    for number, example in enumerate(offered, 1):
        terminal.line(f"{number:>3}  {shortened(example.title, 24):<24}  {example.path.name:<24}  {shortened(example.about, 90)}")
    while True:
        answer = typed.line("program (number or name)> ")
        if answer is None or answer.strip().lower() in ("exit", "quit"):
            raise UsageError("no program was chosen", right="jupyter llmproc chat PROGRAM")
        try:
            return _chosen(answer.strip(), offered).path
        except UsageError as error:
            if not typed.terminal:
                raise
            terminal.line(str(error))


def _chosen(answer: str, offered: list[Example]) -> Example:
    if answer.isdecimal() and 1 <= int(answer) <= len(offered):
        return offered[int(answer) - 1]
    found = [example for example in offered if example.is_called(answer)]
    if found:
        return found[0]
    names = ", ".join(example.path.stem for example in offered)
    raise UsageError(f"there is no program {answer!r}", right=f"a file, or one of the examples: {names or 'there are none here'}")


def _greet(begun: Started) -> None:
    terminal, process = begun.terminal, begun.process
    terminal.note(who(process))
    if process.provider.scripted:
        terminal.loud("scripted: no model answers here, a script does")
    terminal.note("`help` lists the words, Ctrl-C stops an answer, Ctrl-D ends")


def _begin(flags: Namespace, program: Program, begun: Started, typed: Typed) -> None:
    """Ask what comes before it is the person's turn: the prompt of -p, or else those of the program."""
    if flags.prompt is not None:
        if flags.prompt.strip():
            _ask(begun, flags.prompt)
        return
    if program.user and program.user.strip():
        begun.terminal.note(f"the program asks: {shortened(program.user, 200)}")
        _ask(begun, program.user)
    for number, prompt in enumerate(program.demo_prompts, 1):
        say = begun.terminal.line if typed.terminal else begun.terminal.note
        say(f"demo {number} of {len(program.demo_prompts)}: {shortened(prompt, 200)}")
        if typed.terminal and program.demo_pause and not _wanted(typed):
            return
        _ask(begun, prompt)


def _wanted(typed: Typed) -> bool:
    """Whether the person wants the next prompt of the demo asked. Raises Ended."""
    try:
        answer = typed.line("Enter asks it, `skip` leaves the demo> ")
    except KeyboardInterrupt:
        return False
    if answer is None or answer.strip().lower() in ("exit", "quit"):
        raise Ended
    return not answer.strip()


def _line(begun: Started, typed: Typed, sign: str) -> str:
    """The next line that says something. Raises Ended at the end of the input."""
    while True:
        try:
            line = typed.line(sign)
        except KeyboardInterrupt:
            if not typed.terminal:
                raise
            begun.terminal.line("Ctrl-D or `exit` ends the chat")
            continue
        if line is None:
            raise Ended
        if line.strip():
            return clean(line)


def _obey(begun: Started, line: str) -> None:
    word = line.strip().lower()
    if word in ("exit", "quit"):
        raise Ended
    if word == "reset":
        begun.process.reset_state()
        begun.terminal.line("back at the beginning")
    elif word == "help":
        for name, meaning in WORDS.items():
            begun.terminal.line(f"{name:<12}{meaning}")
    else:
        _ask(begun, line)


def _ask(begun: Started, prompt: str) -> None:
    """Ask, and show the answer; what goes wrong is said in a line, and the chat goes on."""
    terminal = begun.terminal
    try:
        result = begun.ask(prompt)
    except LlmprocError as error:
        terminal.line(error.for_cell())
        return
    if not terminal.live:
        terminal.text(result.text)
    ended = how_it_ended(result)
    if ended:
        terminal.line(ended)
