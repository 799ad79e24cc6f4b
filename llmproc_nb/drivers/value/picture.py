"""Pictures of values, and asking a value for its own view: foreign code is called here, and whatever it raises becomes a PromptError."""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import inspect
import io
from collections.abc import Callable
from typing import Any

from llmproc_nb.core.errors import LlmprocError, PromptError, raised
from llmproc_nb.core.message import Image

_MAGIC = ((b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF8", "image/gif"), (b"RIFF", "image/webp"))


def picture(value: Any) -> Image | None:
    """A figure, picture or object that can draw itself; None for any other."""
    if isinstance(value, bytes | bytearray):
        data = bytes(value)
        kind = next((kind for magic, kind in _MAGIC if data.startswith(magic)), None)
        return Image(media_type=kind, data=data) if kind and (kind != "image/webp" or data[8:12] == b"WEBP") else None
    if isinstance(value, type):
        return None
    figure = _figure(value)
    if figure is not None:
        return Image(media_type="image/png", data=figure)
    for name, kind in (("_repr_png_", "image/png"), ("_repr_jpeg_", "image/jpeg")):
        draw = getattr(type(value), name, None)
        drawn = asked(lambda draw=draw: draw(value), f"{type(value).__name__}.{name}") if callable(draw) else None  # type: ignore[misc]
        drawn = drawn[0] if isinstance(drawn, tuple) else drawn
        if drawn:
            return Image(media_type=kind, data=decoded(drawn))
    return None


def _figure(value: Any) -> bytes | None:
    home = {kind.__module__.partition(".")[0] for kind in type(value).__mro__}
    if "PIL" in home and callable(getattr(value, "save", None)):
        return _saved(lambda file: value.save(file, format="PNG"), value)
    figure = value if callable(getattr(value, "savefig", None)) else getattr(value, "figure", None)
    if home & {"matplotlib", "seaborn"} and figure is not None and callable(getattr(figure, "savefig", None)):
        return _saved(lambda file: figure.savefig(file, format="png", bbox_inches="tight"), value)
    return None


def _saved(save: Callable[[io.BytesIO], Any], value: Any) -> bytes:
    file = io.BytesIO()
    asked(lambda: save(file), f"drawing the {type(value).__name__}")
    return file.getvalue()


def asked(ask: Callable[[], Any], what: str) -> Any:
    """What a function of the person's object gives, awaited where need be. Raises PromptError for whatever it raises."""
    try:
        given = ask()
        return _awaited(given) if inspect.isawaitable(given) else given
    except LlmprocError:
        raise
    except Exception as error:  # foreign code
        raise PromptError(f"{what} raised {raised(error)}", place="prompt", right="nothing was sent") from error


def _awaited(awaitable: Any) -> Any:
    async def wait() -> Any:
        return await awaitable

    with concurrent.futures.ThreadPoolExecutor(1) as pool:  # this thread's own loop may be running
        return pool.submit(asyncio.run, wait()).result()


def accepted(function: Callable[..., Any], wanted: dict[str, Any]) -> dict[str, Any]:
    """Those of the arguments that a function takes."""
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return wanted
    return {name: value for name, value in wanted.items() if name in parameters}


def decoded(data: bytes | str) -> bytes:
    return base64.b64decode(data) if isinstance(data, str) else bytes(data)
