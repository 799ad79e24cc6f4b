"""Code by which variables and files go in and out of a kernel of Python that knows nothing of this project. It leaves no names behind."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any

from llmproc_nb.core.errors import ToolError

MIME = "application/vnd.llmproc.answer+json"

PUT = """
import json
space[name] = json.loads(data)
"""
PUT_FRAME = """
import base64, pyarrow
with pyarrow.ipc.open_stream(base64.b64decode(data)) as stream:
    space[name] = stream.read_all().to_pandas()
"""
_SHOW = """
from IPython.display import display
def answer(data, kind=''):
    for at in range(0, len(data) or 1, 1 << 22):
        display({mime: {'kind': kind, 'data': data[at : at + (1 << 22)]}}, raw=True)
"""
"""In pieces, for what is too large is taken for an attack."""
GET = f"""{_SHOW}
import base64, json
if name not in space:
    raise NameError('there is no variable ' + repr(name))
value = space[name]
if type(value).__name__ == 'DataFrame' and hasattr(value, 'to_csv'):
    import pyarrow
    table, sink = pyarrow.Table.from_pandas(value), pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    answer(kind='frame', data=base64.b64encode(sink.getvalue()).decode())
else:
    def plain(inner):
        if type(inner).__module__ == 'numpy':
            return inner.tolist()
        raise TypeError(name + ' holds a ' + type(inner).__name__ + ': only pandas frames and plain JSON data can be taken out')
    answer(kind='json', data=json.dumps(value, default=plain, allow_nan=False))
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
    names = {**given, "mime": MIME}
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
