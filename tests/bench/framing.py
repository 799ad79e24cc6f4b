"""What frames cost: a log of 100,000 events on disk, read, and turned into the six frames."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

from answering import WORDS
from measure import Ratio, Table, alone, cpu_ms

from llmproc_nb.core.clock import FixedClock
from llmproc_nb.core.dialog import Dialog
from llmproc_nb.core.event import Appended, Asked, Called, Declared, Opened, Replied, Started, Stopped, ToolRan, ToolStarted
from llmproc_nb.core.log import Log
from llmproc_nb.core.message import Message, Text, ToolCall, ToolResult, user
from llmproc_nb.core.usage import Usage
from llmproc_nb.drivers.jsonl import JsonlStore

EVENTS = 100_000


def write(path: Path, events: int) -> int:
    """A log of calls with one tool each, of four processes; gives the number of events."""
    log, dialog = Log(FixedClock().now_ns, JsonlStore(path)), Dialog()
    log.write(Opened, run="bench")
    log.write(Declared, config="c", model="m-1")
    root, _ = dialog.append(Message(role="system"), None)
    log.write(Appended, pid=1, node=root.id, message=root.message)
    heads = {}
    for pid in range(1, 5):
        program = {"name": "p", "model": "m-1"}
        log.write(Started, pid=pid, name=f"p{pid}", node=root.id, lineage=f"p{pid}", provider="scripted", program=program)
        heads[pid] = root

    def say(message: Message, where: dict[str, Any], **more: object) -> str:
        parent = heads[where["pid"]]
        node, _ = dialog.append(message, parent)
        heads[where["pid"]] = node
        said = {} if more else {"message": message}
        log.write(Appended, node=node.id, parent=parent.id, **said, **more, **where)
        return node.id

    call = 0
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
            told = {"lineage": f"p{pid}", "stop": "end_turn", "model": "m-1", "usage": usage, "duration_s": 0.5}
            log.write(Replied, node=node, digest=digest, **told, **mine)
            if step == 0:
                log.write(ToolStarted, node=node, position=0, call_id=tool.id, name="look", arguments=tool.arguments, **mine)
                result = ToolResult(call_id=tool.id, name="look", content=(Text(text=WORDS * 2),))
                ran = log.write(ToolRan, node=node, position=0, name="look", result=result, duration_s=0.1, **mine)
                node = say(Message(role="tool", parts=(result,)), mine, results=(ran.seq,))
        log.write(Stopped, reason="end_turn", node=node, usage=usage, **mine)
    assert log.store is not None
    log.store.close()
    return len(log.events)


def measured(events: int) -> list[float]:
    """Events, MB, and the CPU ms of reading the file, of the frames, and of checking every id."""
    import pandas as pd

    from llmproc_nb.notebook.frames import frames, read_log

    pd.array(["warm"], dtype="string")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "bench.jsonl"
        count = write(path, events)
        log = read_log(path)
        read = cpu_ms(lambda: log.events)
        framed = cpu_ms(lambda: frames(log.events))
        checked = cpu_ms(log.dialog)
        return [count, path.stat().st_size / 1e6, read, framed, checked]


def bench(*, quick: bool = False) -> Table:
    """The table of a log that becomes frames, and the mark."""
    runs = [alone(measured, 2_000 if quick else EVENTS, quick=quick) for _ in range(1 if quick else 5)]
    count, size, read, framed, checked = (statistics.median(place) for place in zip(*runs, strict=True))
    each = 1000 * EVENTS / count / 1000  # a quick run is shorter; its values are given for as many events
    return Table(
        title=f"frames: {count:,.0f} events, {size:.1f} MB on disk",
        columns=["CPU ms", "events/s"],
        rows={
            "read the file": [read, 1000 * count / read],
            "make the six frames": [framed, 1000 * count / framed],
            "both": [read + framed, 1000 * count / (read + framed)],
            "compute every node's id again": [checked, 1000 * count / checked],
        },
        ratios=[
            Ratio(name=f"{EVENTS:,} events become frames", value=framed * each / 1000, most=1, unit=" s"),
            Ratio(name=f"{EVENTS:,} events become frames, the file read too", value=(read + framed) * each / 1000, unit=" s"),
            Ratio(name="frames / reading the file", value=framed / read),
        ],
    )
