"""The notebook's approver: asks by buttons below the answer where the front end shows them while the cell runs, else by a line of input.

Where neither is possible (no front end that takes input, a call in the background, a call that no agent cell waits for) the ask is
decided as for unattended runs. Not here: the rules (core's approval), what is said (spoken), the buttons themselves (askwidget).
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from IPython.display import DisplayHandle

from llmproc_nb.core.approval import ALWAYS, PERSON, Ask, Decision, InTurn, unanswered
from llmproc_nb.core.call import inside
from llmproc_nb.core.errors import LlmprocError
from llmproc_nb.core.visible import visible
from llmproc_nb.drivers import spoken
from llmproc_nb.notebook.fragment import code_html, frame_html, line_html
from llmproc_nb.notebook.maintools import MainLoopTools

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from llmproc_nb.core.loop import OnMain, Run

FIRST_SHOWN_S, SHOWN_S, POLL_S = 6.0, 30.0, 0.2
NO_CELL = "an %%agent cell that waits for its answer can ask"


class Place:
    """Where a person can be asked: a function that runs others on the main thread, and one display for all asks of a call."""

    def __init__(self, on_main: OnMain) -> None:
        self.on_main = on_main
        self._handle: DisplayHandle | None = None

    def show(self, data: dict[str, Any]) -> None:
        """Show a bundle; an empty one takes away what was there."""
        if self._handle is None and data:
            self._handle = DisplayHandle()
            self._handle.display(data, raw=True)
        elif self._handle is not None:
            self._handle.update(data, raw=True)


_place: ContextVar[Place | None] = ContextVar("place_of_asks", default=None)


@contextmanager
def asks_here(on_main: OnMain | None) -> Iterator[None]:
    """For the calls begun within: where a person can be asked. `on_main` runs a function on the main thread; None: nobody is there."""
    token = _place.set(None if on_main is None else Place(on_main))
    try:
        yield
    finally:
        _place.reset(token)


class NotebookApprover(InTurn):
    """The approver of a kernel or terminal shell; for `Machine(approver=…)`. `buttons` False: always by input."""

    def __init__(self, ip: InteractiveShell, *, buttons: Callable[[], bool] = lambda: True) -> None:
        super().__init__(self._ask)
        self._ip, self._buttons = ip, buttons
        self._shows: bool | None = None  # whether the front end has shown buttons; None: not tried yet

    async def _ask(self, ask: Ask, waiting: int) -> Decision:
        place, runs = _place.get(), inside.get()
        if place is None or not _goes_on(runs):
            return nobody(ask)
        if not self._takes_input():
            return unanswered(ask)
        shown = Shown(ask, waiting, place)
        try:
            if isinstance(place.on_main, MainLoopTools) and hasattr(self._ip, "kernel") and self._shows is not False and self._buttons():
                answer = await self._by_buttons(shown, place.on_main)
                if answer is not None:
                    return answer
            spoke: Decision = await _given(place.on_main(shown.converse))
            return spoke
        except _Over:
            return nobody(ask)
        finally:
            shown.end()

    def _takes_input(self) -> bool:
        """Whether the front end of the cell that runs takes input: those without a person (nbclient, nbval) say that they do not."""
        kernel = getattr(self._ip, "kernel", None)
        if kernel is not None:
            return bool(getattr(kernel, "_allow_stdin", False))
        return sys.stdin is not None and sys.stdin.isatty()

    async def _by_buttons(self, shown: Shown, on_main: OnMain) -> Decision | None:
        """What the person clicked; None where the front end does not show buttons."""
        try:
            await _given(on_main(shown.with_buttons))
        except ImportError:
            self._shows = False
            return None
        first = self._shows is None
        try:
            await asyncio.wait_for(asyncio.wrap_future(shown.seen), FIRST_SHOWN_S if first else SHOWN_S)
        except TimeoutError:
            self._shows = False if first else self._shows
            return None
        self._shows = True
        clicked: Decision = await _given(shown.answer)
        return clicked


class _Over(Exception):
    """The cell's call has ended, so nobody looks at what a child asks that it left in the background."""


