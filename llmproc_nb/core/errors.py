"""Every error a person, a log or a model can meet, in one tree.

Here: the tree and the three faces of an error. Not here: the mapping of SDK errors (each driver) and their display (notebook).

    LlmprocError
    ├── PersonError           somebody typed something that cannot work; shown in one line, no traceback
    │   ├── ProgramError      a program file: place is file, table and key
    │   ├── PromptError       a name in a prompt that does not exist, a value that cannot be shown to a model
    │   └── ToolDeclarationError
    ├── ProviderError         a model API said no, or said nothing
    │   ├── AuthError · ModelNotFound · RequestRefused · ContextTooLong · QuotaExhausted      final
    │   └── RateLimited · Overloaded · ServerFailed · TimedOut · ConnectionLost (Unreachable) · GarbledReply   tried again
    ├── ToolError             a tool says so on purpose; its text goes to the model
    ├── AnswerError           an answer that does not follow its schema
    ├── ReplayMiss            a request that the recording does not have
    ├── LogError              the log cannot be written or read
    └── CallStateError        a process that was killed, a wait that would never end
        └── LimitReached      a limit of children, depth or access refuses a new process
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class LlmprocError(Exception):
    """`place: what was found; what would be right. Next step.` as one line."""

    def __init__(self, found: str, *, place: str = "", right: str = "", step: str = "") -> None:
        self.found, self.place, self.right, self.step = found, place, right, step
        super().__init__(str(self))

    def __str__(self) -> str:
        return _sentence(f"{self.place}: {self.found}" if self.place else self.found, self.right, self.step)

    def for_model(self) -> str:
        """What a model is told: the fault and what to try instead, without places of this machine."""
        return _sentence(self.found, self.right, self.step)

    def for_cell(self) -> str:
        """One line for a cell: the kind of error and its text."""
        return f"{type(self).__name__}: {' '.join(str(self).split())}"

    def _render_traceback_(self) -> list[str]:
        """What IPython shows of an error that says itself: one line instead of a traceback. The name is IPython's."""
        return [self.for_cell()]

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.__dict__)


def _sentence(found: str, right: str, step: str) -> str:
    line = f"{found.rstrip('.')}; {right}" if right else found
    line = line if line.endswith((".", "?", "!", "…")) else line + "."
    return f"{line} {step}" if step else line


def _rebuild(kind: type[LlmprocError], fields: dict[str, object]) -> LlmprocError:
    error = kind.__new__(kind)
    error.__dict__.update(fields)
    Exception.__init__(error, str(error))
    return error


def raised(error: BaseException) -> str:
    """What somebody else's code raised: its kind and its text, where it has one and can say it."""
    try:
        text = str(error)
    except Exception:  # it is foreign code as well
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def meant(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """What would be right in place of a word: the known one that is near to it, else something else."""
    near = difflib.get_close_matches(word, list(known), 1)
    return f"did you mean {near[0]!r}?" if near else otherwise


def kind_of(value: object) -> str:
    """What a value is, with its article: `an int`, `a dict`, `None`."""
    name = type(value).__name__
    return "None" if value is None else f"{'an' if name[:1].lower() in set('aeio') else 'a'} {name}"


class PersonError(LlmprocError):
    """Typed input that cannot work. Shown in one line, without a traceback."""


class ProgramError(PersonError):
    """A program that does not load, or asks for what is not there."""


class PromptError(PersonError):
    """A prompt whose values are missing or cannot be shown to a model. Raised before anything is sent."""


class ToolDeclarationError(PersonError):
    """A function that cannot be offered to a model as it is."""


class ToolError(LlmprocError):
    """Raise it in a tool to tell the model what went wrong, without a stack."""


class AnswerError(LlmprocError):
    """An answer that does not follow the schema it was asked for; it stays on the path."""


class ReplayMiss(LlmprocError):
    """A request that is not in the recording; says which message differs from the nearest one that is."""


class LogError(LlmprocError):
    """The log could not be written (the events are kept in memory and written first next time) or read."""


class CallStateError(LlmprocError):
    """A call on a process that cannot take it: killed, or waited for from where the wait would never end."""


class LimitReached(CallStateError):
    """A new process that a limit of children or depth, or an access level, does not allow."""


class ProviderError(LlmprocError):
    """What a model API answered instead of a reply. `status` is the HTTP status where there was one."""

    retryable = False

    def __init__(
        self,
        found: str,
        *,
        place: str = "",
        right: str = "",
        step: str = "",
        status: int | None = None,
        retry_after_s: float | None = None,
        request_id: str | None = None,
    ) -> None:
        self.status, self.retry_after_s, self.request_id = status, retry_after_s, request_id
        super().__init__(found, place=place, right=right, step=step)


class AuthError(ProviderError):
    """A key that is missing, wrong, or not allowed to do this (401, 403)."""


class ModelNotFound(ProviderError):
    """The API does not know this model (404)."""


class RequestRefused(ProviderError):
    """The API refuses this request as it is (400, 413, 422); sending it again would not help."""


class ContextTooLong(RequestRefused):
    """The dialog is longer than the model's window."""


class QuotaExhausted(ProviderError):
    """The account has no credit left; waiting would not help."""


class RateLimited(ProviderError):
    """Too many requests (429)."""

    retryable = True


class Overloaded(ProviderError):
    """The API has no room now (529, 503)."""

    retryable = True


class ServerFailed(ProviderError):
    """The API failed by itself (5xx, or an error event in the stream)."""

    retryable = True


class TimedOut(ProviderError):
    """No answer, or no next piece of it, within the time allowed."""

    retryable = True


class ConnectionLost(ProviderError):
    """No connection, or one that broke before the reply was whole."""

    retryable = True


class Unreachable(ConnectionLost):
    """No connection could be made at all: a wrong address, or a server that does not run."""


class GarbledReply(ProviderError):
    """An answer that is no reply: empty, HTML, broken events, or an end in the middle."""

    retryable = True
