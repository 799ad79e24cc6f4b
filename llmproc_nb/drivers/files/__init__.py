"""Program files of every generation → Program. Here: the names to use; what lives where is said in each file.

`load`, `from_text` and `from_mapping` give a Program or raise ProgramError; `check` gives a Report and does not raise;
`load_linked` gives the programs that a program links to.
"""

from llmproc_nb.drivers.files.check import Report, check
from llmproc_nb.drivers.files.reading import from_mapping, from_text, link_path, load, load_linked

__all__ = ["Report", "check", "from_mapping", "from_text", "link_path", "load", "load_linked"]
