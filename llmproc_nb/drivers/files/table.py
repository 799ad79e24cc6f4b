"""One table of a program file, read key by key: each reading says which type it wants, and what is wrong is collected with its place.

Here: types, places, suggestions. Not here: which keys there are and what they mean (sections).
"""

from __future__ import annotations

import datetime
import difflib
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

from llmproc_nb.core.errors import ProgramError, kind_of
from llmproc_nb.core.program import Note
from llmproc_nb.drivers.files.words import HOMES, SECRETS

MAX_DEPTH = 60
MAX_NODES = 20_000


def closest(word: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known word that was most likely meant."""
    by_lower = {name.lower(): name for name in known}
    found = difflib.get_close_matches(word.lower().replace("-", "_"), by_lower, n=1, cutoff=cutoff)
    return by_lower[found[0]] if found else None


def meant(word: str, known: Iterable[str]) -> str:
    """`Did you mean …?`, or nothing."""
    match = closest(word, known)
    return f"Did you mean {match!r}?" if match else ""


class Findings:
    """What reading one file brings to light: errors and notes, each with its place."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.errors: list[ProgramError] = []
        self.notes: list[Note] = []

    def of(self, name: str) -> Findings:
        """The same findings, for a file that this one names."""
        other = Findings(f"{self.file} → {name}")
        other.errors, other.notes = self.errors, self.notes
        return other

    def error(self, where: str, found: str, *, right: str = "", step: str = "") -> None:
        self.errors.append(ProgramError(found, place=f"{self.file}: {where}" if where else self.file, right=right, step=step))

    def note(self, kind: Literal["unknown", "superseded", "unserved", "missing"], where: str, text: str) -> None:
        self.notes.append(Note(kind=kind, place=f"{self.file}: {where}" if where else self.file, text=text))

    @staticmethod
    def describe(value: Any) -> str:
        """A value in few words; texts are cut."""
        if value is None:
            return "nothing"
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, int | float):
            digits = repr(value) if isinstance(value, float) or abs(value) < 10**20 else "a very long one"
            return f"the number {digits}"
        if isinstance(value, str):
            return f"the text {value if len(value) <= 40 else value[:40] + '…'!r}"
        if isinstance(value, datetime.date | datetime.time):
            return "a date or time"
        if isinstance(value, Mapping):
            return "a table"
        return "a list" if isinstance(value, Sequence) else kind_of(value)


