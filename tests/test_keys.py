"""Keys: those in `.env` beside the kernel count from the first cell, and the SDK they are for is there before it."""

from __future__ import annotations

import time

import pytest
from kernels import kernel, ok
from servers import Answer, LoopbackServer, anthropic_text, sse

from llmproc_nb.drivers.table import sdk_of, sdks_with_key

LOADED = "import sys; print([name for name in ('anthropic', 'openai') if name in sys.modules])"


def answer(request, n):
    return Answer(headers={"content-type": "text/event-stream"}, chunks=sse(anthropic_text("Hello from the server.")))


def loaded(front, wanted):
    """Wait until these SDKs are imported; they may come some time after they are asked for."""
    until = time.monotonic() + 40
    while (found := ok(front.run(LOADED)).printed.strip()) != wanted and time.monotonic() < until:
        time.sleep(0.3)
    assert found == wanted


def test_a_key_in_dot_env_is_enough_for_the_first_cell(tmp_path):
    with LoopbackServer(answer) as server, kernel() as front:
        (tmp_path / ".env").write_text(f"ANTHROPIC_API_KEY=sk-dot\nANTHROPIC_BASE_URL={server.url}\n")
        ok(front.run(f"import os; os.chdir({str(tmp_path)!r})\n%load_ext llmproc_nb"))
        loaded(front, "['anthropic']")
        assert ok(front.run("print(os.environ.get('ANTHROPIC_API_KEY'))")).printed == "None\n"  # nothing is set for the import
        assert "no model" not in str(ok(front.run("%%agent look --dry-run\nHi")).outputs)
        ran = ok(front.run("%%agent q\nHi"))
        assert "Hello from the server." in ran.data()[0]
        assert "sk-dot" in str(server.seen[0].headers)


def test_the_sdk_of_a_provider_that_was_chosen_is_imported_before_the_first_cell(tmp_path):
    with kernel() as front:
        ok(front.run(f"import os; os.chdir({str(tmp_path)!r})\n%load_ext llmproc_nb"))
        ok(front.run("%agent --model ollama:llama3.2"))
        loaded(front, "['openai']")


@pytest.mark.parametrize(
    ("name", "sdks"),
    [("ANTHROPIC_API_KEY", {"anthropic"}), ("OPENAI_API_KEY", {"openai"}), ("GOOGLE_API_KEY", {"openai"}), ("OTHER", set())],
)
def test_a_key_says_which_sdk_is_needed(name, sdks):
    assert sdks_with_key({name: "k"}) == sdks
    assert sdks_with_key({name: ""}) == set()


@pytest.mark.parametrize(
    ("provider", "sdk"),
    [
        ("anthropic", "anthropic"),
        ("anthropic_vertex", "anthropic"),
        ("openai", "openai"),
        ("openai_chat", "openai"),
        ("ollama", "openai"),
        ("scripted", None),
        ("else", None),
    ],
)
def test_a_provider_says_which_sdk_it_needs(provider, sdk):
    assert sdk_of(provider) == sdk
