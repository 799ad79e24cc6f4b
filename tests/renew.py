"""Run the notebooks again and store their outputs as nbval compares them: `uv run python tests/renew.py [NOTEBOOK …]`.

Look at the difference before you commit it: what changed is what readers will see change.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent.parent / "notebooks"
METADATA = {
    "kernelspec": {"display_name": "Python 3 (agents)", "language": "python", "name": "llmproc"},
    "language_info": {"name": "python"},
}


def renew(path: Path) -> None:
    notebook = nbformat.read(path, 4)
    os.environ.setdefault("LLMPROC_NB_LOG", "0")
    client = NotebookClient(
        notebook,
        timeout=120,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
        store_widget_state=False,
        coalesce_streams=True,
        record_timing=False,
    )
    client.execute()
    notebook.metadata = nbformat.from_dict(METADATA)
    nbformat.write(notebook, path)


if __name__ == "__main__":
    for file in map(Path, sys.argv[1:]) if sys.argv[1:] else sorted(FOLDER.glob("*.ipynb")):
        print(f"running {file.name}")
        renew(file)
