"""Server-sent events from bytes, and JSON that is not quite JSON."""

from __future__ import annotations

import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproc_nb.core.errors import GarbledReply
from llmproc_nb.core.sse import EventReader, decode


def read(*pieces: bytes) -> tuple[list[tuple[str, bytes]], bytes]:
    """The events of a body in pieces, and what was no event."""
    reader = EventReader()
    return [event for piece in pieces for event in reader.feed(piece)] + reader.end(), reader.other


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_every_line_end_is_understood(end: bytes) -> None:
    stream = b"\xef\xbb\xbf: ping\n\nevent: a\ndata: 1\n\ndata:2\ndata: 3\nid: 7\nretry: 5\n\n\n\ndata\n\nevent: b\nid: 1\ndata:4\n\n"
    events = [("a", b"1"), ("", b"2\n3"), ("", b""), ("b", b"4"), ("", b"last")]
    assert read((stream + b"event: c\n\ndata: last").replace(b"\n", end)) == (events, b"")


def test_a_name_of_one_event_is_not_that_of_the_next() -> None:
    assert read(b"event: a\n\ndata: 1\n\n") == ([("", b"1")], b"")
    assert read(b"event: a\ndata: 1\nevent: b\n\nevent: a\ndata: 2\n\n") == ([("b", b"1"), ("a", b"2")], b"")


STREAM = "event: a\ndata: {“1”}\n\n: x\ndata: 2\ndata: 3\n\nupstream lost\n\n\ndata: data: 4\nevent: data: b\n\ndata: [DONE]\n\n".encode()


@given(st.lists(st.integers(0, len(STREAM))), st.sampled_from([b"\n", b"\r\n", b"\r"]))
def test_cuts_change_nothing(cuts: list[int], end: bytes) -> None:
    stream = STREAM.replace(b"\n", end)
    places = sorted({0, len(stream), *cuts})
    events = [("a", "{“1”}".encode()), ("", b"2\n3"), ("data: b", b"data: 4"), ("", b"[DONE]")]
    assert read(*(stream[a:b] for a, b in pairwise(places))) == (events, b"upstream lost\n")


@pytest.mark.parametrize("body", [b'{"a": 1}\n\n{"b": 2}', b"\xef\xbb\xbf\n [1]", b"<html>\n\ndata: 1\n\n</html>"])
def test_a_body_that_begins_like_json_or_html_has_no_events_and_is_kept_whole(body: bytes) -> None:
    kept = body.lstrip(b"\xef\xbb\xbf\n ")
    assert read(body) == read(*(bytes([byte]) for byte in body)) == ([], kept)


def test_what_belongs_to_no_event_is_kept_in_short() -> None:
    events, other = read(b"upstream connect error\n", b"x" * 5000 + b"\n", b"y\n", b"data: 1\n\n")
    assert events == [("", b"1")]
    assert other.startswith(b"upstream connect error\nxxx") and len(other) < 2100


@pytest.mark.parametrize("pieces", [[b"data: ", *[b"x" * 1000] * 20_000], [b"data: x\n"] * 20_000])
def test_a_long_event_in_many_pieces_costs_no_more_than_its_length(pieces: list[bytes]) -> None:
    began = time.process_time()
    ((_, data),), _ = read(*pieces, b"\n\n")
    assert len(data) in (20_000_000, 39_999)
    assert time.process_time() - began < 1.0


def test_json_that_is_not_quite_json_is_read() -> None:
    data = b'{"a": NaN, "b": [1e999, "\\ud800!"], "delta": "\\ud83c", "deep": {"delta": ["\\ud83c"]}, "\\udc00": "\xff"}'
    value = {"a": None, "b": [None, "\ufffd!"], "delta": "\ud83c", "deep": {"delta": ["\ufffd"]}, "\ufffd": "\ufffd"}
    assert decode(data, halves={"delta"}) == value


@pytest.mark.parametrize("data", [b"{]", b"", b"[" * 100_000, b"\xff"])
def test_what_is_no_json_is_garbled(data: bytes) -> None:
    with pytest.raises(GarbledReply) as caught:
        decode(data)
    assert len(str(caught.value)) < 300
