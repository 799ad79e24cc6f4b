"""What goes to the front end while 5,000 tokens stream into a cell: bytes on the wire of a real kernel, against one update per token."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import zmq
from imports import fresh_kernel
from measure import Ratio, Table

TOKENS = 5_000
SECONDS = 20.0

# all words are different, so that nothing is shorter than it would be in an answer
SETUP = """
%load_ext llmproc_nb
%config AgentMagics.stream = "auto"
from llmproc_nb import Program
words = " ".join(f"word{{number}}" + (".\\n\\n" if number % 40 == 39 else "") for number in range({tokens}))
prog = Program(name="prog", provider="scripted", model="m", script=({{"when": ".", "say": words, "delay_s": {delay_s}}},))
"""
EACH = """
from IPython.display import DisplayHandle
handle, said = DisplayHandle(), []
handle.display({"text/plain": "", "text/markdown": ""}, raw=True)
import re
for token in re.findall(r"\\s*\\S+|\\s+$", words):
    said.append(token)
    text = "".join(said)
    handle.update({"text/plain": text, "text/markdown": text}, raw=True)
"""


class Counter:
    """What comes over iopub: messages, and bytes of all their frames."""

    def __init__(self) -> None:
        self.messages = self.bytes = 0
        self.stop = threading.Event()

    def read(self, socket: Any) -> None:
        while not self.stop.is_set():
            if socket.poll(50):
                frames = socket.recv_multipart()
                self.messages += 1
                self.bytes += sum(map(len, frames))


@contextmanager
def counting(kernel: Any) -> Iterator[Counter]:
    """Count beside the client, on a connection of its own, that drops nothing."""
    socket = kernel.manager.connect_iopub()
    socket.setsockopt(zmq.RCVHWM, 0)
    counter = Counter()
    reader = threading.Thread(target=counter.read, args=(socket,), daemon=True)
    reader.start()
    try:
        while not counter.messages:  # connected only when the first message has come
            kernel.run("0")
        settle(counter)
        counter.messages = counter.bytes = 0
        yield counter
        settle(counter)
    finally:
        counter.stop.set()
        reader.join()
        socket.close(linger=0)


def settle(counter: Counter) -> None:
    """Wait until nothing more comes."""
    last = -1
    while last != counter.messages:
        last = counter.messages
        counter.stop.wait(0.2)


def bench(*, quick: bool = False) -> Table:
    """The table of both ways, and the mark."""
    tokens, seconds = (300, 0.5) if quick else (TOKENS, SECONDS)
    found: dict[str, tuple[int, int, float]] = {}
    cells = {"ours": "%%agent streamed -p prog\ngo", "one update per token": EACH}
    with fresh_kernel() as kernel:
        assert kernel.run(SETUP.format(tokens=tokens, delay_s=seconds / tokens)).status == "ok"
        for name, source in cells.items():
            with counting(kernel) as counter:
                ran = kernel.run(source, cell=name.replace(" ", "-"), timeout_s=300)
                assert ran.status == "ok", ran.error
            found[name] = counter.messages, counter.bytes, ran.duration_s
    ours, each = found["ours"], found["one update per token"]
    return Table(
        title=f"stream: {tokens:,} tokens into a cell, as they go over the wire",
        columns=["messages", "MB", "seconds"],
        rows={name: [messages, size / 1e6, took] for name, (messages, size, took) in found.items()},
        ratios=[
            Ratio(name=f"{tokens:,} tokens to the front end", value=ours[1] / 1e6, most=3, unit=" MB"),
            Ratio(name="ours / one update per token", value=ours[1] / each[1]),
        ],
    )
