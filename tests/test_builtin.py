"""calculator, read_file and list_dir (and the forms of all): in a real folder, against Python, with what a model may send by mistake."""

import math
import os
import re
import time
from decimal import Decimal, localcontext
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproc_nb.core.errors import ToolError
from llmproc_nb.core.message import Image
from llmproc_nb.core.tool import Tool, result_parts
from llmproc_nb.drivers.builtin import builtin_tools, calculator

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)


@pytest.fixture
def tools(tmp_path: Path) -> dict[str, Tool]:
    root = tmp_path / "root"
    (root / "sub").mkdir(parents=True)
    (root / "a.txt").write_bytes(b"one\r\ntwo\n")
    (root / "sub" / "b.toml").write_text("x = 1\n")
    (root / ".env").write_text("KEY=sk-1\n")
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "rooted").mkdir()
    return builtin_tools(root, lambda data, path, shown: path.write_bytes(data))


def run(tool: Tool, **arguments: Any) -> Any:
    assert tool.check is not None
    return tool.function(**tool.check(arguments))


def refusal(tool: Tool, **arguments: Any) -> str:
    with pytest.raises(ToolError) as caught:
        run(tool, **arguments)
    return caught.value.for_model()


def test_the_tools_their_parameters_and_their_access_are_those_of_llmproc(tools: dict[str, Tool]) -> None:
    found = {
        name: (
            tool.access,
            tool.spec.parameters["required"],
            {key: form.get("default") for key, form in tool.spec.parameters["properties"].items()},
        )
        for name, tool in tools.items()
    }
    assert found == {
        "calculator": ("read", ["expression"], {"expression": None, "precision": 6}),
        "read_file": ("read", ["file_path"], {"file_path": None}),
        "list_dir": ("read", [], {"directory_path": ".", "show_hidden": False, "detailed": False}),
        "ast_grep": ("read", ["pattern"], {"pattern": None, "path": ".", "language": ""}),
        "copy": ("write", ["file_path", "start", "end"], {"file_path": None, "start": None, "end": None}),
        "paste": ("write", ["file_path"], {"file_path": None, "before": "", "after": ""}),
    }
    assert {tool.where for tool in tools.values()} == {"worker"}


# ---- calculator


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("2 * (3 + 4) ** 2", "98"),
        ("0.1 + 0.2", "0.3"),
        ("10 / 3", "3.333333"),
        ("-7 // 2", "-4"),
        ("7 % 3", "1"),
        ("2 ** 100", str(2**100)),
        ("1e-9", "1e-09"),
        ("1 / 3e10", "3.333333e-11"),
        ("123456789.5e10", "1234567895000000000"),
        ("-0.0 * 1", "0"),
        ("math.sqrt(2) * pi", "4.442883"),
        ("sum([1, 2.5, 3])", "6.5"),
        ("mean([1, 2])", "1.5"),
        ("max(1, 5) + min([3, 2])", "7"),
        ("round(2.675, 2)", "2.68"),
        ("factorial(20)", str(math.factorial(20))),
        ("pow(3, 10 ** 100, 7)", str(pow(3, 10**100, 7))),
        ("0x10 + 1_000", "1016"),
        ("1 ** 10 ** 9", "1"),
        ("1e22 + 1 - 1e22", "1"),
        ("1e400 / 1e399", "10"),
        ("10 ** -3000", "1e-3000"),
        ("-2 / 3e9", "-6.666667e-10"),
        ("0.3 // 0.1", "3"),
        ("gcd(6.0, 8 / 2)", "2"),
        ("mean([0.1, 0.2])", "0.15"),
        ("(1 + 0.045 / 365) ** 3650", "1.568269"),
        ("0.5 ** 0.5 - sqrt(1 / 2)", "0"),
        ("sqrt(10 ** 40)", "1e+20"),
        ("(1_0.5\n + .5)", "11"),
        ("0e99999 + 1.", "1"),
    ],
)
def test_an_expression_is_calculated(expression: str, text: str) -> None:
    assert calculator(expression) == text


