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
def answer(data, kind=''):
    for at in range(0, len(data) or 1, 1 << 22):
        display({mime: {'kind': kind, 'data': data[at : at + (1 << 22)]}}, raw=True)
"""
"""In pieces, for what is too large is taken for an attack."""
GET = f"""{_SHOW}{_RULES}
import base64, json
if name not in space:
    raise NameError('there is no variable ' + repr(name))
try:
    value = rules['packed'](space[name], name)
except rules['Unfit'] as error:
    answer(str(error), 'unfit')
else:
    framed = isinstance(value, bytes)
    answer(base64.b64encode(value).decode() if framed else json.dumps(value, allow_nan=False), 'frame' if framed else 'json')
"""
LOOK = f"""{_SHOW}
import json, os
hidden = getattr(get_ipython(), 'user_ns_hidden', {{}})
names = [one for one in tuple(space) if not one.startswith('_') and one not in hidden][:1000]
files = []
for folder, _, found in os.walk('.'):
    for one in found[: 1000 - len(files)]:
        path = os.path.join(folder, one)
        files.append((os.path.relpath(path), os.lstat(path).st_size))
found = [dict(name=one[:200], kind=type(space[one]).__name__[:200], said='') for one in names]
answer(json.dumps(dict(variables=found, files=files)))
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
    answer(base64.b64encode(file.read()).decode())
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


def bytes_of(data: Any) -> bytes:
    """What came as base64. Raises ToolError."""
    try:
        return base64.b64decode(data, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise ToolError("the kernel gave something that is no data", place="sandbox") from error
