"""`jupyter llmproc` as a person runs it: the real command in a process of its own, scripts in place of models, real ptys as terminals."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from paths import ROOT
from servers import Answer, LoopbackServer, anthropic_text, anthropic_tools, sse

COMMAND = (sys.executable, "-m", "llmproc_nb.cli")
TIMEOUT_S = 30.0

HELLO = """
# A friendly script.

[model]
name = "s"
provider = "scripted"

[[script.turns]]
say = "Hello there."

[[script.turns]]
say = "Hello again."
"""
COUNTS = """
[model]
name = "s"
provider = "scripted"

[prompt]
user = "Add 2 and 2."

[tools]
builtin = ["calculator"]

[demo]
display_name = "Counter"

[[script.turns]]
when = "Add"
say = "Let me see."
call = [{ name = "calculator", arguments = { expression = "2 + 2" } }]

[[script.turns]]
when = "^4$"
say = "It is {{result}}."

[[script.turns]]
say = "I can only add."
"""
SLOW = """
[model]
name = "s"
provider = "scripted"

[[script.turns]]
when = "slow"
say = "one two three four five six seven eight nine ten"
delay_s = 0.3

[[script.turns]]
say = "quick"
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with three programs; logs go where the command puts them."""
    for name, text in {"hello": HELLO, "counts": COUNTS, "slow": SLOW}.items():
        (tmp_path / f"{name}.toml").write_text(text)
    monkeypatch.delenv("LLMPROC_NB_LOG")
    return tmp_path


def jupyter_llmproc(folder: Path, *arguments: str, given: str | bytes = "", **environ: str) -> subprocess.CompletedProcess[str]:
    data = given.encode() if isinstance(given, str) else given
    command = [*COMMAND, *arguments]
    done = subprocess.run(command, cwd=folder, input=data, capture_output=True, env={**os.environ, **environ}, timeout=TIMEOUT_S)
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


# run


def test_run_writes_the_answer_and_nothing_else_to_stdout(folder: Path):
    done = jupyter_llmproc(folder, "run", "hello.toml", "-p", "Hi")
    (log,) = (folder / ".llmproc").glob("*.jsonl")
    assert (done.returncode, done.stdout) == (0, "Hello there.\n")
    assert done.stderr.splitlines() == [
        "scripted: no model answered",
        f"hello: end_turn, 1 request, {tokens(done.stderr)} tokens, $0.0000, log {log.relative_to(folder)}",
    ]


def tokens(text: str) -> str:
    found = re.search(r"([\d,]+) tokens", text)
    assert found, text
    return found[1]


def test_run_is_found_by_jupyter(folder: Path):
    environ = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = ["jupyter", "llmproc", "run", "hello.toml", "-p", "Hi", "-q"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env={**os.environ, **environ}, timeout=TIMEOUT_S)
    assert (done.returncode, done.stdout, done.stderr) == (0, "Hello there.\n", "")


def test_tools_and_warnings_go_to_stderr_unless_quiet(folder: Path):
    (folder / "counts.toml").write_text(COUNTS.replace("[demo]", "[odd]\nkey = 1\n\n[demo]"))
    done = jupyter_llmproc(folder, "run", "counts.toml", "--log", "0")
    lines = done.stderr.splitlines()
    assert done.stdout == "It is 4.\n"
    assert next(line for line in lines if line.startswith("warning: ")).startswith("warning: counts.toml: [odd]: ")
    assert 'tool calculator(expression="2 + 2")' in lines
    assert "tool calculator: 4 (# s)" in [re.sub(r"\d\.\d s", "# s", line) for line in lines]
    quiet = jupyter_llmproc(folder, "run", "counts.toml", "--log", "0", "--quiet")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "It is 4.\n", "")


ECHO = '[model]\nname = "s"\nprovider = "scripted"\n[prompt]\nuser = "own"\n[[script.turns]]\nwhen = "."\nsay = "<{{last}}>"\n'


@pytest.mark.parametrize(
    ("flags", "given", "asked"),
    [
        (("-p", "flag"), "piped", "flag"),
        (("-f", "prompt.txt"), "piped", "of a file\n"),
        (("-f", "-"), "piped", "piped"),
        ((), "piped", "piped"),
        ((), "", "own"),
        (("-a", "-p", "flag"), "", "own\n\nflag"),
        (("--append",), "piped", "own\n\npiped"),
        (("-p", "naïve 你好 🎉"), "", "naïve 你好 🎉"),
    ],
)
def test_the_prompt_is_that_of_the_flag_the_file_stdin_or_the_program(folder: Path, flags: Sequence[str], given: str, asked: str):
    (folder / "echo.toml").write_text(ECHO)
    (folder / "prompt.txt").write_bytes(b"\xef\xbb\xbfof a file\n")
    done = jupyter_llmproc(folder, "run", "echo.toml", "-q", "--log", "0", *flags, given=given)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"<{asked}>\n", "")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("run", "gone.toml", "-p", "x"), 1, "ProgramError: gone.toml: there is no such file; a program is a TOML or YAML file."),
        (
            ("run", "hello.toml"),
            2,
            "UsageError: hello.toml: there is no prompt; give one by -p, -f or stdin; the program has none of its own.",
        ),
        (("run", "hello.toml", "-p", " "), 2, "UsageError: the prompt given by -p is empty."),
        (("run", "hello.toml", "-f", "gone.txt"), 1, "PersonError: gone.txt: it cannot be read: No such file or directory."),
        (("run", "counts.toml", "-a"), 2, "UsageError: --append has nothing to append; a prompt by -p, -f or stdin is needed with it."),
        (("run", "hello.toml", "-p", "x", "-f", "y"), 2, "error: argument -f/--prompt-file: not allowed with argument -p/--prompt"),
        (("run", "hello.toml", "--cost-limit", "nan"), 2, "'nan' is no amount in dollars above 0, such as 0.50"),
        (("run", "hello.toml", "--max-steps", "0"), 2, "'0' is no whole number from 1 up"),
        (("run", "hello.toml", "-p", "x", "--model", "anthropc:m"), 1, "unknown provider 'anthropc'; did you mean 'anthropic'?"),
        (("run", "hello.toml", "-p", "x", "--model", "anthropic:"), 1, "--model 'anthropic:' names no model"),
        (("run", "hello.toml", "--mdel", "x"), 2, "llmproc run: error: unrecognized arguments: --mdel x; did you mean '--model'?"),
        (("check", "--jsn=1", "hello.toml"), 2, "llmproc check: error: unrecognized arguments: --jsn=1; did you mean '--json'?"),
        (("log", "a", "b"), 2, "llmproc log: error: unrecognized arguments: b\n"),
        (("talk",), 2, "invalid choice: 'talk'"),
        ((), 2, "the following arguments are required: COMMAND"),
        (("check", "gone.toml"), 1, ""),
        (("log", "gone.jsonl"), 1, "LogError: gone.jsonl: there is no such file or folder"),
        (("log", "--csv"), 2, "UsageError: --csv needs a frame; such as --frame calls --csv."),
        (("chat", "gone"), 2, "UsageError: there is no program 'gone'; a file, or one of the examples: "),
    ],
)
def test_what_cannot_work_is_said_in_one_line_with_its_exit_code(folder: Path, arguments: Sequence[str], code: int, said: str):
    done = jupyter_llmproc(folder, *arguments)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False), done.stderr
    assert said in done.stderr
    if "usage:" not in done.stderr and said:
        assert len(done.stderr.splitlines()) == 1


def test_a_prompt_that_is_no_text_is_refused(folder: Path):
    done = jupyter_llmproc(folder, "run", "hello.toml", given=b"\xff\xfe")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "PersonError: stdin: this is no UTF-8 (byte 0); a prompt is text in UTF-8.\n"


def test_json_says_everything_about_the_run(folder: Path):
    done = jupyter_llmproc(folder, "run", "counts.toml", "--json", "-q", "--log", "mine.jsonl")
    facts = json.loads(done.stdout)
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (0, "", 1)
    api_calls, tool_calls, usage = (facts.pop(name) for name in ("api_calls", "tool_calls", "usage"))
    assert facts == {
        "text": "It is 4.",
        "stop_reason": "end_turn",
        "cost_usd": 0.0,
        "model": "s",
        "provider": "scripted",
        "scripted": True,
        "process": "counts",
        "log": "mine.jsonl",
        "error": None,
    }
    assert [call["stop"] for call in api_calls] == ["tool_use", "end_turn"]
    duration_s = tool_calls[0].pop("duration_s")
    calculated = {"name": "calculator", "arguments": {"expression": "2 + 2"}, "outcome": "ran", "result": "4", "replayed": False}
    assert (tool_calls, 0 <= duration_s < 5) == ([calculated], True)
    assert usage["requests"] == 2
    assert usage["input_tokens"] == sum(call["input_tokens"] for call in api_calls)
    assert (folder / "mine.jsonl").is_file()


def test_json_is_printed_for_errors_too(folder: Path):
    (folder / "busy.toml").write_text(COUNTS.replace('when = "^4$"', 'when = "^4$"\nerror = "AuthError"'))
    done = jupyter_llmproc(folder, "run", "busy.toml", "--json", "--log", "0")
    facts = json.loads(done.stdout)
    assert (done.returncode, facts["stop_reason"]) == (1, "error")
    assert facts["error"] == {"kind": "AuthError", "text": "scripted: the script says so."}
    assert [call["result"] for call in facts["tool_calls"]] == ["4"]
    assert facts["usage"]["requests"] >= 1
    gone = jupyter_llmproc(folder, "run", "gone.toml", "--json")
    facts = json.loads(gone.stdout)
    assert (gone.returncode, facts["error"]["kind"], facts["process"], facts["usage"]) == (1, "ProgramError", None, None)


@pytest.mark.parametrize(
    ("program", "flags", "reason"),
    [(COUNTS, ("--max-steps", "1"), "max_steps"), (HELLO.replace('there."', 'there."\nstop = "max_tokens"'), (), "max_tokens")],
)
def test_a_limit_that_stops_the_run_is_exit_code_3(folder: Path, program: str, flags: Sequence[str], reason: str):
    (folder / "limited.toml").write_text(program)
    done = jupyter_llmproc(folder, "run", "limited.toml", "-p", "Add", "--log", "0", *flags)
    assert done.returncode == 3
    assert f"stopped by a limit: {reason}" in done.stderr.splitlines()


def test_retries_are_told(folder: Path):
    (folder / "busy.toml").write_text(HELLO.replace('there."', 'there."\nerror = "Overloaded"\nfail = 1'))
    done = jupyter_llmproc(folder, "run", "busy.toml", "-p", "Hi", "--log", "0")
    assert (done.returncode, done.stdout) == (0, "Hello there.\n")
    told = r"attempt 1 failed, again in 0\.\d s: scripted: the script says so\.; what came of the answer is dropped"
    assert [line for line in done.stderr.splitlines() if re.fullmatch(told, line)]


def test_a_reader_that_goes_away_is_no_fault(folder: Path):
    (folder / "long.toml").write_text(HELLO.replace("Hello there.", "word " * 40_000))
    script = f"{' '.join(COMMAND)} run long.toml -p Hi -q --log 0 | head -c 5; echo code ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert (done.stdout, done.stderr) == ("word code 141\n", "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("flag", ["--quiet", "--json"])
def test_a_full_disk_under_stdout_is_one_line(folder: Path, flag: str):
    with open("/dev/full", "w") as full:
        command = [*COMMAND, "run", "hello.toml", "-p", "Hi", "-q", "--log", "0", flag]
        done = subprocess.run(command, cwd=folder, stdout=full, stderr=subprocess.PIPE, text=True, timeout=TIMEOUT_S)
    assert (done.returncode, done.stderr) == (1, "OutputError: stdout cannot be written: No space left on device.\n")


def test_a_pipe_gets_the_raw_text(folder: Path):
    (folder / "odd.toml").write_text(HELLO.replace("Hello there.", "\\u001b[31mred\\u001b[0m \\u202eback"))
    done = jupyter_llmproc(folder, "run", "odd.toml", "-p", "Hi", "-q", "--log", "0")
    assert done.stdout == "\x1b[31mred\x1b[0m \u202eback\n"


@contextmanager
def running(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command under way, with pipes for its streams; it takes interrupts whatever this process does with them."""
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def until_logged(process: subprocess.Popen[bytes], log: Path, text: str) -> None:
    """Wait until the log of a command has a text."""
    end = time.monotonic() + TIMEOUT_S
    while not (log.is_file() and text in log.read_text()):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end, log.read_text() if log.is_file() else "there is no log"
        time.sleep(0.02)


