"""Code by which variables and files go in and out of a kernel of Python that knows nothing of this project. It leaves no names behind."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llmproc_nb.core.errors import ToolError
from llmproc_nb.inside import passing

MIME = "application/vnd.llmproc.answer+json"

RULES = Path(passing.__file__).read_text(encoding="utf-8")
"""What passes, and how, as code: the kernel may be of an environment that has nothing of this project."""

_RULES = """
rules = {'__name__': 'passing'}
exec(text, rules)
"""
PUT = """
import json
space[name] = json.loads(data)
"""
PUT_FRAME = f"""{_RULES}
import base64
space[name] = rules['unpacked'](base64.b64decode(data))
"""
_SHOW = """
from IPython.display import display
def answer(**said):
    display({mime: said}, raw=True)
"""
GET = f"""{_SHOW}{_RULES}
import base64
if name not in space:
    raise NameError('there is no variable ' + repr(name))
try:
    value = rules['packed'](space[name], name)
except rules['Unfit'] as error:
    answer(kind='unfit', data=str(error))
else:
    framed = isinstance(value, bytes)
    answer(kind='frame' if framed else 'json', data=base64.b64encode(value).decode() if framed else value)
"""
LOOK = f"""{_SHOW}
import os
hidden = getattr(get_ipython(), 'user_ns_hidden', {{}})
names = [one for one in tuple(space) if not one.startswith('_') and one not in hidden][:1000]
files = []
for folder, _, found in os.walk('.'):
    for one in found[: 1000 - len(files)]:
        path = os.path.join(folder, one)
        files.append((os.path.relpath(path), os.lstat(path).st_size))
answer(variables=[dict(name=one[:200], kind=type(space[one]).__name__[:200], said='') for one in names], files=files)
"""
_PATH = """
import base64, os
full = os.path.realpath(name)
if os.path.commonpath([full, os.path.realpath('.')]) != os.path.realpath('.'):
    raise PermissionError(name + ' is no file of the working folder')
"""
WRITE = f"""{_PATH}
os.makedirs(os.path.dirname(full), exist_ok=True)
with open(full, 'wb') as file:
    file.write(base64.b64decode(data))
"""
READ = f"""{_SHOW}{_PATH}
with open(full, 'rb') as file:
    answer(data=base64.b64encode(file.read()).decode())
"""


def call(source: str, given: Mapping[str, str]) -> str:
    """The cell that runs some of this code on the kernel's namespace."""
    names = {**given, "mime": MIME} | ({"text": RULES} if "exec(text" in source else {})
    return f"exec({source!r}, {{**{names!r}, 'space': globals(), 'get_ipython': get_ipython}})"


def json_text(name: str, value: Any) -> str:
    """The value as JSON. Raises ToolError."""
    try:
        return json.dumps(value)
    except (TypeError, ValueError, RecursionError) as error:
        raise ToolError(f"{name} is no plain JSON data: {error}", place="sandbox") from error


def value_of(found: Mapping[str, Any]) -> bytes | Any:
    """The variable of an answer. Raises ToolError."""
    if found.get("kind") == "unfit":
        raise ToolError(str(found.get("data"))[:2000], place="sandbox")
    return bytes_of(found["data"]) if found.get("kind") == "frame" else found.get("data")


def bytes_of(data: Any) -> bytes:
    """What came as base64. Raises ToolError."""
    try:
        return base64.b64decode(data, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise ToolError("the kernel gave something that is no data", place="sandbox") from error
