"""The snippets of LLMProc's documents run as written, apart from the import name: scripts, async code, callbacks, linked programs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from servers import Answer, LoopbackServer, anthropic_text, sse

MINIMAL = """
[model]
name = "gpt-4o-mini"
provider = "{provider}"
{more}

[prompt]
system_prompt = "You are a helpful assistant."
"""
SCRIPT = '[[script.turns]]\nsay = "Hello!"\n[[script.turns]]\nsay = "More."\n'

BASIC = """
import asyncio
from llmproc_nb import LLMProcess

async def main():
    # Load configuration from TOML
    process = LLMProcess.from_toml('examples/minimal.toml')

    # Run the process with user input
    output = await process.run('Hello!')
    print(output)

    # Continue the conversation
    output = await process.run('Tell me more about that.')
    print(output)

    # Reset the conversation state
    process.reset_state()
    print(len(process.messages))

# Run the async example
asyncio.run(main())
"""

SYNC = """
from llmproc_nb import LLMProcess

process = LLMProcess.from_toml('examples/minimal.toml')

# This works in synchronous code too
output = process.run('Hello, what can you tell me about Python?')
print(output)
"""

CALLBACKS = """
import asyncio
from llmproc_nb import LLMProgram

async def main():
    program = LLMProgram.from_toml('examples/minimal.toml')
    process = await program.start()
    callbacks = {
        "on_tool_start": lambda tool_name, args: print(f"Using tool: {tool_name}"),
        "on_tool_end": lambda tool_name, result: print(f"Tool {tool_name} completed"),
        "on_response": lambda content: print(content),
    }
    run_result = await process.run("Summarize the changes", max_iterations=10, callbacks=callbacks)
    message = process.get_last_message()
    print(run_result.api_call_count, run_result.stop_reason, message)

asyncio.run(main())
"""


def run(folder: Path, code: str, **environ: str) -> str:
    env = {name: value for name, value in os.environ.items() if name != "LLMPROC_NB_LOG"}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, env={**env, **environ})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "examples").mkdir()
    (tmp_path / "examples/minimal.toml").write_text(MINIMAL.format(provider="scripted", more="") + SCRIPT)
    return tmp_path


def test_the_basic_example_runs(folder):
    assert run(folder, BASIC) == "Hello!\nMore.\n1\n"


def test_the_synchronous_example_runs(folder):
    assert run(folder, SYNC) == "Hello!\n"


def test_callbacks_and_the_last_message(folder):
    assert run(folder, CALLBACKS) == "Hello!\n1 end_turn Hello!\n"


def test_the_same_program_speaks_to_a_real_api_with_a_key_from_dot_env(tmp_path):
    events = anthropic_text("Hello from the server.")

    def answer(request, n):
        return Answer(headers={"content-type": "text/event-stream"}, chunks=sse(events))

    with LoopbackServer(answer) as server:
        (tmp_path / "examples").mkdir()
        more = f'base_url = "{server.url}"'
        (tmp_path / "examples/minimal.toml").write_text(MINIMAL.format(provider="anthropic", more=more))
        (tmp_path / ".env").write_text("ANTHROPIC_API_KEY=sk-test-from-dot-env\n")
        assert run(tmp_path, SYNC) == "Hello from the server.\n"
        assert "sk-test-from-dot-env" in str(server.seen[0].headers)
    logged = "".join(path.read_text() for path in (tmp_path / ".llmproc").rglob("*.jsonl"))
    assert "Hello from the server." in logged and "sk-test" not in logged


def test_a_program_with_links_starts_and_offers_spawn(tmp_path):
    (tmp_path / "expert.toml").write_text(MINIMAL.format(provider="scripted", more="") + SCRIPT)
    (tmp_path / "main.toml").write_text(
        MINIMAL.format(provider="scripted", more="") + SCRIPT + '[tools]\nenabled = ["spawn"]\n[linked_programs]\nexpert = "expert.toml"\n'
    )
    code = """
from llmproc_nb import LLMProcess
process = LLMProcess.from_toml("main.toml")
print(process.run("Hello"))
print([tool.name for tool in process.tools], process.notes, process.spawn("expert").run("Hello"))
"""
    assert run(tmp_path, code) == "Hello!\n['spawn', 'read_fd'] () Hello!\n"


def test_a_link_to_nowhere_is_an_error_at_the_start(tmp_path):
    from llmproc_nb import Program
    from llmproc_nb.core.errors import ProgramError

    (tmp_path / "main.toml").write_text(
        MINIMAL.format(provider="scripted", more="") + SCRIPT + '[linked_programs]\nexpert = "expert.toml"\n'
    )
    with pytest.raises(ProgramError, match=r"expert"):
        Program.from_toml(tmp_path / "main.toml").start()
