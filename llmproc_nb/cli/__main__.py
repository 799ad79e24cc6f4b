"""`python -m llmproc_nb.cli` is `jupyter llmproc`."""

import sys

from llmproc_nb.cli import main

sys.exit(main())
