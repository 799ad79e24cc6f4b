"""What frames cost: a log of 100,000 events on disk, read and turned into frames. Run with `python tests/bench/bench_frames.py`."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

from llmproc_nb.core.clock import FixedClock
from llmproc_nb.core.dialog import Dialog
from llmproc_nb.core.event import Appended, Asked, Called, Declared, Opened, Replied, Started, Stopped, ToolRan, ToolStarted
from llmproc_nb.core.log import Log
from llmproc_nb.core.message import Message, Text, ToolCall, ToolResult, user
from llmproc_nb.core.usage import Usage
from llmproc_nb.drivers.jsonl import JsonlStore

EVENTS = 100_000
WORDS = "The third column has eleven missing values and two outliers, which come from the merge. "


def write(path: Path, events: int = EVENTS) -> int:
    """A log of calls with one tool each, of four processes; gives the number of events."""
    log, dialog = Log(FixedClock().now_ns, JsonlStore(path)), Dialog()
    log.write(Opened, run="bench")
    log.write(Declared, config="c", model="m-1")
    root, _ = dialog.append(Message(role="system"), None)
    log.write(Appended, pid=1, node=root.id, message=root.message)
    heads = {}
    for pid in range(1, 5):
        log.write(
            Started, pid=pid, name=f"p{pid}", node=root.id, lineage=f"p{pid}", provider="scripted", program={"name": "p", "model": "m-1"}
        )
        heads[pid] = root
    call = 0

    def say(message: Message, where: dict[str, Any], **more: object) -> str:
        parent = heads[where["pid"]]
        node, _ = dialog.append(message, parent)
        heads[where["pid"]] = node
        said = {} if more else {"message": message}
        log.write(Appended, node=node.id, parent=parent.id, **said, **more, **where)
        return node.id

    while len(log.events) < events:
        call += 1
        pid = call % 4 + 1
        mine = {"pid": pid, "call": call, "cell": f"cell-{call % 200}"}
        before = heads[pid]

        node = say(user(f"{call}: {WORDS}"), mine)
        log.write(Called, node=node, before=before.id, **mine)
        for step in range(2):
            digest = f"{call}-{step}"
            log.write(Asked, node=node, config="c", digest=digest, lineage=f"p{pid}", **mine)
            tool = ToolCall(id=f"t{call}", name="look", arguments='{"column": "age", "rows": 20}')
            node = say(Message(role="assistant", api="scripted", parts=(Text(text=WORDS * 3), *((tool,) if step == 0 else ()))), mine)
            usage = Usage(requests=1, input_tokens=1000, output_tokens=60, cost_usd=0.001)
            log.write(
                Replied, node=node, digest=digest, lineage=f"p{pid}", stop="end_turn", model="m-1", usage=usage, duration_s=0.5, **mine
            )
            if step == 0:
                log.write(ToolStarted, node=node, position=0, call_id=tool.id, name="look", arguments=tool.arguments, **mine)
                result = ToolResult(call_id=tool.id, name="look", content=(Text(text=WORDS * 2),))
                ran = log.write(ToolRan, node=node, position=0, name="look", result=result, duration_s=0.1, **mine)
                node = say(Message(role="tool", parts=(result,)), mine, results=(ran.seq,))
        log.write(Stopped, reason="end_turn", node=node, usage=usage, **mine)
    log.store.close()
    return len(log.events)


def main() -> None:
    import pandas as pd

    from llmproc_nb.notebook.frames import frames, read_log

    pd.array(["warm"], dtype="string")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.jsonl"
        count = write(path)
        began = time.process_time()
        log = read_log(path)
        events = log.events
        read = time.process_time()
        made = frames(events)
        framed = time.process_time()
        log.dialog()
        checked = time.process_time()
        size = path.stat().st_size
    times = f"read {read - began:.2f} s, frames {framed - read:.2f} s, ids checked {checked - framed:.2f} s CPU"
    print(f"{count:,} events, {size / 1e6:.1f} MB: {times}")
    print(f"{count / (framed - began):,.0f} events a second from file to frames; {made}")


if __name__ == "__main__":
    main()
