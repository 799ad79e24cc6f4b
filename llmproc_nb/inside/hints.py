"""What is to be done about errors that come of where the code runs: no network, no packages or files but those that were given.

Read by people and by models. No name that code has made is repeated: nobody shall install a package because a model made it up.
"""

from __future__ import annotations

import errno
import os
import socket

PACKAGES = "There are no packages here but the notebook's; %pip works outside the sandbox, in a cell of the notebook itself."
NOTEBOOK = "llmproc_nb belongs outside the sandbox, in a cell of the notebook itself."
FILES = "Only files of the working folder are here: [sandbox] files brings some at the start, `%sandbox files PATH` one now."
NETWORK = "There is no network here; [sandbox] hosts opens it for the hosts that it names."
LOOP = "No event loop runs between cells: await in the cell that starts a task, as in `await asyncio.gather(...)`."
MOST_CAUSES = 20


def hint(error: BaseException, *, network: bool) -> str:
    """What to do about an error, empty where there is nothing to say. `network`: there are hosts that may be connected to."""
    for one in _chain(error):
        if isinstance(one, ModuleNotFoundError):
            return NOTEBOOK if str(one.name).startswith("llmproc_nb") else PACKAGES
        if isinstance(one, FileNotFoundError) and os.path.splitext(str(one.filename))[1]:  # a program that is missing has none
            return FILES
        if isinstance(one, RuntimeError) and str(one) == "no running event loop":
            return LOOP
        if not network and (isinstance(one, socket.gaierror) or getattr(one, "errno", None) in (errno.ENETUNREACH, errno.EHOSTUNREACH)):
            return NETWORK
    return ""


def _chain(error: BaseException) -> list[BaseException]:
    found: list[BaseException] = []
    one: BaseException | None = error
    while one is not None and len(found) < MOST_CAUSES:
        found.append(one)
        one = one.__cause__ or one.__context__
    return found