def _goes_on(runs: tuple[Run, ...]) -> bool:
    """Whether the call that the cell waits for still runs."""
    return not runs or runs[0].process.running is runs[0]


async def _given(future: Future[Any]) -> Any:
    """What comes of a future as long as the cell's call runs. Raises _Over."""
    waiting, runs = asyncio.wrap_future(future), inside.get()
    try:
        while not waiting.done():
            await asyncio.wait({waiting}, timeout=POLL_S)
            if not waiting.done() and not _goes_on(runs):
                raise _Over
        return waiting.result()
    finally:
        waiting.cancel()


def nobody(ask: Ask) -> Decision:
    """The decision on a call that no cell waits for."""
    made = unanswered(ask)
    return made if made.allowed else Decision(allowed=False, by=made.by, reason=NO_CELL)


class Shown:
    """One ask on display in its cell. Once it is answered or over, nothing of it stays: the turn itself says what was decided."""

    def __init__(self, ask: Ask, waiting: int, place: Place) -> None:
        self.ask, self.waiting, self.place = ask, waiting, place
        self.seen: Future[None] = Future()
        self.answer: Future[Decision] = Future()
        self._widget: Any = None

    def with_buttons(self) -> None:
        """Show the ask with buttons. On the main thread."""
        from llmproc_nb.notebook.askwidget import AskWidget

        more = f"{self.waiting} more {'call waits' if self.waiting == 1 else 'calls wait'} for an answer" if self.waiting else ""
        widget = self._widget = AskWidget(
            title=spoken.title(self.ask),
            description=visible(self.ask.description[:2000]),
            arguments=spoken.arguments_text(self.ask),
            json=spoken.arguments_json(self.ask),
            waiting=more,
            once=self.ask.once,
        )
        widget.on_msg(self._heard)
        view = widget._repr_mimebundle_()
        data = view[0] if isinstance(view, tuple) else view
        self.place.show({**data, **static_bundle(self.ask)})

    def _heard(self, widget: Any, content: Any, buffers: Any) -> None:
        """What the buttons send. On the main thread, while the cell waits."""
        kind, text = (content.get("kind"), str(content.get("text") or "")) if isinstance(content, dict) else (None, "")
        if kind == "shown":
            _settle(self.seen, None)
        elif kind == "allow":
            _settle(self.answer, Decision(allowed=True, by=PERSON))
        elif kind == "always":
            _settle(self.answer, Decision(allowed=True, by=PERSON, reason=ALWAYS))
        elif kind == "refuse":
            _settle(self.answer, spoken.refused(text))
        elif kind == "edit":
            try:
                _settle(self.answer, spoken.changed(self.ask, text))
            except LlmprocError as error:
                widget.send({"text": visible(error.for_model())})

    def converse(self) -> Decision:
        """Show the ask and read the answer as lines of input. On the main thread, which waits. Raises KeyboardInterrupt."""
        self._close_widget()
        self.place.show(static_bundle(self.ask))
        return spoken.converse(self.ask, _read, print)

    def _close_widget(self) -> None:
        if self._widget is not None:
            self._widget.close()
            self._widget = None

    def end(self) -> None:
        """Take the ask off the display."""
        self.place.show({})
        self._close_widget()


def _settle(future: Future[Any], value: Any) -> None:
    if not future.done():  # a second click, or one that came when nobody waited any more
        future.set_result(value)


def _read(sign: str) -> str | None:
    with suppress(EOFError, RuntimeError):  # no more input, or none at all: the cell has ended
        return input(sign)
    return None


def static_bundle(ask: Ask) -> dict[str, Any]:
    """An ask as text and HTML, for front ends without widgets and for notebooks saved in the middle of it."""
    title, arguments = spoken.title(ask), spoken.arguments_text(ask)
    html = frame_html(line_html(title, strong=True), code_html(arguments, spoken.MAX_SHOWN_CHARS * 2))
    return {"text/plain": f"{title}\n  " + arguments.replace("\n", "\n  "), "text/html": html}