def test_what_is_exact_is_written_with_all_its_whole_digits_and_rounded_right() -> None:
    assert calculator("0.1 + 0.2 - 0.3", 15) == "0"
    assert calculator("1e16 + 1", 15) == "10000000000000001"
    assert calculator("2 ** 64 + 0.5", 0) == "18446744073709551616"
    assert calculator("2 ** 64 + 0.5", 1) == "18446744073709551616.5"
    assert [calculator(expression, 2) for expression in ("-1.005", "0.995001", "-0.004", "0.015")] == ["-1", "1", "-4e-03", "0.02"]
    assert calculator("1 / 7", 15) == "0.142857142857143"


def test_precision_is_the_most_decimals_and_whole_numbers_stay_whole() -> None:
    assert [calculator("100", 0), calculator("2 / 3", 0), calculator("2 / 3", 2), calculator("1 / 8", 15), calculator("1200.0", 0)] == [
        "100",
        "1",
        "0.67",
        "0.125",
        "1200",
    ]


@pytest.mark.parametrize(
    ("expression", "told"),
    [
        ("2 ^ 3", "^ is not the sign for powers here; write ** for powers, as in 2 ** 10."),
        ("1 / 0", "division by zero; the divisor must not be 0."),
        ("9 ** 9 ** 9", "the result is too large; exact numbers up to 3,900 digits and inexact ones up to 1e308 are possible."),
        ("10 ** -5000", "the result is too near to 0; exact numbers down to 1e-3900 and inexact ones down to 1e-308 are possible."),
        (
            "10 ** -400 * sqrt(2)",
            "the result is too near to 0; exact numbers down to 1e-3900 and inexact ones down to 1e-308 are possible.",
        ),
        ("(-1) ** 0.5", "the result is not a real number; roots of negative numbers are not possible."),
        ("round(1.5, 0.5)", "round to a part of a digit; a whole number of digits is needed."),
        (
            "factorial(2.5)",
            "this cannot be calculated (a decimal number cannot be interpreted as an integer); check the arguments of each function.",
        ),
        ("5 %", "this is no arithmetic expression (invalid syntax); one such as 2 * (3 + 4) ** 0.5 is needed."),
        ("x + 1", "unknown name 'x'; the constants are pi, e, tau; write numbers for all else."),
        ("sqrt", "unknown name 'sqrt'; write sqrt(…)."),
        ("[1, 2]", "the result is a list; one number is needed, as from sum([1, 2]) or max(1, 2)."),
        ("True + 1", "True is no number; whole and decimal numbers are possible."),
        ("'a' * 3", "'a' is no number; whole and decimal numbers are possible."),
    ],
)
def test_what_cannot_be_calculated_is_told_with_what_would_be_right(expression: str, told: str) -> None:
    with pytest.raises(ToolError) as caught:
        calculator(expression)
    assert caught.value.for_model() == told


@pytest.mark.parametrize(
    "expression",
    [
        "9**9**9**9",
        "factorial(10**9)",
        "comb(10**9, 5*10**8)",
        "round(5, -10**9)",
        "10**3000*10**2000",
        "lcm(3**8000, 5**5000, 7**4000)",
        "(" * 900,
        "-" * 1999 + "1",
        "9" * 3000,
        "1e4000",
        "1e-99999999",
        "1e9999999999999999999999",
        "1.5 ** 10 ** 9",
        "0.5 ** 10 ** 500",
        "exp(1000)",
        "__import__('os').system('true')",
        "().__class__",
        "(lambda: 1)()",
        "[x for x in (1,)]",
        "open('a')",
        "f'{1}'",
        "sum(*[[1]])",
        "\x00",
    ],
)
def test_nothing_hangs_and_nothing_runs(expression: str) -> None:
    began = time.perf_counter()
    with pytest.raises(ToolError):
        calculator(expression)
    assert time.perf_counter() - began < 5


