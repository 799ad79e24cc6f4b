"""The connection of an OpenAI driver: the SDK's client, made on the first request, and what comes back from one POST.

Here: keys, addresses, headers, timeouts, the mapping of faults. Not here: what is asked and what the events mean (responses, chat).
The SDK's `create` methods walk the whole list of messages at every call; a ready body through the same client's `post` does not.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from llmproc_nb.core.errors import AuthError, GarbledReply, PersonError, ProviderError
from llmproc_nb.core.wire import fault, sdk_fault, sendable
from llmproc_nb.drivers.openai import sse

if TYPE_CHECKING:
    import openai

OFFICIAL_URL = "https://api.openai.com/v1"
CONNECT_TIMEOUT_S = 10.0
DRAIN_S = 0.1


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
        self._api_key, self._key_variable, self._needs_key = api_key, key_variable, needs_key
        self._organization, self._project = organization, project
        self._headers = dict(headers or {})
        self._each: dict[str, Any] = {}
        self._client: openai.AsyncOpenAI | None = None

    async def ask(
        self, path: str, body: tuple[bytes, ...], *, headers: Mapping[str, str], place: str
    ) -> AsyncGenerator[tuple[str, Any], None]:
        """The events of the answer as (name, JSON value), `[DONE]` included as text; a whole JSON answer is one event.

        Raises a ProviderError of the right kind. Closing the iterator closes the connection if the answer is not at its end.
        """
        if self._client is None:
            made = await asyncio.to_thread(self._connect)  # the SDK takes a second to import
            self._client = self._client or made  # another request may have been first
        client = self._client
        import httpx2
        from openai import OpenAIError

        try:
            async with aclosing(self._pieces(client, path, body, headers)) as pieces, aclosing(sse.events(pieces, place=place)) as found:
                async for name, data in found:
                    if data == b"[DONE]":
                        await _drain(pieces)
                        yield "", "[DONE]"
                        return
                    yield name, sse.decode(data, place=place)
        except (httpx2.DecodingError, httpx2.TooManyRedirects) as error:
            raise GarbledReply(f"the answer cannot be read ({error})", place=place) from None
        except (OpenAIError, httpx2.HTTPError, OSError) as error:  # from None: the SDK's own words may repeat a key
            mapped = sdk_fault(error, place=place) or fault(str(error), place=place)
            if isinstance(mapped, AuthError):
                await self.close()  # the next request reads the key again, which may be another by then
            raise mapped from None

    async def _pieces(
        self, client: openai.AsyncOpenAI, path: str, body: tuple[bytes, ...], headers: Mapping[str, str]
    ) -> AsyncGenerator[bytes, None]:
        import httpx2

        content, length = sendable(body)
        options: Any = {"headers": {**self._each, **headers, **length}}
        response = await client.post(path, cast_to=httpx2.Response, content=content, options=options, stream=True, stream_cls=None)
        try:
            async for piece in response.aiter_bytes():
                yield piece
        finally:
            await response.aclose()

    def _key(self) -> str | None:
        key = (self._api_key or os.environ.get(self._key_variable) or "").strip()
        if not key and self._needs_key:
            found, step = f"no API key in {self._key_variable}", f"Set {self._key_variable} in the environment (or .env) of the kernel."
            raise AuthError(found, place=self.name, step=step)
        if not (key.isascii() and key.isprintable()):
            # the HTTP client would say which, and so tell the key
            raise AuthError(f"the API key in {self._key_variable} has characters that no key has", place=self.name)
        return key or None

    def _connect(self) -> openai.AsyncOpenAI:
        key = self._key()
        import openai

        # without a key no Authorization header goes out: some servers refuse one they did not ask for, and the SDK wants it said each time
        self._each = {} if key else {"Authorization": openai.omit}
        client = openai.AsyncOpenAI(
            api_key=key or "none",
            base_url=self.base_url,
            timeout=openai.Timeout(self.timeout_s, connect=min(self.timeout_s, CONNECT_TIMEOUT_S)),
            max_retries=0,
            default_headers=self._headers,
            organization=self._organization,
            project=self._project,
        )
        if not self.official:
            # the SDK fills these from the environment; they are OpenAI's and no business of another server
            client.organization, client.project, client.admin_api_key = self._organization, self._project, None
        return client

    async def close(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            await client.close()


async def _drain(pieces: AsyncIterator[bytes]) -> None:
    """Read what follows the end mark: only then can the connection be used again. What cannot be read soon is left."""
    with suppress(TimeoutError):
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
