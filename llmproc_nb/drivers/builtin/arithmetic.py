"""Arithmetic that a model may ask for: an expression is read, never executed, and each step is bounded in size and time.

Decimals, + - * / // % and whole powers are exact (fractions); roots and functions, and fractions that grow too long, are floats.
"""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable
from decimal import Context, Decimal, InvalidOperation
from fractions import Fraction
from typing import Any, TypeAlias

from llmproc_nb.core.errors import ToolError

Number: TypeAlias = int | Fraction | float
"""What is exact is an int or a Fraction; a whole one is always an int."""

MAX_CHARS = 2_000
MAX_BITS = 13_000  # about 3,900 digits: whatever passes can still be written out by Python
_MAX_DIGITS = MAX_BITS * 3 // 10
_MAX_COUNT = 10_000
_PLAIN_DIGITS = 1e16

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: lambda left, right: left / right if isinstance(left, float) or isinstance(right, float) else Fraction(left) / right,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_CONSTANTS: dict[str, Number] = {"pi": math.pi, "e": math.e, "tau": math.tau}


def evaluate(expression: str) -> Number:
    """The value of an arithmetic expression. Raises ToolError, in words for a model."""
    if len(expression) > MAX_CHARS:
        raise ToolError(f"the expression has {len(expression):,} characters", right=f"at most {MAX_CHARS:,} are possible")
    try:
        tree = _exact(expression.strip())
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
        said = str(error).replace("'Fraction' object", "a decimal number")
        raise ToolError(f"this cannot be calculated ({said})", right="check the arguments of each function") from None
    if isinstance(value, list):
        raise ToolError("the result is a list", right="one number is needed, as from sum([1, 2]) or max(1, 2)")
    return value  # type: ignore[no-any-return]


def written(value: Number, precision: int) -> str:
    """A number as text: whole ones with all digits, others with at most `precision` decimals; small and large inexact ones as 1.5e-09."""
    if isinstance(value, int):
        return str(value)
    if isinstance(value, Fraction):
        return _exactly(value, precision)
    if value and (abs(value) >= _PLAIN_DIGITS or abs(value) < 0.5 * 10**-precision):
        digits, _, power = f"{value:.{precision}e}".partition("e")
        return f"{_short(digits)}e{power}"
    text = _short(f"{value:.{precision}f}")
    return "0" if text == "-0" else text


def _exactly(value: Fraction, precision: int) -> str:
    if abs(value) < Fraction(1, 2 * 10**precision):
        rounded = Context(prec=precision + 1).divide(Decimal(value.numerator), Decimal(value.denominator))
        digits, _, power = f"{rounded:.{precision}e}".partition("e")
        return f"{_short(digits)}e{int(power):+03}"
    digits = str(round(abs(value) * 10**precision)).zfill(precision + 1)
    text = _short(f"{digits[:-precision]}.{digits[-precision:]}") if precision else digits
    return f"-{text}" if value < 0 and text != "0" else text


def _short(digits: str) -> str:
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def _exact(expression: str) -> ast.Expression:
    """The expression, with its decimals as they are written and not as floats."""
    tree = ast.parse(expression, mode="eval")
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, float):
            node.value = _decimal(ast.get_source_segment(expression, node) or "")  # type: ignore[assignment]
    return tree


def _decimal(text: str) -> Number:
    try:
        value = Decimal(text)
    except InvalidOperation:
        raise _too_large() from None
    if value and abs(value.adjusted()) > _MAX_DIGITS:
        raise _too_large() if value.adjusted() > 0 else _too_small()
    return _bounded(Fraction(value) if value else 0)


def _too_large() -> ToolError:
    right = f"exact numbers up to {_MAX_DIGITS:,} digits and inexact ones up to 1e308 are possible"
    return ToolError("the result is too large", right=right)


def _too_small() -> ToolError:
    right = f"exact numbers down to 1e-{_MAX_DIGITS} and inexact ones down to 1e-308 are possible"
    return ToolError("the result is too near to 0", right=right)


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
    if isinstance(value, bool) or not isinstance(value, int | Fraction):
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
    value = _bounded(calculate(left, right))
    if isinstance(value, float) and not value and left and right and isinstance(node.op, ast.Mult | ast.Div):
        raise _too_small()
    return value


def _power(base: Any, exponent: Any, modulus: Any = None) -> Number:
    if modulus is not None:
        return pow(base, exponent, modulus)  # type: ignore[no-any-return]
    whole = isinstance(exponent, int) and not isinstance(base, float)
    if whole and (abs(base) == 1 or _bits(base) * abs(exponent) <= 2 * MAX_BITS):
        return _bounded(Fraction(base) ** exponent)
    if whole and isinstance(base, int) and base and exponent > 0:
        raise _too_large()
    value = _bounded(_inexact(base) ** float(exponent))
    if base and not value:
        raise _too_small()
    return value


def _bits(value: int | Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _inexact(value: Number) -> float:
    """The float nearest to a number; raises OverflowError, or ToolError where it would be 0."""
    near = float(value)
    if value and not near:
        raise _too_small()
    return near


def _bounded(value: Any) -> Number:
    if isinstance(value, complex):
        raise ToolError("the result is not a real number", right="roots of negative numbers are not possible")
    if isinstance(value, Fraction):
        value = value.numerator if value.denominator == 1 else value if _bits(value) <= MAX_BITS else _inexact(value)
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


def _floating(function: Callable[..., float]) -> Callable[..., float]:
    def calculate(*numbers: Any) -> float:
        return function(*(_inexact(number) if isinstance(number, Fraction) else number for number in numbers))

    return calculate


def _round(number: Any, digits: int = 0) -> Any:
    if not isinstance(digits, int):
        raise ToolError("round to a part of a digit", right="a whole number of digits is needed")
    if abs(digits) > 400:
        raise ToolError(f"round to {digits} digits", right="at most 400 are possible")
    return round(number, digits) if digits else round(number)


def _mean(*numbers: Any) -> Number:
    items = numbers[0] if len(numbers) == 1 and isinstance(numbers[0], list) else numbers
    total: Number = math.fsum(items) if any(isinstance(item, float) for item in items) else Fraction(sum(items))
    return total / len(items)


def _sum(*numbers: Any) -> Number:
    return sum(numbers[0] if len(numbers) == 1 and isinstance(numbers[0], list) else numbers)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{name: _floating(getattr(math, name)) for name in ("sqrt", "cbrt", "exp", "log", "log2", "log10", "hypot")},
    **{name: getattr(math, name) for name in ("floor", "ceil", "trunc", "gcd", "lcm")},
    **{
        name: _floating(getattr(math, name))
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
