"""Replay: a recording answers in place of the world.

Here: `Recording` (what a log knows, as answers for a machine) and `reexecute` (a recorded run made again and compared).
Not here: files; a log is read by `logfile` and written by `jsonl`.
"""

from llmproc_nb.drivers.replay.comparison import Comparison, Difference
from llmproc_nb.drivers.replay.recording import Recording
from llmproc_nb.drivers.replay.reexecute import reexecute

__all__ = ["Comparison", "Difference", "Recording", "reexecute"]
