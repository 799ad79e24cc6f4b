# ruff: noqa: E501
"""What cannot be right in a program is refused with file, table, key and suggestion; hostile texts soon."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from paths import ROOT

from llmproc_nb.core.errors import ProgramError
from llmproc_nb.core.program import Program
from llmproc_nb.drivers import files

MODEL = '[model]\nname = "m"\nprovider = "anthropic"\n'


def toml(text: str, folder: Path = Path(".")) -> Program:
    return files.from_text(text, "toml", base_dir=folder, source="p.toml")


def refusal(text: str, kind: str = "toml") -> str:
    with pytest.raises(ProgramError) as caught:
        files.from_text(text, kind, source=f"p.{kind}")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (MODEL + "[parameters]\nmax_tokens = \"1000\"", "[parameters] max_tokens: found the text '1000'; a whole number from 1 up is needed. Write 1000 without quotes."),
        (MODEL + "[parameters]\nmax_tokens = 0", "[parameters] max_tokens: found the number 0; a whole number from 1 up is needed."),
        (MODEL + "[parameters]\nmax_tokens = true", "[parameters] max_tokens: found true; a whole number from 1 up is needed. In YAML, yes, no, on and off are read as true and false; put a text in quotes."),
        (MODEL + "[parameters]\ntemperature = nan", "[parameters] temperature: found the number nan; a number from 0 up is needed."),
        (MODEL + "[parameters]\ntop_p = 3", "[parameters] top_p: found the number 3; a number from 0 to 1 is needed."),
        (MODEL + "[parameters]\nmax_tokens = 1\nmax_completion_tokens = 2", "[parameters] max_tokens and max_completion_tokens: both are given; they mean the same: keep one of them."),
        (MODEL + '[parameters]\nreasoning_effort = "hihg"', "[parameters] reasoning_effort: found the text 'hihg'; it is one of none, minimal, low, medium, high, xhigh, max. Did you mean 'high'?"),
        (MODEL + "[parameters]\ntool_choice = true", "[parameters] tool_choice: found true; a text is needed. In YAML, yes, no, on and off are read as true and false; put a text in quotes."),
        (MODEL + "[parameters.thinking]\nbudget_tokens = -1", "[parameters.thinking] budget_tokens: found the number -1; a whole number from 0 up is needed."),
        (MODEL + "[parameters]\nseed = 2024-01-01", "[parameters] seed: found a date or time; a text, a number, true, false, a list or a table is needed. Put it in quotes."),
        (MODEL + "[file_descriptor]\nenabled = true\nmax_input_chars = -5", "[file_descriptor] max_input_chars: found the number -5; a whole number from 1 up is needed."),
        (MODEL + '[file_descriptor]\nenabled = "true"', "[file_descriptor] enabled: found the text 'true'; true or false is needed. Write true without quotes."),
        (MODEL + "[tools]\nbuiltin = 3", "[tools] builtin: found the number 3; a list is needed."),
        (MODEL + '[tools]\nbuiltin = ["a", 3]', '[tools] builtin[2]: found the number 3; a tool is its name in quotes, or a table such as {name = "read_file", alias = "read"}.'),
        (MODEL + '[tools]\nbuiltin = [{alias = "x"}]', '[tools] builtin[1]: a tool without a name; a tool object has at least name = "…".'),
        (MODEL + '[tools]\nbuiltin = [{name = "a", access = "root"}]', "[tools.builtin[1]] access: found the text 'root'; it is one of read, write, admin."),
        (MODEL + '[tools]\nbuiltin = [{name = "a", alias = "x"}, {name = "b", alias = "x"}]', "[tools] builtin: two tools are called 'x'; each tool needs its own name. Give one another alias."),
        (MODEL + "[[prompt]]\nsystem = 'x'", "prompt: found a list; a table is needed. Write it with single brackets."),
        (MODEL + "[prompt]\nsystem = 1", "[prompt] system: found the number 1; a text is needed. Put it in quotes."),
        (MODEL + '[prompt]\nsystem_prompt_file = "READNE.md"', "[prompt] system_prompt_file: there is no file 'READNE.md'; paths are relative to the program's folder. Did you mean 'README.md'?"),
        (MODEL + '[mcp]\nconfig_path = "x/y.json"\n[tools.mcp]\na = "all"', "[mcp] config_path: there is no file 'x/y.json'; paths are relative to the program's folder. There is no folder 'x' either."),
        (MODEL + '[mcp.servers.time]\ncommand = "x"\n[tools.mcp]\ntiem = "all"', "[tools.mcp] tiem: there is no server of this name in [mcp]; there is time. Did you mean 'time'?"),
        (MODEL + "[mcp.servers.s]\ntype = \"stdio\"", "[mcp.servers.s] command: no command is given; a stdio server is started by its command; others have a type and a url."),
        (MODEL + '[mcp.servers.s]\ncommand = "c"\ntimeout = "60"', "[mcp.servers.s] timeout: found the text '60'; a number of seconds, more than 0, is needed. Write 60 without quotes."),
        (MODEL + '[mcp.servers.s]\ncommand = "c"\ntimeout_s = 0', "[mcp.servers.s] timeout_s: found the number 0; a number of seconds, more than 0, is needed."),
        (MODEL + '[mcp.servers.s]\ncommand = "c"\nconnect_timeout = nan', "[mcp.servers.s] connect_timeout: found the number nan; a number of seconds, more than 0, is needed."),
        (MODEL + '[mcp.servers.s]\ncommand = "c"\nconnect_timeout = true', "[mcp.servers.s] connect_timeout: found true; a number of seconds, more than 0, is needed. In YAML, yes, no, on and off are read as true and false; put a text in quotes."),
        (MODEL + "[mcp.servers.s]\ntype = \"sse\"", "[mcp.servers.s] url: no address is given; a server of type sse has a url."),
        (MODEL + "[mcp.servers.s]\ncommand = \"c\"\ntype = \"htp\"", "[mcp.servers.s] type: found 'htp'; it is stdio, sse or http. Did you mean 'http'?"),
        (MODEL + "[linked_programs]\nx = 3", "[linked_programs] x: found the number 3; a text is needed. Put it in quotes."),
        (MODEL + "[linked_programs.x]\ndescription = \"d\"", '[linked_programs.x] path: no file is named; a link is a path, or {path = "…", description = "…"}.'),
        (MODEL + "[tools.anthropic.web_search]\nenabled = true\nmax_uses = 51", "[tools.anthropic.web_search] max_uses: found 51; a whole number from 1 to 50 is needed."),
        (MODEL + "max_iterations = 0", "[model] max_iterations: found the number 0; a whole number from 1 up is needed."),
        (MODEL + "[limits]\nsteps = 0", "[limits] steps: found the number 0; a whole number from 1 up is needed."),
        (MODEL + 'base_url = "localhost"', "[model] base_url: found the text 'localhost'; an address such as \"http://localhost:11434/v1\" is needed."),
        ('name = "a"\n[program]\nname = "b"\n' + MODEL, "name: found 'a', and 'b' as [program] name; both mean the same: keep one of them."),
        ('[model]\nprovider = "openai"', '[model] name: no model is named; write e.g. name = "claude-sonnet-5-5".'),
        ('[model]\nprovider = "openai"\nnme = "x"', "[model] name: no model is named; write e.g. name = \"claude-sonnet-5-5\". There is a key 'nme': is that it?"),
        ('[modle]\nname = "x"', "[model]: there is no such table; a program has a table [model] with name = \"…\" and provider = \"…\". There is a key 'modle': is that it?"),
        ("", '[model]: there is no such table; a program has a table [model] with name = "…" and provider = "…".'),
        (MODEL + '[[script.turns]]\nwhen = "("', "[script.turns[1]] when: no valid regular expression: missing ), unterminated subpattern at position 0; a pattern as Python's re reads it is needed."),
        (MODEL + '[[script.turns]]\nstop = "halt"', "[script.turns[1]] stop: found the text 'halt'; it is one of end_turn, tool_use, max_tokens, stop_sequence, refusal, pause_turn, context_window, other."),
        (MODEL + '[[script.turns]]\ncall = {name = "x"}', '[script.turns[1]] call: found a table; a list is needed: call = [{name = "add", arguments = {a = 1}}].'),
        (MODEL + "[[script.turns]]\ncall = [{arguments = {}}]", '[script.turns[1].call[1]] name: no tool is named; a call has at least name = "…".'),
        (MODEL + '[[script.turns]]\nsay = "a"\nreply = "b"', "[script.turns[1]] reply: there is `say` too; both mean the same: keep one of them."),
    ],
    ids=lambda text: text.removeprefix(MODEL)[:30] if text.startswith("[") else "",
)  # fmt: skip
def test_an_impossible_value_is_refused_with_place_and_suggestion(text: str, error: str) -> None:
    with pytest.raises(ProgramError) as caught:
        toml(text, ROOT)
    assert str(caught.value) == f"p.toml: {error}"


def test_a_wrong_provider_is_refused_with_the_one_that_was_meant() -> None:
    text = refusal('[model]\nname = "m"\nprovider = "antropic"\n')
    assert text.startswith("p.toml: [model] provider: there is no provider 'antropic'; it is one of anthropic, ")
    assert text.endswith("Did you mean 'anthropic'?")


@pytest.mark.parametrize(
    ("text", "kind", "error"),
    [
        ("[model]\nname = ", "toml", "p.toml: line 2, column 8: no valid TOML: Invalid value."),
        ("[model]\nname = gpt\n", "toml", "p.toml: line 2, column 8: no valid TOML: Invalid value; a text stands in quotes."),
        ("model:\n  name: x\n", "toml", "p.toml: line 1, column 6: no valid TOML: Expected '=' after a key in a key/value pair."),
        ("[a]\nx = 1\nx = 2\n", "toml", "p.toml: line 3, column 6: no valid TOML: Cannot overwrite a value."),
        ("model:\n\tname: x\n", "yaml", "p.yaml: line 2, column 1: no valid YAML: found character '\\t' that cannot start any token; YAML is indented with spaces."),
        ("model: [1, 2\n", "yaml", "p.yaml: line 2, column 1: no valid YAML: expected ',' or ']', but got '<stream end>'."),
        ("a: 1\n---\nb: 2\n", "yaml", "p.yaml: line 2, column 1: no valid YAML: but found another document; a file holds one program."),
        ("a: !!python/object/apply:os.system [ls]\n", "yaml", "p.yaml: line 1, column 4: no valid YAML: could not determine a constructor for the tag 'tag:yaml.org,2002:python/object/apply:os.system'; a program holds plain values, no tags."),
        ("a: \x07\n", "yaml", "p.yaml: line 1, column 4: a character that YAML does not allow (U+0007)."),
        ("", "yaml", "p.yaml: the file is empty; a program is a mapping with at least `model:`."),
        ("- a\n", "yaml", "p.yaml: the file holds a list; a program is a mapping with at least `model:`."),
        ("just words", "yaml", "p.yaml: the file holds the text 'just words'; a program is a mapping with at least `model:`."),
        ("{}", "json", "p.json: the format 'json' is not known; it is toml or yaml."),
    ],
)  # fmt: skip
def test_a_syntax_error_points_at_line_and_column(text: str, kind: str, error: str) -> None:
    assert refusal(text, kind) == error


def test_yaml_booleans_and_numbers_in_place_of_texts_are_explained() -> None:
    assert refusal("model: {name: 4, provider: no}", "yaml") == (
        "p.yaml: [model] provider: found false; a text is needed. In YAML, yes, no, on and off are read as true and false; put a text in "
        "quotes. 1 more fault: [model] name."
    )
    keys = refusal("model: {name: m, provider: openai}\nenv_info: {env_vars: {no: X}}\n", "yaml")
    assert keys == "p.yaml: [env_info.env_vars] False: the key is read as false; keys are texts. Put it in quotes."


def test_several_faults_of_one_file_are_all_reported(tmp_path: Path) -> None:
    path = tmp_path / "p.toml"
    path.write_text('[model]\nname = 1\nprovider = "x"\n[parameters]\ntop_p = 7\n[demo]\nprompts = 2\n')
    report = files.check(path)
    assert [error.place for error in report.errors] == [
        f"{path}: [model] provider", f"{path}: [model] name", f"{path}: [parameters] top_p", f"{path}: [demo] prompts",
    ]  # fmt: skip
    with pytest.raises(ProgramError) as caught:
        files.load(path)
    assert str(caught.value).endswith("3 more faults: [model] name, [parameters] top_p, [demo] prompts.")


BOMB = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))
MERGES = "a0: &a0 {x: 1}\n" + "".join(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}\n" for n in range(1, 10))
CHAIN = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 100))
HOSTILE = {
    "alias bomb": (BOMB, "yaml", "aliases that unfold to too many values"),
    "merge bomb": (MERGES, "yaml", "aliases that unfold to too many values"),
    "alias of itself": ("a: &a [*a]\n", "yaml", "an alias that contains itself"),
    "mapping of itself": ("a: &a {b: *a}\n", "yaml", "an alias that contains itself"),
    "deep list": ("a: " + "[" * 100_000, "yaml", "nested too deep"),
    "deep mapping": ("a: " + "{b: " * 100_000, "yaml", "nested too deep"),
    "deep indent": ("".join(" " * n + "a:\n" for n in range(900)), "yaml", "nested too deep"),
    "many values": ("a: [" + "1," * 200_000 + "]", "yaml", "too many values"),
    "unhashable key": ("? [a, b]\n: c\n", "yaml", "found unhashable key"),
    "long number": ("a: " + "9" * 10_000, "yaml", "no valid YAML"),
    "bad timestamp is text": ("a: 2024-99-99\n", "yaml", "there is no such table"),
    "half a character": ('model: {name: "\\uD800", provider: openai}', "yaml", "half a character"),
    "deep toml": ("a = " + "[" * 100_000, "toml", "nested too deep"),
    "deep toml table": ("a = " + "{b = " * 100_000, "toml", "nested too deep"),
    "long key": ("a" + ".a" * 200_000 + " = 1", "toml", "more than 60 dotted parts"),
    "long header": ("[a" + ".a" * 200_000 + "]", "toml", "more than 60 dotted parts"),
    "long toml number": ("a = " + "9" * 10_000, "toml", "no valid TOML"),
    "bad date": ("a = 2024-99-99", "toml", "no valid TOML"),
    "too long": ("#" * 1_000_001, "toml", "1,000,001 characters"),
    "nul": ("a = '\0'", "toml", "no valid TOML"),
}


@pytest.mark.timeout(10)
@pytest.mark.parametrize("case", HOSTILE)
def test_a_hostile_text_is_refused_soon(case: str) -> None:
    text, kind, found = HOSTILE[case]
    assert found in refusal(text, kind)


def test_an_honest_alias_is_unfolded() -> None:
    text = "model: &m {name: m, provider: openai}\nprompt:\n  <<: {system: s}\nparameters: {metadata: {a: &x [1, 2], b: *x}}\n"
    program = files.from_text(text, "yaml")
    assert (program.system, program.settings.body) == ("s", {"metadata": {"a": [1, 2], "b": [1, 2]}})


@pytest.mark.timeout(10)
def test_deep_values_built_from_aliases_are_refused() -> None:
    assert "nested too deep" in refusal(f"model: {{name: m, provider: openai}}\n{CHAIN}parameters: {{metadata: *a99}}\n", "yaml")
    loop: dict[str, Any] = {}
    loop["again"] = loop
    with pytest.raises(ProgramError, match="nested too deep"):
        files.from_mapping({"model": {"name": "m", "provider": "openai"}, "parameters": {"metadata": loop}})


def test_a_dotted_sentence_in_a_prompt_is_no_long_key() -> None:
    sentence = "a." * 300
    assert toml(f'{MODEL}[prompt]\nsystem = """{sentence}"""\n').system == sentence