numbers = st.one_of(st.integers(0, 10**6), st.floats(0, 1e6, allow_nan=False).map(lambda number: round(number, 4))).map(
    lambda number: f"F('{number!r}')"
)
expressions = st.recursive(
    numbers,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//", "%"]), inner).map(lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"),
        inner.map(lambda part: f"(-{part})"),
        st.tuples(inner, st.integers(0, 4)).map(lambda parts: f"({parts[0]}) ** {parts[1]}"),
        st.tuples(st.sampled_from(["abs", "floor", "ceil", "round"]), inner).map(lambda parts: f"{parts[0]}({parts[1]})"),
    ),
    max_leaves=8,
)


def written_exactly(value: Fraction, decimals: int) -> Decimal:
    with localcontext(prec=6_000):
        return round(Decimal(value.numerator) / Decimal(value.denominator), decimals)


@given(expressions.filter(lambda marked: marked.count("**") < 3))
def test_it_agrees_with_fractions_on_every_safe_expression(marked: str) -> None:
    known = {"__builtins__": {}, "abs": abs, "round": round, "floor": math.floor, "ceil": math.ceil, "F": Fraction}
    expression = re.sub(r"F\('(.*?)'\)", r"\1", marked)
    try:
        right = Fraction(eval(marked, known))
    except ZeroDivisionError:
        with pytest.raises(ToolError):
            calculator(expression, 15)
        return
    told = calculator(expression, 15)
    if right.denominator == 1:
        assert told == str(right)
    elif abs(right) >= Fraction(1, 2 * 10**15):
        assert Decimal(told) == written_exactly(right, 15)
    else:
        assert Fraction(told) == pytest.approx(right, rel=1e-15)


@given(st.text(max_size=30))
def test_any_text_gives_a_number_or_a_tool_error(text: str) -> None:
    try:
        float(calculator(text))
    except ToolError as error:
        assert error.for_model()
    except OverflowError:
        assert calculator(text).lstrip("-").isdigit()


# ---- files


def test_text_is_read_whole_whatever_its_name_and_marks(tools: dict[str, Tool]) -> None:
    root = Path(tools["read_file"].function.__self__.root)  # type: ignore[attr-defined]
    long = "x" * 300_000 + "\n"
    files = {
        "bom": b"\xef\xbb\xbfa\r\n",
        "utf16": "aé".encode("utf-16"),
        "latin": b"caf\xe9",
        "empty": b"",
        "Makefile": b"all:\n\techo\n",
        "n.ipynb": b"{}",
        "long": long.encode(),
        "color": b"\x1b[1mx",
    }
    for name, data in files.items():
        (root / name).write_bytes(data)
    assert run(tools["read_file"], file_path="a.txt") == "one\r\ntwo\n"
    assert {name: run(tools["read_file"], file_path=name) for name in files} == {
        "bom": "a\r\n",
        "utf16": "aé",
        "latin": "caf\ufffd",
        "empty": "(the file is empty)",
        "Makefile": "all:\n\techo\n",
        "n.ipynb": "{}",
        "long": long,
        "color": "\x1b[1mx",
    }


def test_a_picture_comes_as_an_image(tools: dict[str, Tool]) -> None:
    root = Path(tools["read_file"].function.__self__.root)  # type: ignore[attr-defined]
    (root / "p.png").write_bytes(PNG)
    image = run(tools["read_file"], file_path=str(root / "p.png"))
    assert (image, result_parts(image)) == (Image(media_type="image/png", data=PNG), (Image(media_type="image/png", data=PNG),))


def test_paths_out_of_the_folder_are_refused_in_every_form(tools: dict[str, Tool], tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "link").symlink_to(tmp_path / "secret.txt")
    (root / "up").symlink_to(tmp_path)
    (root / "round").symlink_to(root / "round")
    rule = "lies outside of the working folder; only what is in the working folder can be read."
    rule += ' Give a path relative to it, such as "data/a.csv".'
    paths = ("../secret.txt", "sub/../../secret.txt", str(tmp_path / "secret.txt"), "link", "up/secret.txt", "../rooted", "/etc/passwd")
    assert [refusal(tools["read_file"], file_path=path) for path in paths] == [f"{path!r} {rule}" for path in paths]
    assert refusal(tools["list_dir"], directory_path="..") == f"'..' {rule}"
    assert run(tools["read_file"], file_path="sub/../a.txt") == "one\r\ntwo\n"
    assert refusal(tools["read_file"], file_path="round")