@pytest.mark.parametrize("as_json", [False, True])
def test_an_interrupt_keeps_what_was_said_so_far(folder: Path, as_json: bool):
    with running(folder, "run", "slow.toml", "-p", "slow", "--log", "mine.jsonl", *(["--json"] if as_json else [])) as process:
        until_logged(process, folder / "mine.jsonl", '"asked"')
        time.sleep(0.5)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, err = (stream.decode() for stream in process.communicate(timeout=TIMEOUT_S))
        assert time.monotonic() - began < 1.5
    text = json.loads(out)["text"] if as_json else out
    assert process.returncode == 130
    assert text.startswith("one two") and "ten" not in text
    assert "interrupted; what it said so far is kept" in err
    assert "Traceback" not in err
    assert '"reason":"interrupted"' in (folder / "mine.jsonl").read_text()


# run, with a real SDK against a server on this machine

KEY = "sk-test-0123456789-nobody-may-see-this"
REAL = """
[model]
name = "claude-sonnet-4-5"
provider = "anthropic"
base_url = "{url}"
api_key_env = "CLI_TEST_KEY"

[tools]
builtin = ["calculator"]
"""


def test_a_model_behind_the_official_sdk_answers_and_its_key_is_nowhere(folder: Path):
    turns = [
        Answer(chunks=sse(anthropic_tools([("t1", "calculator", {"expression": "6 * 7"})], text="I count.", model="nobody-knows-1"))),
        Answer(status=529, body={"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}),
        Answer(chunks=sse(anthropic_text("It is 42.", model="nobody-knows-1"))),
    ]
    flags = ("-p", "What is 6 times 7?", "--json", "--cost-limit", "1", "--model", "nobody-knows-1")
    with LoopbackServer(lambda seen, n: turns[n]) as server:
        (folder / "real.toml").write_text(REAL.format(url=server.url))
        (folder / ".env").write_text(f"CLI_TEST_KEY={KEY}\n")
        done = jupyter_llmproc(folder, "run", "real.toml", *flags)
    facts = json.loads(done.stdout)
    assert [KEY in "".join(seen.headers.values()) for seen in server.seen] == [True, True, True]
    assert (done.returncode, facts["text"], facts["stop_reason"], facts["scripted"]) == (0, "It is 42.", "end_turn", False)
    assert (facts["model"], facts["cost_usd"], facts["error"]) == ("nobody-knows-1", None, None)
    assert [call["result"] for call in facts["tool_calls"]] == ["42"]
    assert [(call["stop"], call["attempts"]) for call in facts["api_calls"]] == [("tool_use", 1), ("end_turn", 2)]
    told = [re.sub(r"\d\.\d s", "# s", line) for line in done.stderr.splitlines()]
    assert told[:-1] == [
        "warning: no price of nobody-knows-1 is known: its limit of dollars never stops it; a limit of tokens does",
        'tool calculator(expression="6 * 7")',
        "tool calculator: 42 (# s)",
        "attempt 1 failed, again in # s: anthropic nobody-knows-1: Overloaded (529).",
    ]
    assert told[-1] == f"real: end_turn, 2 requests, {facts['usage']['input_tokens'] + 10} tokens, cost unknown, log {facts['log']}"
    files = [path for path in (folder / ".llmproc").rglob("*") if path.is_file()]
    assert Path(facts["log"]).name in [path.name for path in files]
    assert KEY not in done.stdout + done.stderr + "".join(path.read_text() for path in files)


# terminals


class Screen:
    """The command on a pty: what it shows, and what is typed."""

    def __init__(self, folder: Path, *arguments: str, **environ: str) -> None:
        self.text = ""
        self.pid, self._fd = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.environ.update({"TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1", "COLUMNS": "200", **environ})
            os.execv(COMMAND[0], [*COMMAND, *arguments])

    def until(self, text: str) -> str:
        """What was shown since the last time, up to this text."""
        end = time.monotonic() + TIMEOUT_S
        while text not in plain(self.text):
            assert time.monotonic() < end and self._read(end), f"{text!r} does not come; shown was {plain(self.text)!r}"
        before, _, self.text = plain(self.text).partition(text)
        return before + text

    def _read(self, end: float) -> bool:
        try:
            ready = select.poll()  # not select, which can wait for no descriptor above 1,023: a run of all tests has many open
            ready.register(self._fd, select.POLLIN)
            if not ready.poll(1000 * max(0.0, end - time.monotonic())):
                return False
            data = os.read(self._fd, 65536)
        except OSError:  # the command has ended
            return False
        self.text += data.decode("utf-8", "replace")
        return bool(data)

    def type(self, text: str) -> None:
        """Type when there is something to type at; what comes earlier would meet a terminal that still treats it itself."""
        self.until(">")
        os.write(self._fd, text.encode())

    def end(self) -> tuple[str, int]:
        """The rest of what is shown, and the exit code."""
        while self._read(time.monotonic() + TIMEOUT_S):
            pass
        os.close(self._fd)
        return plain(self.text), os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def plain(text: str) -> str:
    """What is on a terminal, without what moves its cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\r", "", text)


def test_on_a_terminal_the_answer_grows_and_nothing_in_it_acts(folder: Path):
    (folder / "odd.toml").write_text(SLOW.replace("three", "\\u001b]0;owned\\u0007").replace("0.3", "0.1"))
    screen = Screen(folder, "run", "odd.toml", "-p", "slow", "--log", "0")
    screen.until("scripted: no model answered")
    began = time.monotonic()
    screen.until("one two")
    grew = time.monotonic()
    rest = screen.until("ten\n")
    assert time.monotonic() - grew > 0.3 > grew - began
    assert "␛]0;owned␇" in rest and "\x1b" not in rest and "\x07" not in rest
    assert screen.end()[1] == 0


def test_on_a_terminal_each_text_is_shown_once(folder: Path):
    screen = Screen(folder, "run", "counts.toml", "--log", "0", "-p", "Add 2 and 2.")
    screen.until("scripted: no model answered")
    shown, code = screen.end()
    lines = [line.strip() for line in shown.splitlines() if line.strip()]
    tools = ['tool calculator(expression="2 + 2")', "tool calculator: 4 (0.0 s)"]
    assert (lines[:-1], code) == (["Let me see.", *tools, "It is 4."], 0)


def test_a_chat_answers_resets_helps_and_ends_with_its_totals(folder: Path):
    screen = Screen(folder, "chat", "hello.toml")
    assert "hello (scripted:s)" in screen.until("scripted: no model answers here, a script does")
    screen.type("Hi\r")
    screen.until("Hello there.")
    screen.type("Hi again\r")
    screen.until("Hello again.")
    screen.type("reset\r")
    screen.until("back at the beginning")
    screen.type("Hi\r")
    screen.until("Hello there.")
    screen.type("help\r")
    screen.until("exit, quit")
    screen.type("quit\r")
    shown, code = screen.end()
    assert code == 0
    assert re.search(r"hello: 3 requests, [\d,]+ tokens, \$0\.0000, log \.llmproc/", shown)


def test_ctrl_c_stops_an_answer_and_keeps_the_chat_and_ctrl_d_ends_it(folder: Path):
    screen = Screen(folder, "chat", "slow.toml", "--log", "0")
    screen.type("slow\r")
    screen.until("two")
    os.kill(screen.pid, signal.SIGINT)
    assert "ten" not in screen.until("interrupted; what it said so far is kept")
    screen.type("and now\r")
    screen.until("quick")
    screen.type("\x03")
    screen.until("Ctrl-D or `exit` ends the chat")
    screen.type("\x04")
    shown, code = screen.end()
    assert (code, "slow: 2 requests" in shown) == (0, True)


def test_a_chat_without_a_program_lists_the_examples_to_choose_from(folder: Path):
    (folder / "programs").mkdir()
    (folder / "programs" / "a-friend.toml").write_text(HELLO.lstrip())
    (folder / "programs" / "broken.yaml").write_text("model: [")
    screen = Screen(folder, "chat", "--log", "0")
    listed = screen.until("program (number or name)")
    assert re.search(r" 1 +a-friend +a-friend\.toml +A friendly script\.", listed)
    assert re.search(r" 2 +broken +broken\.yaml +does not load: ", listed)
    assert re.search(r" \d+ +scout +quickstart\.toml ", listed)
    screen.type("nobody\r")
    screen.until("there is no program 'nobody'")
    screen.type("1\r")
    screen.until("a-friend (scripted:s)")
    screen.type("\x04")
    assert screen.end()[1] == 0


def test_demo_prompts_are_asked_one_by_one_as_the_person_wants(folder: Path):
    (folder / "demo.toml").write_text(HELLO + '[demo]\nprompts = ["First?", "Second?", "Third?"]\n')
    screen = Screen(folder, "chat", "demo.toml", "--log", "0")
    screen.until("demo 1 of 3: First?")
    screen.until("Enter asks it, `skip` leaves the demo")
    screen.type("\r")
    screen.until("Hello there.")
    screen.until("demo 2 of 3: Second?")
    screen.until("leaves the demo")
    screen.type("skip\r")
    screen.type("exit\r")
    assert "demo: 1 request," in screen.end()[0]


def test_a_chat_takes_its_lines_from_a_pipe(folder: Path):
    done = jupyter_llmproc(folder, "chat", "counts.toml", "--log", "0", given="\nAdd\nreset\nWho?\n")
    assert (done.returncode, done.stdout) == (0, "It is 4.\nIt is 4.\nI can only add.\n")
    assert "Counter (scripted:s, 2 tools)" in done.stderr
    assert "the program asks: Add 2 and 2." in done.stderr
    assert "counts: 5 requests" in done.stderr
    assert [line for line in done.stderr.splitlines() if line.startswith("tool ")] == ['tool calculator(expression="2 + 2")'] * 2
    without = jupyter_llmproc(folder, "chat", "counts.toml", "-p", "--log", "0", "-q", given="Who?\nexit\nnever\n")
    assert (without.returncode, without.stdout, without.stderr) == (0, "I can only add.\n", "")


def test_an_error_in_a_chat_is_one_line_and_the_chat_goes_on(folder: Path):
    done = jupyter_llmproc(folder, "chat", "hello.toml", "--log", "0", "-q", given="one\ntwo\nthree\nreset\nfour\n")
    assert (done.returncode, done.stdout) == (0, "Hello there.\nHello again.\nHello there.\n")
    error, reset = done.stderr.splitlines()
    assert (error.startswith("RequestRefused: scripted: the script has no turn"), reset) == (True, "back at the beginning")


# check


def test_check_gives_a_line_for_each_remark(folder: Path):
    (folder / "bad.toml").write_text('[model]\nname = "m"\nprovider = "anthropic"\n[parameters]\nmax_tokens = "many"\n[oops]\nx = 1\n')
    done = jupyter_llmproc(folder, "check", "hello.toml", "bad.toml")
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert lines[0] == "hello.toml: ok: scripted:s, 0 notes"
    assert lines[1].startswith("bad.toml: [parameters] max_tokens: error: ")
    assert lines[2].startswith("bad.toml: [oops]: unknown: ")
    quiet = jupyter_llmproc(folder, "check", "-q", "hello.toml", "bad.toml")
    assert (quiet.returncode, quiet.stdout.splitlines()) == (1, [lines[1]])
    assert jupyter_llmproc(folder, "check", "--quiet", "hello.toml").stdout == ""


def test_check_searches_folders_for_programs(folder: Path):
    (folder / "sub" / ".hidden").mkdir(parents=True)
    (folder / "sub" / "p.yaml").write_text("model: {name: m, provider: anthropic}\n")
    (folder / "sub" / ".hidden" / "h.toml").write_text("[model]\n")
    (folder / "sub" / "pyproject.toml").write_text('[project]\nname = "x"\n')
    done = jupyter_llmproc(folder, "check", "sub")
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        ["sub/p.yaml: ok: anthropic:m, 0 notes", "sub/pyproject.toml: skipped: it has no table [model], so it is no program"],
    )
    (folder / "sub" / "typo.toml").write_text('[modle]\nname = "m"\n')
    assert jupyter_llmproc(folder, "check", "sub", "-q").returncode == 1
    (folder / "sub" / "typo.toml").write_text('[model\nname = "m"\n')
    (folder / "sub" / "cut.yml").write_text("a: [1, 2\n")
    (folder / "sub" / "tags.yml").write_text("a: !x 1\n")
    (folder / "sub" / "two.yml").write_text("a: 1\n---\nb: 2\n")
    broken = jupyter_llmproc(folder, "check", "sub").stdout.splitlines()
    skipped = [line.split(":")[0] for line in broken if ": skipped: " in line]
    assert skipped == ["sub/pyproject.toml", "sub/tags.yml", "sub/two.yml"]
    assert [line.split(":")[0] for line in broken if ": error: " in line] == ["sub/cut.yml", "sub/typo.toml"]
    assert "sub/typo.toml: line 1, column 7: error: no valid TOML: Expected ']' at the end of a table declaration." in broken
    (folder / "empty").mkdir()
    nothing = jupyter_llmproc(folder, "check", "empty")
    assert (nothing.returncode, nothing.stderr.startswith("there is no program to check")) == (1, True)


@pytest.mark.parametrize(
    ("provider", "rest", "said"),
    [
        ("scripted", "", "p.toml: [script]: error: there are no turns; provider = "),
        ("azure", "", "p.toml: [model] provider: error: 'azure' cannot be started here: every resource has its own address"),
        ("codex", "", "p.toml: [model] provider: error: 'codex' cannot be started here: "),
        (
            "anthropic",
            '[tools]\nbuiltin = ["ast_grp", "wait"]\n',
            "p.toml: [tools] builtin: error: there is no tool 'ast_grp'; did you mean 'ast_grep'?",
        ),
        ("anthropic", '[tools]\nbuiltin = ["my_own"]\n', "p.toml: [tools] builtin: error: there is no tool 'my_own'; there are calculator"),
        ("anthropic", '[tools]\nbuiltin = ["wait", "copy"]\n', "p.toml: ok: anthropic:m, 0 notes"),
    ],
)
def test_check_refuses_what_could_not_start(folder: Path, provider: str, rest: str, said: str):
    (folder / "p.toml").write_text(f'[model]\nname = "m"\nprovider = "{provider}"\n{rest}')
    done = jupyter_llmproc(folder, "check", "p.toml")
    assert (done.returncode, len(done.stdout.splitlines())) == (0 if ": ok: " in said else 1, 1)
    assert done.stdout.startswith(said)


def test_check_gives_json(folder: Path):
    (folder / "bad.toml").write_text('[model]\nname = "m"\nprovider = "anthropic"\n[parameters]\nmax_tokens = "many"\n')
    done = jupyter_llmproc(folder, "check", "--json", "hello.toml", "bad.toml")
    good, bad = json.loads(done.stdout)
    assert (done.returncode, good) == (1, {"file": "hello.toml", "program": "hello", "ok": True, "errors": [], "notes": []})
    assert (bad["ok"], [error["place"] for error in bad["errors"]]) == (False, ["bad.toml: [parameters] max_tokens"])


def test_an_address_on_the_command_line_goes_to_that_server(folder: Path):
    answer = Answer(headers={"content-type": "text/event-stream"}, chunks=sse(anthropic_text("Here I am.")))
    with LoopbackServer(lambda seen, n: answer) as server:
        flags = ("--model", "anthropic:claude-sonnet-5-5", "--base-url", server.url, "-q")
        run = jupyter_llmproc(folder, "run", "hello.toml", "-p", "Hi", *flags, ANTHROPIC_API_KEY="k")
        chat = jupyter_llmproc(folder, "chat", "hello.toml", *flags, given="Hi\nexit\n", ANTHROPIC_API_KEY="k")
    assert (run.returncode, run.stdout, run.stderr) == (0, "Here I am.\n", "")
    assert (chat.returncode, chat.stdout) == (0, "Here I am.\n")
    assert len(server.seen) == 2


# log


@pytest.fixture
def logged(folder: Path) -> Path:
    assert jupyter_llmproc(folder, "run", "counts.toml", "-q", "--log", "counts.jsonl").returncode == 0
    return folder


CHANGES = re.compile(r"^\d\d:\d\d:\d\d  |\d+ in, \d+ out, |[\d,]+ tokens, |, \d+\.\d s|\d{4}-\d\d-\d\d UTC, run \w+")


def without_time(text: str) -> list[str]:
    """The lines, without what changes from run to run."""
    return [CHANGES.sub("", line).rstrip() for line in text.splitlines()]


def test_a_log_is_read_as_lines(logged: Path):
    done = jupyter_llmproc(logged, "log", "counts.jsonl")
    assert (done.returncode, done.stderr) == (0, "")
    assert without_time(done.stdout) == [
        "        log",
        "counts  started    (pid 1, scripted:s, scripted: no model answers)",
        "counts  user       Add 2 and 2.  (call 1)",
        'counts  answer     Let me see. → calculator(expression="2 + 2")  (tool_use)',
        "counts  tool       calculator: 4  (ran)",
        "counts  answer     It is 4.  (end_turn)",
        "counts  stopped    end_turn  ($0.0000)",
    ]
    tail = jupyter_llmproc(logged, "log", "counts.jsonl", "--tail", "2")
    assert tail.stdout.splitlines() == done.stdout.splitlines()[-2:]


def test_a_log_gives_frames_events_and_csv(logged: Path):
    calls = jupyter_llmproc(logged, "log", "counts.jsonl", "--frame", "calls", "--json")
    (row,) = [json.loads(line) for line in calls.stdout.splitlines()]
    assert (row["process"], row["requests"], row["text"]) == ("counts", 2, "It is 4.")
    table = jupyter_llmproc(logged, "log", "counts.jsonl", "--frame", "messages", "--csv").stdout.splitlines()
    assert (table[0].split(",")[0], len(table)) == ("depth", 6)
    assert "calculator" in jupyter_llmproc(logged, "log", "counts.jsonl", "--frame", "tools").stdout
    events = [json.loads(line) for line in jupyter_llmproc(logged, "log", "counts.jsonl", "--json").stdout.splitlines()]
    assert [event["seq"] for event in events] == list(range(1, len(events) + 1))
    assert events == [json.loads(line) for line in (logged / "counts.jsonl").read_text().splitlines()]


def test_a_log_can_be_verified(logged: Path):
    done = jupyter_llmproc(logged, "log", "counts.jsonl", "--verify")
    assert (done.returncode, done.stdout) == (0, "counts.jsonl: 5 messages, each with the id that it should have\n")
    log = logged / "counts.jsonl"
    log.write_text(log.read_text().replace("It is 4.", "It is 5."))
    changed = jupyter_llmproc(logged, "log", "counts.jsonl", "--verify")
    assert (changed.returncode, changed.stdout) == (1, "")
    assert changed.stderr.startswith("LogError: counts.jsonl, event ")


@pytest.mark.parametrize("data", [b"this is no log", b"\x00\xff\x00", b"{"])
def test_what_is_no_log_is_an_error(folder: Path, data: bytes):
    (folder / "x.jsonl").write_bytes(data)
    done = jupyter_llmproc(folder, "log", "x.jsonl")
    said = "LogError: x.jsonl: there is no event in it; a log has one JSON event in each line.\n"
    assert (done.returncode, done.stdout, done.stderr) == (1, "", said)


def test_a_torn_log_is_read_and_says_so(logged: Path):
    log = logged / "counts.jsonl"
    log.write_bytes(log.read_bytes()[:-20])
    done = jupyter_llmproc(logged, "log", "counts.jsonl", "--tail", "1")
    assert (done.returncode, without_time(done.stdout)) == (0, ["counts  answer     It is 4.  (end_turn)"])
    assert done.stderr == "counts.jsonl: the last line is torn and left out: its writer was stopped while writing\n"


# the command itself

HEAVY = ("anthropic", "openai", "mcp", "pandas", "IPython", "ipywidgets", "pydantic")


@pytest.mark.parametrize(
    "arguments", [("--help",), ("run", "--help"), ("chat", "--help"), ("check", "--help"), ("log", "--help"), ("--version",)]
)
def test_help_is_there_at_once(folder: Path, arguments: Sequence[str]):
    code = f"import sys; sys.argv[1:] = {list(arguments)!r}; from llmproc_nb.cli import main\ntry: main()\n"
    code += "finally: sys.stderr.write(' '.join(sys.modules))"
    before = os.times()
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S)
    after = os.times()
    assert done.returncode == 0, done.stderr
    assert "llmproc" in done.stdout
    spent_s = after.children_user - before.children_user + after.children_system - before.children_system
    assert spent_s < 0.6
    assert {*HEAVY, "msgspec", "llmproc_nb.core"} & set(done.stderr.split()) == set()


def test_a_run_without_a_model_loads_no_sdk_and_no_notebook(folder: Path):
    code = "import sys; from llmproc_nb.cli import main\ncode = main(['run', 'hello.toml', '-p', 'Hi', '-q', '--log', '0'])\n"
    code += f"print([name for name in {HEAVY!r} if name in sys.modules], code)"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert (done.stdout, done.stderr) == ("Hello there.\n[] 0\n", "")


def test_programs_of_this_checkout_are_in_order():
    done = jupyter_llmproc(ROOT, "check", "programs")
    assert (done.returncode, [line for line in done.stdout.splitlines() if not line.endswith(", 0 notes")]) == (0, []), done.stdout
