"""What a model sees of the system calls: their descriptions and parameters. What they do is in syscall."""

from __future__ import annotations

from typing import Any

_TEXT = {"type": "string"}
_PID = {**_TEXT, "description": "The process, by the name or pid you were told"}
DESCRIPTIONS: dict[str, str] = {
    "goto": "Go back to an earlier message and go on from there. Everything after it leaves your context (files and other effects stay as "
    "they are). Use it when what followed is not needed any more, or was a wrong way. Other tools called in the same reply are not run.",
    "fork": "Make copies of yourself, one for each prompt, that know everything you know until now and work at the same time, each on its "
    "own prompt. You get all their answers, in order, and nothing else of what they did.",
    "spawn": "Start a new process and give it a prompt. It knows nothing of this dialog. You get its answer.",
    "wait": "Wait for a process that runs in the background and get its answer.",
    "send": "Send a text to another running process. It reads it with its next step.",
    "kill": "End a process that you started.",
    "read_fd": "Read a file descriptor (fd): a part by page, line or character, all of it, or where a regular expression matches.",
    "fd_to_file": "Write the whole text of a file descriptor (fd:1, ref:name) to a file.",
    "run_python": "Run Python code in your own confined notebook kernel and get its output. Variables, imports and files in the working "
    "folder stay for the next call. The value of the last expression is shown, and figures are shown as images. There is no network.",
    "write_stderr": "Write a line to the log that people watch while you work. It is not part of your answer.",
}
PARAMETERS: dict[str, dict[str, dict[str, Any]]] = {
    "goto": {
        "position": {**_TEXT, "description": "The label of the message to go back to, as in msg_3"},
        "message": {**_TEXT, "description": "A note to yourself: what you found out, and what to do from there"},
    },
    "fork": {"prompts": {"type": "array", "items": _TEXT, "description": "The task of each copy"}},
    "spawn": {
        "prompt": {**_TEXT, "description": "What the new process is to do; say all that it must know"},
        "program_name": {**_TEXT, "default": "", "description": "The program to start; empty: your own"},
        "additional_preload_files": {
            "type": "array",
            "items": _TEXT,
            "default": [],
            "description": "Files that it gets to read at its start",
        },
        "fds": {"type": "array", "items": _TEXT, "default": [], "description": "Your fds that it may read, as in fd:1"},
        "wait": {"type": "boolean", "default": True, "description": "false: go on at once; wait(pid) gives the answer later"},
    },
    "wait": {"pid": _PID},
    "send": {"pid": _PID, "text": {**_TEXT, "description": "What to tell it"}},
    "kill": {"pid": _PID},
    "read_fd": {
        "fd": {**_TEXT, "description": "The descriptor, as in fd:1 or ref:name"},
        "read_all": {"type": "boolean", "default": False, "description": "Read all of it"},
        "extract_to_new_fd": {"type": "boolean", "default": False, "description": "Make the part an fd of its own instead of showing it"},
        "mode": {**_TEXT, "enum": ["page", "line", "char"], "default": "page", "description": "What start and count count"},
        "start": {"type": "integer", "default": 1, "description": "Where to begin, counted from 1"},
        "count": {"type": "integer", "default": 1, "description": "How many pages, lines or characters"},
        "pattern": {**_TEXT, "default": None, "description": "A regular expression: show the lines where it matches, from start on"},
        "context_lines": {"type": "integer", "default": 2, "description": "Lines to show around each match"},
    },
    "fd_to_file": {
        "fd": {**_TEXT, "description": "The descriptor, as in fd:1 or ref:name"},
        "file_path": {**_TEXT, "description": "Path relative to the working folder"},
        "mode": {**_TEXT, "enum": ["write", "append"], "default": "write", "description": "Replace what is there, or add to it"},
        "create": {"type": "boolean", "default": True, "description": "Make the file if it is missing"},
        "exist_ok": {"type": "boolean", "default": True, "description": "Whether it may exist already"},
    },
    "run_python": {"code": {**_TEXT, "description": "The code of one cell"}},
    "write_stderr": {"message": {**_TEXT, "description": "The line"}},
}