@pytest.mark.parametrize(
    ("path", "told"),
    [
        (".env", "'.env' holds keys and stays closed; ask the person for what is needed from it."),
        ("sub", "'sub' is a folder; use list_dir to see what is in it."),
        ("b.txt", "there is no file 'b.txt'; there is 'a.txt' in '.'."),
        ("sub/zzz", "there is no file 'sub/zzz'; list_dir shows what is in 'sub'."),
        ("no/such", "there is no file 'no/such'."),
        ("data.bin", "'data.bin' is no text (4 bytes); text files and PNG, JPEG, GIF and WebP pictures are possible."),
        ("pipe", "'pipe' is no ordinary file; a text file or a picture is needed."),
        ("a\0b", "'a\\x00b' cannot be a path; a path relative to the working folder is needed."),
    ],
)
def test_what_cannot_be_read_is_told_with_what_could(tools: dict[str, Tool], tmp_path: Path, path: str, told: str) -> None:
    (tmp_path / "root" / "data.bin").write_bytes(b"a\0bc")
    os.mkfifo(tmp_path / "root" / "pipe")
    assert refusal(tools["read_file"], file_path=path) == told


def test_a_name_that_is_too_long_is_refused_and_of_a_file_that_is_too_big_its_path_is_given(tools: dict[str, Tool], tmp_path: Path) -> None:
    with open(tmp_path / "root" / "big", "wb") as file:
        file.write(b"text\n" * 12_800_001)
    assert run(tools["read_file"], file_path="big") == (tmp_path / "root" / "big").resolve()
    assert "cannot be read (File name too long)" in refusal(tools["read_file"], file_path="x" * 5_000)


def test_a_folder_is_listed_by_name_with_what_is_hidden_counted(tools: dict[str, Tool], tmp_path: Path) -> None:
    os.utime(tmp_path / "root" / "a.txt", (0, 0))
    (tmp_path / "root" / "sub" / "empty").mkdir()
    assert run(tools["list_dir"]) == "a.txt\nsub/\n(1 hidden; show_hidden=true lists them)"
    assert run(tools["list_dir"], show_hidden=True) == ".env\na.txt\nsub/"
    assert run(tools["list_dir"], detailed="true").splitlines()[0] == "file               9  1970-01-01 00:00Z  a.txt"
    assert run(tools["list_dir"], directory_path="sub/empty") == "(the folder is empty)"
    assert refusal(tools["list_dir"], directory_path="a.txt") == "'a.txt' is a file; use read_file to read it."
    assert refusal(tools["list_dir"], directory_path="sup") == "there is no folder 'sup'; there is 'sub' in '.'."


def test_arguments_that_do_not_fit_are_all_told(tools: dict[str, Tool]) -> None:
    assert refusal(tools["calculator"], expr="1", precision=99) == (
        "3 faults: unknown argument 'expr' (the tool has 'expression'); argument 'expression' is missing; "
        "argument 'precision' is 99 (it should be between 0 and 15)."
    )
    assert refusal(tools["ast_grep"], pattern="x", search="y") == ("unknown argument 'search'; the tool has 'pattern', 'path', 'language'.")
    assert refusal(tools["ast_grep"], pattern="x", languages="y") == "unknown argument 'languages'; the tool has 'language'."
    assert refusal(tools["copy"], file_path="x", search="y", start="a", end="b") == (
        "unknown argument 'search'; the tool has 'file_path', 'start', 'end'."
    )
    assert refusal(tools["list_dir"], show_hidden=1) == "argument 'show_hidden' is 1; it should be true or false."
    assert tools["calculator"].check is not None
    assert tools["calculator"].check({"expression": "1", "precision": "3"}) == {"expression": "1", "precision": 3}
