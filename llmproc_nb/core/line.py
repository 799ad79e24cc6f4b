"""An event as one line of JSON, and back. Long texts and pictures leave the line and become blobs, named by the hash of their content.

Here too: where logs and blobs lie, as far as writer and reader must agree on it. Pure: reading and writing is a driver's matter. A line
that lost content says so in a field of its own at the end, `"blobs": [[where, hash, "text" or "bytes"], …]`; no event has a field of that
name, so nothing that was said can be mistaken for it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from llmproc_nb.core.errors import LogError
from llmproc_nb.core.event import AnyEvent
from llmproc_nb.core.message import clean

FOLDER = ".llmproc"
MAX_TEXT_BYTES = 256 * 1024
MAX_DATA_BYTES = 4 * 1024
_DATA = b'"data":"'
_MARK = b',"blobs":[['

Blobs: TypeAlias = dict[str, bytes]
Fetch: TypeAlias = Callable[[str], bytes]

_encode = msgspec.json.Encoder(enc_hook=repr).encode
_decode = msgspec.json.Decoder(AnyEvent).decode
_decode_lines = msgspec.json.Decoder(AnyEvent).decode_lines
_decode_head = msgspec.json.Decoder(dict[str, Any]).decode


class UnknownEvent(msgspec.Struct, frozen=True, kw_only=True):
    """An event of a kind that this version does not know, as it was read."""

    kind: str
    fields: dict[str, Any]


def log_stem(notebook: str) -> str:
    """What the names of a notebook's logs begin with."""
    return Path(notebook).name.removesuffix(".ipynb").removesuffix(".py")


def blob_folder(log: Path) -> Path:
    """Where the blobs of a log lie."""
    return log.with_name(f"{log.stem}.blobs")


def encode(event: AnyEvent) -> tuple[bytes, Blobs]:
    """The line of an event, without its end, and the content that goes into files beside it."""
    try:
        line = _encode(event)
    except (ValueError, OverflowError, RecursionError):  # a lone surrogate or an endless number somebody put into free-form data
        return _encode_with_blobs(event)
    # bytes are in fields called `data` only, so most lines are told to hold nothing too long without a look into the event
    if len(line) <= MAX_DATA_BYTES or (len(line) <= MAX_TEXT_BYTES and _DATA not in line):
        return line, {}
    return _encode_with_blobs(event)


def _encode_with_blobs(event: AnyEvent) -> tuple[bytes, Blobs]:
    blobs: Blobs = {}
    places: list[tuple[list[str | int], str, str]] = []
    fields = _taken_out(msgspec.to_builtins(event, builtin_types=(bytes,), enc_hook=repr, str_keys=True), [], blobs, places)
    return _encode({**fields, "blobs": places} if places else fields), blobs


def _taken_out(value: Any, at: list[str | int], blobs: Blobs, places: list[tuple[list[str | int], str, str]]) -> Any:
    """The value with everything long replaced by an empty text; what it was goes to `blobs`, where it was to `places`."""
    if isinstance(value, str):
        text = clean(value)
        if 4 * len(text) <= MAX_TEXT_BYTES:
            return text
        data, kind = text.encode(), "text"
        if len(data) <= MAX_TEXT_BYTES:
            return text
    elif isinstance(value, bytes):
        data, kind = value, "bytes"
        if len(data) <= MAX_DATA_BYTES:
            return b64encode(data).decode()
    elif isinstance(value, dict):
        return {clean(key): _taken_out(item, [*at, key], blobs, places) for key, item in value.items()}
    elif isinstance(value, list | tuple):
        return [_taken_out(item, [*at, index], blobs, places) for index, item in enumerate(value)]
    else:
        return repr(value) if isinstance(value, int) and value.bit_length() > 4096 else value
    name = blob_name(data)
    blobs[name] = data
    places.append((at, name, kind))
    return ""


def blob_name(data: bytes) -> str:
    """The name of a blob: blake2b, 16 bytes, in hex."""
    return blake2b(data, digest_size=16).hexdigest()


def decode(line: bytes, fetch: Fetch) -> AnyEvent | UnknownEvent:
    """The event of a line; `fetch` gives the content of a blob by its name. Raises LogError where the line is no whole event."""
    try:
        if _MARK in line:
            fields = _decode_head(line)
            if "blobs" in fields:
                return msgspec.convert(_put_back(fields, fetch), AnyEvent)  # type: ignore[no-any-return]
        return _decode(line)  # type: ignore[no-any-return]
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        unknown = _unknown(line)
        if unknown is not None:
            return unknown
        raise LogError(f"this is no event ({error})", right="a log has one JSON event in each line") from None


def decode_all(data: bytes) -> list[AnyEvent] | None:
    """The events of a whole file at once, where every line is a plain event of a known kind; None where one needs a closer look."""
    if _MARK in data:
        return None
    try:
        return _decode_lines(data)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None


def _put_back(fields: dict[str, Any], fetch: Fetch) -> dict[str, Any]:
    for at, name, kind in fields.pop("blobs"):
        data = fetch(name)
        target: Any = fields
        for key in at[:-1]:
            target = target[key]
        target[at[-1]] = data.decode() if kind == "text" else b64encode(data).decode()
    return fields


def _unknown(line: bytes) -> UnknownEvent | None:
    """The event of another version, if that is what the line holds."""
    try:
        fields = _decode_head(line)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    kind = fields.get("kind")
    known = {str(struct.__struct_config__.tag) for struct in AnyEvent.__args__}
    return UnknownEvent(kind=kind, fields=fields) if isinstance(kind, str) and kind not in known else None
