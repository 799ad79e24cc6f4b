"""MCP servers: their tools as core tools, their resources and prompts as parts and messages. Here: the names to import.

    values     what goes in and out: terms, asks, notes            launch    ${VAR}, the environment of a server, what must stay hidden
    tail       the last words of a server, cleaned                 stdio · sse · http     the three transports
    parts      contents of MCP to parts of messages                asks      what a server may ask of us
    calls      those under way · link     one connection, in one task    server    one server: calls, restarts, its list of tools
    servers    all servers of a program

The SDK is imported with the first server that is started, not with this package.
"""

from llmproc_nb.drivers.mcp.process import connect_for
from llmproc_nb.drivers.mcp.servers import Servers, connect
from llmproc_nb.drivers.mcp.values import (
    Change,
    ElicitAnswer,
    ElicitAsk,
    LogLine,
    Progress,
    PromptInfo,
    Resource,
    SamplingAnswer,
    SamplingAsk,
    ServerInfo,
    Terms,
)

__all__ = [
    "Change",
    "ElicitAnswer",
    "ElicitAsk",
    "LogLine",
    "Progress",
    "PromptInfo",
    "Resource",
    "SamplingAnswer",
    "SamplingAsk",
    "ServerInfo",
    "Servers",
    "Terms",
    "connect",
    "connect_for",
]
