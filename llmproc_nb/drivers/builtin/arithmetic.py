"""Arithmetic that a model may ask for: an expression is read, never executed, and each step is bounded in size and time."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from typing import Any, TypeAlias

from llmproc_nb.core.errors import ToolError

Number: TypeAlias = int | float

MAX_CHARS = 2_000
MAX_BITS = 13_000  # about 3,900 digits: whatever passes can still be written out by Python
_MAX_COUNT = 10_000
_PLAIN_DIGITS = 1e16

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_CONSTANTS: dict[str, Number] = {"pi": math.pi, "e": math.e, "tau": math.tau}


def evaluate(expression: str) -> Number:
    """The value of an arithmetic expression. Raises ToolError, in words for a model."""
    if len(expression) > MAX_CHARS:
        raise ToolError(f"the expression has {len(expression):,} characters", right=f"at most {MAX_CHARS:,} are possible")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
        value = _value(tree.body)
    except SyntaxError as error:
        raise ToolError(f"this is no arithmetic expression ({error.msg})", right="one such as 2 * (3 + 4) ** 0.5 is needed") from None
    except (RecursionError, MemoryError):
        raise ToolError("the expression is nested too deeply", right="take it apart into several calls") from None
    except ZeroDivisionError:
        raise ToolError("division by zero", right="the divisor must not be 0") from None
    except OverflowError:
        raise _too_large() from None
    except (ValueError, TypeError) as error:
        raise ToolError(f"this cannot be calculated ({error})", right="check the arguments of each function") from None
    if isinstance(value, list):
        raise ToolError("the result is a list", right="one number is needed, as from sum([1, 2]) or max(1, 2)")
    return value  # type: ignore[no-any-return]


def written(value: Number, precision: int) -> str:
    """A number as text: whole numbers exactly, others with at most `precision` decimals; very large or small ones as 1.5e-09."""
    if isinstance(value, int):
        return str(value)
    if value and (abs(value) >= _PLAIN_DIGITS or abs(value) < 0.5 * 10**-precision):
        digits, _, power = f"{value:.{precision}e}".partition("e")
        return f"{digits.rstrip('0').rstrip('.') if '.' in digits else digits}e{power}"
    text = f"{value:.{precision}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def _too_large() -> ToolError:
    right = f"whole numbers up to {MAX_BITS * 3 // 10:,} digits and decimal ones up to 1e308 are possible"
    return ToolError("the result is too large", right=right)


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.Constant):
        return _constant(node.value)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        operand = _number(node.operand)
        return -operand if isinstance(node.op, ast.USub) else operand
    if isinstance(node, ast.BinOp):
        return _binary(node)
    if isinstance(node, ast.Call):
        return _call(node)
    if isinstance(node, ast.Name):
        return _name(node.id)
    if isinstance(node, ast.List | ast.Tuple):
        return [_number(item) for item in node.elts]
    found = f"{ast.unparse(node)[:60]!r} is no arithmetic"
    raise ToolError(found, right="numbers, + - * / // % **, parentheses, functions and the constants pi, e, tau are possible")


def _number(node: ast.expr) -> Number:
    value = _value(node)
    if isinstance(value, list):
        raise ToolError("a list stands where a number is needed", right="lists are possible only in functions such as sum([1, 2])")
    return value  # type: ignore[no-any-return]


def _constant(value: Any) -> Number:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ToolError(f"{value!r:.60} is no number", right="whole and decimal numbers are possible")
    return _bounded(value)


def _name(name: str) -> Number:
    if name in _CONSTANTS:
        return _CONSTANTS[name]
    right = f"write {name}(…)" if name in FUNCTIONS else f"the constants are {', '.join(_CONSTANTS)}; write numbers for all else"
    raise ToolError(f"unknown name {name!r}", right=right)


def _binary(node: ast.BinOp) -> Number:
    left, right = _number(node.left), _number(node.right)
    if isinstance(node.op, ast.Pow):
        return _power(left, right)
    if isinstance(node.op, ast.BitXor):
        raise ToolError("^ is not the sign for powers here", right="write ** for powers, as in 2 ** 10")
    if (calculate := _BINARY.get(type(node.op))) is None:
        raise ToolError(f"{ast.unparse(node)[:60]!r} uses an operator that is not offered", right="+ - * / // % ** are possible")
    return _bounded(calculate(left, right))


def _power(base: Any, exponent: Any, modulus: Any = None) -> Number:
    if modulus is not None:
        return pow(base, exponent, modulus)  # type: ignore[no-any-return]
    if isinstance(base, int) and isinstance(exponent, int) and abs(base) > 1 and base.bit_length() * exponent > 2 * MAX_BITS:
        raise _too_large()
    return _bounded(base**exponent)


def _bounded(value: Any) -> Number:
    if isinstance(value, complex):
        raise ToolError("the result is not a real number", right="roots of negative numbers are not possible")
    if isinstance(value, int) and value.bit_length() > MAX_BITS:
        raise _too_large()
    if isinstance(value, float) and not math.isfinite(value):
        raise _too_large()
    return value  # type: ignore[no-any-return]


def _call(node: ast.Call) -> Number:
    name = node.func.id if isinstance(node.func, ast.Name) else ast.unparse(node.func)
    name = name.removeprefix("math.")
    if name not in FUNCTIONS:
        raise ToolError(f"unknown function {name[:60]!r}", right=f"the functions are {', '.join(FUNCTIONS)}")
    if node.keywords or any(isinstance(item, ast.Starred) for item in node.args):
        raise ToolError(f"{name} was given arguments by name or by *", right=f"write plain arguments, as in {name}(1)")
    return _bounded(FUNCTIONS[name](*(_value(item) for item in node.args)))


def _counted(function: Callable[..., int], most: int = _MAX_COUNT) -> Callable[..., int]:
    def calculate(*numbers: int) -> int:
        if any(isinstance(number, int) and abs(number) > most for number in numbers):
            raise ToolError(f"{function.__name__} of numbers beyond {most:,} takes too long", right=f"give at most {most:,}")
        return function(*numbers)

    return calculate


def _round(number: Number, digits: int = 0) -> Number:
    if abs(digits) > 400:
        raise ToolError(f"round to {digits} digits", right="at most 400 are possible")
    return round(number, digits) if digits else round(number)


def _mean(*numbers: Any) -> float:
    items = numbers[0] if len(numbers) == 1 and isinstance(numbers[0], list) else numbers
    return math.fsum(items) / len(items)


def _sum(*numbers: Any) -> Number:
    return sum(numbers[0] if len(numbers) == 1 and isinstance(numbers[0], list) else numbers)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{
        name: getattr(math, name)
        for name in ("sqrt", "cbrt", "exp", "log", "log2", "log10", "hypot", "floor", "ceil", "trunc", "gcd", "lcm")
    },
    **{
        name: getattr(math, name)
        for name in ("sin", "cos", "tan", "asin", "acos", "atan", "atan2", "sinh", "cosh", "tanh", "degrees", "radians")
    },
    "factorial": _counted(math.factorial, 1_400),
    "comb": _counted(math.comb),
    "perm": _counted(math.perm),
    "abs": abs,
    "round": _round,
    "min": min,
    "max": max,
    "sum": _sum,
    "mean": _mean,
    "pow": _power,
}
