"""What stands where no recording answers: it knows nothing, so everything is asked of the world."""

from __future__ import annotations

from collections.abc import Mapping

from llmproc_nb.core.event import CodeRan, Decided, FdOpened, Offered, ServerRead, ToolRan
from llmproc_nb.core.longtext import Numbers
from llmproc_nb.core.provider import Provider


class Unrecorded:
    """Implements the door Recorded, with no answer to anything."""

    mode = "record"

    def offered(self, lineage: str, call: int) -> Offered | None:
        return None

    def provider(self, real: Provider) -> Provider:
        return real

    def tool(self, node_id: str, position: int, lineage: str) -> ToolRan | None:
        return None

    def decision(self, node_id: str, position: int, lineage: str) -> Decided | None:
        return None

    def read(
        self, lineage: str, node_id: str, server: str, name: str, arguments: Mapping[str, str] | None, *, dry: bool = False
    ) -> ServerRead | None:
        return None

    def window(self, model: str) -> int | None:
        return None

    def fds(self, node_id: str, position: int, lineage: str) -> list[tuple[FdOpened, str]]:
        return []

    def stop(self, lineage: str, node_id: str) -> str | None:
        return None

    def cut(self, node_id: str, position: int, lineage: str) -> ToolRan | None:
        return None

    def end(self, lineage: str, node_id: str) -> str | None:
        return None

    def code(self, lineage: str, node_id: str, code: str) -> CodeRan | None:
        return None

    def code_at(self, lineage: str, node_id: str, position: int) -> CodeRan | None:
        return None

    def fd_numbers(self, lineage: str) -> Numbers | None:
        return None
