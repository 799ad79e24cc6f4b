"""The connection of an OpenAI driver: the SDK's client, made on the first request, and what comes back from one POST.

Here: keys, addresses, headers, timeouts, the mapping of faults. Not here: what is asked and what the events mean (responses, chat).
The SDK's `create` methods walk the whole list of messages at every call; a ready body through the same client's `post` does not.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import urlsplit

from llmproc_nb.core.errors import AuthError, GarbledReply, PersonError, ProviderError
from llmproc_nb.core.fault import fault, sdk_fault
from llmproc_nb.core.provider import Draft
from llmproc_nb.core.sse import EventReader, sample
from llmproc_nb.core.wire import requests_left, sendable

if TYPE_CHECKING:
    import httpx2
    import openai

Take: TypeAlias = Callable[[str, bytes], None]
"""Is given each event of an answer: its name, where it has one, and its data."""

OFFICIAL_URL = "https://api.openai.com/v1"
CONNECT_TIMEOUT_S = 10.0
DRAIN_S = 0.1
_TOLD = ("Lang", "Package-Version", "OS", "Arch", "Runtime", "Runtime-Version", "Async")
_TOLD_EACH_TIME = ("Retry-Count", "Read-Timeout")
END_MARK = b"[DONE]"


def official_url(base_url: str | None) -> bool:
    """Whether an address is OpenAI's own; without one, `OPENAI_BASE_URL` decides."""
    host = _host(base_url or os.environ.get("OPENAI_BASE_URL") or OFFICIAL_URL)
    return host == "api.openai.com" or host.endswith(".api.openai.com")


def _host(base_url: str) -> str:
    """The host of an address; empty where it is no HTTP address."""
    try:
        parts = urlsplit(base_url)
        return (parts.hostname or "") if parts.scheme in ("http", "https") else ""
    except ValueError:
        return ""


class Connection:
    """One endpoint and its key. The key is read, and the SDK imported, on the first request."""

    def __init__(
        self,
        *,
        name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        key_variable: str = "OPENAI_API_KEY",
        other_key_variable: str | None = None,
        needs_key: bool = True,
        timeout_s: float = 600.0,
        organization: str | None = None,
        project: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        base_url = base_url or os.environ.get("OPENAI_BASE_URL") or OFFICIAL_URL
        if not _host(base_url):
            raise PersonError(f"the base_url is {base_url!r}", place=name, right="it starts with http:// or https:// and names a host")
        self.name, self.base_url, self.timeout_s = name, base_url, timeout_s
        self.official = official_url(base_url)
        self._api_key, self._needs_key = api_key, needs_key
        self._key_variables = (key_variable, other_key_variable) if other_key_variable else (key_variable,)
        self._organization, self._project = organization, project
        self._headers = dict(headers or {})
        self._each: dict[str, Any] = {}
        self._client: openai.AsyncOpenAI | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def ask(self, path: str, body: tuple[bytes, ...], draft: Draft, take: Take, *, headers: Mapping[str, str], place: str) -> None:
        """Send a request and give each event of its answer to `take`, until the end mark or the end; a whole JSON answer is one event.

        Raises a ProviderError of the right kind. Whatever ends it, a connection whose answer is not at its end is closed.
        """
        client = await self._connected()
        import httpx2
        from openai import OpenAIError

        content, length = sendable(body)
        options: Any = {"headers": {**self._each, **headers, **length}}
        try:
            response = await client.post(path, cast_to=httpx2.Response, content=content, options=options, stream=True, stream_cls=None)
            try:
                draft.requests_left = requests_left(response.headers)
                await _read(response, take)
            finally:
                await response.aclose()
        except ProviderError as error:
            error.place = error.place or place
            raise
        except (httpx2.DecodingError, httpx2.TooManyRedirects) as error:
            raise GarbledReply(f"the answer cannot be read ({error})", place=place) from None
        except (OpenAIError, httpx2.HTTPError, OSError) as error:  # from None: the SDK's own words may repeat a key
            mapped = sdk_fault(error, place=place) or fault(str(error), place=place)
            if isinstance(mapped, AuthError):
                await self.close()  # the next request reads the key again, which may be another by then
            raise mapped from None

    async def _connected(self) -> openai.AsyncOpenAI:
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:  # connections belong to the loop they were made on
            made = await asyncio.to_thread(self._connect)  # the SDK takes a second to import
            if self._client is None or self._loop is not loop:  # another request may have been first
                self._client, self._loop = made, loop
        return self._client

    def _key(self) -> str | None:
        key = (self._api_key or next(filter(None, map(os.environ.get, self._key_variables)), "")).strip()
        named = " or ".join(self._key_variables)
        if not key and self._needs_key:
            found, step = f"no API key in {named}", f"Set {self._key_variables[0]} in the environment (or .env) of the kernel."
            raise AuthError(found, place=self.name, step=step)
        if not (key.isascii() and key.isprintable()):
            # the HTTP client would say which, and so tell the key
            raise AuthError(f"the API key in {named} has characters that no key has", place=self.name)
        return key or None

    def _connect(self) -> openai.AsyncOpenAI:
        key = self._key()
        import openai

        # what the SDK tells of this machine is nobody's business, and each header costs; some it wants left out with each request
        silent = {f"X-Stainless-{name}": openai.omit for name in _TOLD}
        self._each = {f"X-Stainless-{name}": openai.omit for name in _TOLD_EACH_TIME}
        if not key:  # some servers refuse an Authorization that they did not ask for
            self._each["Authorization"] = openai.omit
        client = openai.AsyncOpenAI(
            api_key=key or "none",
            base_url=self.base_url,
            timeout=openai.Timeout(self.timeout_s, connect=min(self.timeout_s, CONNECT_TIMEOUT_S)),
            max_retries=0,
            default_headers={**silent, **self._headers},
            organization=self._organization,
            project=self._project,
        )
        if not self.official:
            # the SDK fills these from the environment; they are OpenAI's and no business of another server
            client.organization, client.project, client.admin_api_key = self._organization, self._project, None
        return client

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.close()


async def _read(response: httpx2.Response, take: Take) -> None:
    reader = EventReader()
    async with aclosing(response.aiter_bytes()) as pieces:
        async for piece in pieces:
            for name, data in reader.feed(piece):
                take(name, data)
                if data == END_MARK:
                    await _drain(pieces)
                    return
    for name, data in reader.end():
        take(name, data)
    if reader.other.startswith((b"{", b"[")):
        take("", reader.other)
    elif reader.other:
        raise GarbledReply(f"the answer is no event stream: {sample(reader.other)}", right="base_url leads to the API", step="Check it.")
    elif not reader.is_stream:
        raise GarbledReply("the answer is empty")


async def _drain(pieces: AsyncIterator[bytes]) -> None:
    """Read what follows the end mark: only then can the connection be used again. Whatever happens there, the reply is whole."""
    import httpx2

    with suppress(TimeoutError, httpx2.HTTPError):
        async with asyncio.timeout(DRAIN_S):
            async for _ in pieces:
                pass


def stated_fault(stated: Any, *, place: str) -> ProviderError:
    """The error of the tree for an error an API states inside an answer that began well."""
    if not isinstance(stated, dict):
        return fault(str(stated)[:300] or "the API reports an error", place=place)
    code, kind = stated.get("code"), stated.get("type")
    words = [word for word in (code, kind) if isinstance(word, str)]
    status = code if isinstance(code, int) else int(code) if isinstance(code, str) and code.isdigit() else None
    message = stated.get("message")
    return fault(
        message if isinstance(message, str) and message else str(code or kind or stated)[:300], place=place, status=status, types=words
    )
