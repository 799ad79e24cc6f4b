"""What a model API or its SDK says went wrong, as an error of the tree: one mapping for all drivers.

Pure: SDK exceptions are told apart by the names of their classes, which all generated SDKs and their HTTP client share.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from llmproc_nb.core import errors
from llmproc_nb.core.errors import ProviderError

# what an API says in its error body, where the status does not tell
_BY_TYPE: dict[str, type[ProviderError]] = {
    "authentication_error": errors.AuthError,
    "invalid_api_key": errors.AuthError,
    "permission_error": errors.AuthError,
    "not_found_error": errors.ModelNotFound,
    "model_not_found": errors.ModelNotFound,
    "invalid_request_error": errors.RequestRefused,
    "request_too_large": errors.RequestRefused,
    "context_length_exceeded": errors.ContextTooLong,
    "insufficient_quota": errors.QuotaExhausted,
    "billing_error": errors.QuotaExhausted,
    "rate_limit_error": errors.RateLimited,
    "rate_limit_exceeded": errors.RateLimited,
    "overloaded_error": errors.Overloaded,
    "server_is_overloaded": errors.Overloaded,
    "timeout_error": errors.TimedOut,
    "api_error": errors.ServerFailed,
    "server_error": errors.ServerFailed,
}
_BY_STATUS: dict[int, type[ProviderError]] = {
    400: errors.RequestRefused,
    401: errors.AuthError,
    402: errors.QuotaExhausted,
    403: errors.AuthError,
    404: errors.ModelNotFound,
    408: errors.TimedOut,
    409: errors.ServerFailed,
    413: errors.RequestRefused,
    422: errors.RequestRefused,
    429: errors.RateLimited,
    503: errors.Overloaded,
    529: errors.Overloaded,
}
_STEPS: dict[type[ProviderError], str] = {
    errors.AuthError: "Check the API key in the environment (or .env) of the kernel.",
    errors.ModelNotFound: "Check the model's name, and that the key may use it.",
    errors.ContextTooLong: "Start from an earlier node, or with less text.",
    errors.QuotaExhausted: "Add credit to the account, or use another model.",
}


def fault(
    message: str,
    *,
    place: str,
    status: int | None = None,
    types: Iterable[str | None] = (),
    retry_after: float | None = None,
    request_id: str | None = None,
) -> ProviderError:
    """The error of the tree for what an API answered. `types` are its own words for the kind (type, code), most telling first."""
    words = [word for word in types if word]
    kind = next((_BY_TYPE[word] for word in words if word in _BY_TYPE), None)
    if kind is None and status in (None, 200) and any(map(_is_final, words)):
        kind = errors.RequestRefused
    if kind in (None, errors.RequestRefused) and _is_too_long(message):
        kind = errors.ContextTooLong
    if kind is None and status is not None:
        kind = _BY_STATUS.get(status) or (errors.ServerFailed if status >= 500 else errors.RequestRefused)
    kind = kind or errors.ServerFailed
    shown = status if status and status != 200 else None
    found = f"{message} ({shown})" if shown else message
    return kind(found, place=place, status=shown, retry_after_s=retry_after, request_id=request_id, step=_STEPS.get(kind, ""))


def _is_final(word: str) -> bool:
    """Whether a code says that the request itself cannot be served: prompts, images, policies."""
    return word.startswith(("invalid_", "unsupported_")) or any(part in word for part in ("image", "policy", "content_filter"))


def _is_too_long(message: str) -> bool:
    low = message.lower()
    return "prompt is too long" in low or "maximum context length" in low or ("context window" in low and "exceed" in low)


def sdk_fault(error: BaseException, *, place: str) -> ProviderError | None:
    """The error of the tree for an exception of an SDK or of the HTTP client below it; None where it is neither."""
    if isinstance(error, ProviderError):
        return error
    names = {cls.__name__ for cls in type(error).__mro__}
    if "APITimeoutError" in names or "TimeoutException" in names or isinstance(error, TimeoutError):
        return errors.TimedOut("no answer within the time allowed", place=place)
    if "APIResponseValidationError" in names or isinstance(error, json.JSONDecodeError | UnicodeDecodeError):
        return errors.GarbledReply(f"the answer cannot be read ({_short(error)})", place=place)
    if "DecodingError" in names or "TooManyRedirects" in names:
        return errors.GarbledReply(f"the answer cannot be read ({_short(error)})", place=place)
    if "APIStatusError" in names:
        return _status_fault(error, place)
    if "APIConnectionError" in names or "TransportError" in names or isinstance(error, ConnectionError):
        if not _never_connected(error):
            return errors.ConnectionLost(_short(error.__cause__ or error), place=place)
        found = f"no connection to {_origin(error)} ({_short(error.__cause__ or error).rstrip('.')})"
        return errors.Unreachable(found, place=place, step="Does the server run, and is its address (base_url) right?")
    if "APIError" in names:
        body = getattr(error, "body", None)
        types = (getattr(error, "code", None), getattr(error, "type", None), *_types(body))
        return fault(_message(body) or _short(error), place=place, status=_int(getattr(error, "code", None)), types=types)
    if "AnthropicError" in names or "OpenAIError" in names:
        text = _short(error)
        kind_of = (
            errors.AuthError if "api_key" in text or "credential" in text.lower() or "authentication" in text else errors.RequestRefused
        )
        return kind_of(text, place=place, step=_STEPS.get(kind_of, ""))
    return None


def _origin(error: BaseException) -> str:
    """The server a request was for, by name and port only."""
    url = getattr(getattr(error, "request", None), "url", None)
    host, port = getattr(url, "host", None), getattr(url, "port", None)
    return f"{host}:{port}" if host and port else str(host or "the server")


def _status_fault(error: BaseException, place: str) -> ProviderError:
    body = getattr(error, "body", None)
    response = getattr(error, "response", None)
    headers = getattr(response, "headers", {})
    return fault(
        _without_keys(_message(body) or _short(error), getattr(response, "request", None)),
        place=place,
        status=getattr(error, "status_code", None),
        types=(getattr(error, "code", None), getattr(error, "type", None), *_types(body)),
        retry_after=retry_after_s(headers),
        request_id=headers.get("request-id") or headers.get("x-request-id"),
    )


def _without_keys(message: str, request: Any) -> str:
    """The message without the key the request was made with: some servers repeat it when they refuse it."""
    sent = getattr(request, "headers", {})
    for name in ("authorization", "x-api-key", "api-key"):
        key = (sent.get(name) or "").removeprefix("Bearer ").strip()
        message = message.replace(key, "(the key)") if len(key) > 7 else message
    return message


def _never_connected(error: BaseException | None) -> bool:
    while error is not None:
        if type(error).__name__ in ("ConnectError", "ConnectionRefusedError", "gaierror"):
            return True
        error = error.__cause__ or error.__context__
    return False


def _inner(body: Any) -> dict[str, Any]:
    inner = body.get("error", body) if isinstance(body, dict) else None
    return inner if isinstance(inner, dict) else {}


def _message(body: Any) -> str | None:
    inner = _inner(body)
    message, metadata = inner.get("message"), inner.get("metadata")
    raw = metadata.get("raw") if isinstance(metadata, dict) else None  # what the provider behind a gateway said
    said = [word for word in (message, raw) if isinstance(word, str) and word]
    return ": ".join(said)[:600] or None


def _types(body: Any) -> tuple[str | None, ...]:
    inner = _inner(body)
    return tuple(word for word in (inner.get("code"), inner.get("type")) if isinstance(word, str))


def _int(value: Any) -> int | None:
    return value if isinstance(value, int) else None


def _short(error: BaseException) -> str:
    return (str(error) or type(error).__name__)[:300]


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The seconds an API asks to wait, from `retry-after-ms` or `retry-after` (seconds or a date)."""
    try:
        if (value := headers.get("retry-after-ms")) is not None:
            return max(0.0, float(value) / 1000)
        if (value := headers.get("retry-after")) is None:
            return None
        if value.replace(".", "", 1).isdigit():
            return float(value)
        when = parsedate_to_datetime(value)
        when = when if when.tzinfo else when.replace(tzinfo=UTC)  # "-0000": UTC, wherever this runs
        return max(0.0, (when - datetime.now(UTC)).total_seconds())
    except ValueError:
        return None
