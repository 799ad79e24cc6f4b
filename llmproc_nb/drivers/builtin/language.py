"""Languages that code can be searched in, by name and by the suffixes of their files. Pure data, and the look-up."""

from __future__ import annotations

from pathlib import Path

from llmproc_nb.core.errors import ToolError, meant

SUFFIXES: dict[str, tuple[str, ...]] = {
    "bash": (".sh", ".bash", ".zsh"),
    "c": (".c", ".h"),
    "cpp": (".cpp", ".cc", ".cxx", ".hpp", ".hh", ".hxx", ".h", ".cu"),
    "csharp": (".cs",),
    "css": (".css",),
    "elixir": (".ex", ".exs"),
    "go": (".go",),
    "haskell": (".hs",),
    "hcl": (".hcl", ".tf"),
    "html": (".html", ".htm"),
    "java": (".java",),
    "javascript": (".js", ".jsx", ".mjs", ".cjs"),
    "json": (".json",),
    "kotlin": (".kt", ".kts"),
    "lua": (".lua",),
    "nix": (".nix",),
    "php": (".php",),
    "python": (".py", ".pyi"),
    "ruby": (".rb",),
    "rust": (".rs",),
    "scala": (".scala", ".sc"),
    "solidity": (".sol",),
    "swift": (".swift",),
    "tsx": (".tsx",),
    "typescript": (".ts", ".mts", ".cts"),
    "yaml": (".yaml", ".yml"),
}
"""A suffix that several have counts for the first, unless another one is asked for."""
_OTHER_NAMES = {"c#": "csharp", "c++": "cpp", "golang": "go", "shell": "bash", "terraform": "hcl"}
_BY_SUFFIX = {suffix: name for name, suffixes in reversed(SUFFIXES.items()) for suffix in suffixes}


def language_of(path: Path) -> str | None:
    """The language that a file's suffix tells; None where it tells none."""
    return _BY_SUFFIX.get(path.suffix.lower())


def named(language: str) -> str:
    """The language of a name, such as python, py or C++; empty for an empty name. Raises ToolError."""
    name = language.strip().lower()
    found = _OTHER_NAMES.get(name, name if name in SUFFIXES else _BY_SUFFIX.get(f".{name}", ""))
    if name and not found:
        known = f"there are {', '.join(SUFFIXES)}"
        raise ToolError(f"there is no language {language!r:.60} here", right=meant(name, tuple(SUFFIXES), known))
    return found
