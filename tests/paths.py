"""Where test material lies that is not part of the product; tests that need it skip where it is absent."""

from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
needs_shared = pytest.mark.skipif(not (SHARED / "recordings").is_dir(), reason="the shared recordings are not beside this checkout")
