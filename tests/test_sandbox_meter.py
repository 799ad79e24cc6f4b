"""What is counted between a kernel and its clients: frames of ZeroMQ's protocol, in whatever pieces they come."""

from __future__ import annotations

import pytest

from llmproc_nb.drivers.sandbox.meter import MOST_PARTS, NULL, Frames, NotPassed

GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x01" + NULL + bytes(32)


def frame(flags: int, size: int, *, long: bool = False) -> bytes:
    long = long or size > 255
    return bytes([flags | 2 * long]) + size.to_bytes(8 if long else 1, "big") + bytes(size)


def read(data: bytes, step: int = 1 << 16) -> int:
    """How many messages there are."""
    frames = Frames(1000, MOST_PARTS)
    for at in range(0, len(data), step):
        frames.take(data[at : at + step])
    return frames.ended


@pytest.mark.parametrize("step", [1, 2, 7, 64, 1 << 16])
def test_messages_are_counted_in_whatever_pieces_they_come(step: int):
    one = frame(1, 0) + frame(1, 5) + frame(1, 300) + frame(0, 0)
    assert read(GREETING + frame(4, 20) + one * 10 + frame(0, 1000) + frame(4, 5, long=True) + one, step) == 12


UNFIT = {
    "a part that is too large": (frame(0, 1001)[:9], "more than 0.001 MB"),
    "a length beyond all bounds": (b"\x02" + b"\xff" * 8, "more than 0.001 MB"),
    "parts that are too large together": (frame(1, 600) + frame(0, 401)[:9], "more than 0.001 MB"),
    "very many empty parts": (frame(1, 0) * (MOST_PARTS + 1), "more than 1024 parts"),
    "commands between the parts": ((frame(1, 100) + frame(4, 5)) * 10, "more than 0.001 MB"),
    "commands that go on": (frame(5, 0) * (MOST_PARTS + 1), "more than 1024 parts"),
    "a command that is too large": (frame(4, 1001), "more than 0.001 MB"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_is_too_much_is_not_passed_on(name: str):
    data, why = UNFIT[name]
    with pytest.raises(NotPassed, match=why):
        read(GREETING + data)


GREETINGS = {
    "an older version": GREETING[:10] + b"\x01" + GREETING[11:],
    "no version at all": b"\x01\x00" + GREETING,
    "a version without a number": GREETING[:9] + b"\x7e" + GREETING[10:],
    "encryption": GREETING.replace(NULL, b"CURVE".ljust(20, b"\0")),
}


@pytest.mark.parametrize("name", GREETINGS)
def test_what_cannot_be_counted_is_not_passed_on(name: str):
    with pytest.raises(NotPassed, match="another protocol was spoken than ZMTP 3 without encryption"):
        read(GREETINGS[name])
