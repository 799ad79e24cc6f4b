"""What a family of sandboxes is confined to: plain data that goes over a socket as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Rules:
    """`folder` is a private folder of the host for this family; `env` is what the environment shall be, besides the allow-list."""

    tier: str
    folder: str
    readable: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()
    memory_mb: int = 4096
    disk_mb: int = 512
    cpu_s: int = 3600
    processes: int = 64
    env: dict[str, str] = field(default_factory=dict)
    relay: str = ""