class Table:
    """A table and where it stands. Reading a key makes it known; `finish` notes every key that nobody asked for."""

    def __init__(self, data: Mapping[Any, Any], name: str, findings: Findings) -> None:
        self.data, self.name, self.findings = data, name, findings
        self.asked: dict[str, None] = {}

    def where(self, key: str) -> str:
        return f"[{self.name}] {key}" if self.name else key

    def __contains__(self, key: str) -> bool:
        return self.data.get(key) is not None

    def error(self, key: str, found: str, *, right: str = "", step: str = "") -> None:
        self.findings.error(self.where(key), found, right=right, step=step)

    def note(self, kind: Literal["unknown", "superseded", "unserved", "missing"], key: str, text: str) -> None:
        self.findings.note(kind, self.where(key), text)

    def wrong(self, key: str, value: Any, right: str, step: str | None = None, *, secret: bool = False) -> None:
        """An error for a value of a wrong type, with the usual step where none is given; `secret` values are not shown."""
        if step is None and isinstance(value, bool):
            step = "In YAML, yes, no, on and off are read as true and false; put a text in quotes."
        elif step is None and isinstance(value, datetime.date | datetime.time | int | float) and "text" in right:
            step = "Put it in quotes."
        found = f"found {'a text' if secret and isinstance(value, str) else self.findings.describe(value)}"
        self.error(key, found, right=right, step=step or "")

    def take(self, key: str) -> Any:
        """The value as it is, or None."""
        self.asked[key] = None
        return self.data.get(key)

    def text(self, key: str, *, secret: bool = False) -> str | None:
        value = self.take(key)
        return None if value is None else self._as_text(key, value, secret=secret)

    def _as_text(self, key: str, value: Any, *, secret: bool = False) -> str | None:
        if not isinstance(value, str):
            self.wrong(key, value, "a text is needed", secret=secret)
            return None
        if any("\ud800" <= char <= "\udfff" for char in value):
            self.error(key, "the text holds half a character (a lone surrogate)", right="texts are Unicode")
            return None
        return value

    def choice(self, key: str, known: Sequence[str]) -> str | None:
        value = self.text(key)
        if value is None or value.lower() in known:
            return value and value.lower()
        self.error(key, f"found {self.findings.describe(value)}", right=f"it is one of {', '.join(known)}", step=meant(value, known))
        return None

    def flag(self, key: str, default: bool) -> bool:
        value = self.take(key)
        if value is None or isinstance(value, bool):
            return default if value is None else value
        step = f"Write {value.lower()} without quotes." if isinstance(value, str) and value.lower() in ("true", "false") else None
        self.wrong(key, value, "true or false is needed", step)
        return default

    def integer(self, key: str, *, least: int = 0) -> int | None:
        value = self.take(key)
        if value is None:
            return None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            self.wrong(key, value, f"a whole number from {least} up is needed", _unquoted(value))
            return None
        if not least <= value < 2**63:
            self.error(key, f"found {self.findings.describe(value)}", right=f"a whole number from {least} up is needed")
            return None
        return value

    def number(self, key: str, *, least: float = 0, most: float = math.inf) -> float | None:
        value = self.take(key)
        if value is None:
            return None
        bounds = f"from {least:g} up" if most == math.inf else f"from {least:g} to {most:g}"
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.wrong(key, value, f"a number {bounds} is needed", _unquoted(value))
            return None
        if not least <= value <= most or value in (math.inf, -math.inf) or abs(value) > 1e300:
            self.error(key, f"found {self.findings.describe(value)}", right=f"a number {bounds} is needed")
            return None
        return float(value)

    def seconds(self, key: str) -> float | None:
        """A time that passes, in seconds."""
        value = self.take(key)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e300:
            self.wrong(key, value, "a number of seconds, more than 0, is needed", _unquoted(value))
            return None
        return float(value)

    def items(self, key: str) -> list[tuple[str, Any]]:
        """The values of a list with their places (`key[2]`, from 1); one text stands for a list of one, null for none."""
        value = self.take(key)
        if value is None:
            return []
        if isinstance(value, str):
            return [(key, value)]
        if isinstance(value, list | tuple):
            return [(f"{key}[{place}]", item) for place, item in enumerate(value, 1)]
        self.wrong(key, value, "a list is needed")
        return []

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of texts; one text stands for a list of one."""
        found = [self._as_text(place, item) for place, item in self.items(key)]
        return tuple(item for item in found if item is not None)

    def text_map(self, key: str, *, secret: bool = False) -> dict[str, str]:
        """A table of texts; numbers become texts."""
        table = self.table(key)
        if table is None:
            return {}
        found = {}
        for name in table.names():
            value = table.take(name)
            if isinstance(value, int | float) and not isinstance(value, bool):
                value = str(value)
            text = None if value is None else table._as_text(name, value, secret=secret)
            if text is not None:
                found[name] = text
        return found

    def table(self, key: str) -> Table | None:
        """The table under a key; None where there is none (or null)."""
        value = self.take(key)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            several = isinstance(value, list) and value and all(isinstance(item, Mapping) for item in value)
            self.wrong(key, value, "a table is needed", "Write it with single brackets." if several else None)
            return None
        return self.below(key, value)

    def below(self, key: str, value: Mapping[Any, Any]) -> Table:
        return Table(value, f"{self.name}.{key}" if self.name else key, self.findings)

    def names(self) -> list[str]:
        """The keys that are texts; any other kind of key is an error."""
        for key in self.data:
            if not isinstance(key, str):
                right = "keys are texts"
                self.error(str(key), f"the key is read as {self.findings.describe(key)}", right=right, step="Put it in quotes.")
        return [key for key in self.data if isinstance(key, str)]

    def plain(self, key: str) -> Any:
        """The value as fresh JSON data. Dates, infinities and endless nesting are errors."""
        return self._plain(key, self.take(key), 0)

    def _plain(self, place: str, value: Any, depth: int) -> Any:
        if depth > MAX_DEPTH:
            self.error(place, "lists or tables nested too deep", right=f"at most {MAX_DEPTH} levels are read")
            return None
        if isinstance(value, Mapping):
            return {str(key): self._plain(f"{place}.{key}" if depth < 4 else place, item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self._plain(place, item, depth + 1) for item in value]
        if isinstance(value, str):
            return self._as_text(place, value)
        if value is None or isinstance(value, bool) or (isinstance(value, int | float) and math.isfinite(value)):
            return value
        self.wrong(place, value, "a text, a number, true, false, a list or a table is needed")
        return None

    def finish(self) -> None:
        """Note every key that nobody asked for, with what was probably meant."""
        for key in self.names():
            if key not in self.asked:
                where = f"[{self.below(key, {}).name}]" if isinstance(self.data[key], Mapping) else self.where(key)
                self.findings.note("unknown", where, f"this key is not known and not used. {self._hint(key)}".strip())

    def _hint(self, key: str) -> str:
        if key.lower() in SECRETS:
            return "Keys are read from the environment; [model] api_key_env names the variable."
        home = HOMES.get(key)
        if home is not None and home != self.name:
            return f"It would be read in [{home}]."
        return meant(key, self.asked)


def _unquoted(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    try:
        return f"Write {float(value):g} without quotes."
    except ValueError:
        return None
