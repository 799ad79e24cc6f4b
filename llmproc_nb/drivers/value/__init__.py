"""Values as a model reads them, whichever library they come from: none is imported, a value's own type tells.

`returned` is what a tool gave, `own` what an object says of itself, `picture` what can be drawn, `data` what is JSON. Not here: values in
prompts (the notebook), when a long text becomes an fd (core).
"""

from llmproc_nb.drivers.value.data import as_json, without_addresses
from llmproc_nb.drivers.value.own import has_own_view, own_view
from llmproc_nb.drivers.value.picture import asked, picture
from llmproc_nb.drivers.value.returned import prompt_value, returned, tool_value

__all__ = ["as_json", "asked", "has_own_view", "own_view", "picture", "prompt_value", "returned", "tool_value", "without_addresses"]
