"""Long texts on disk and in memory, behind core's LongText: exact to the last character, read in pieces, never as a whole.

Here: the ways to make one, and to write one to a file. `source` is where the bytes lie, `index` where characters and lines are in them,
`stored` the text itself, `search` and `sieve` its search, `spool` the files it is kept in. Not here: pages, fds and their words (core).
"""

from llmproc_nb.drivers.text.make import long_text, long_text_from
from llmproc_nb.drivers.text.stored import StoredText
from llmproc_nb.drivers.text.write import write_file

__all__ = ["StoredText", "long_text", "long_text_from", "write_file"]
