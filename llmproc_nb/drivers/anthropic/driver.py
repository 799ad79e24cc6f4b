"""The Anthropic provider: the SDK's client for keys, addresses and connections, our own bytes out and events in.

Here: the client, one request, and the mapping of its faults. Not here: the wire form (wire, blocks) and reading (events, stream).
"""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

from llmproc_nb.core.errors import AuthError, GarbledReply, ProgramError, ProviderError
from llmproc_nb.core.fault import sdk_fault
from llmproc_nb.core.provider import Config, Draft, Reply, Request
from llmproc_nb.core.wire import requests_left, sendable
from llmproc_nb.drivers.anthropic import wire
from llmproc_nb.drivers.anthropic.answer import read
from llmproc_nb.drivers.anthropic.blocks import API
from llmproc_nb.drivers.anthropic.stream import Collector

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx2
    from anthropic._base_client import AsyncAPIClient

CONNECT_TIMEOUT_S = 15.0


class AnthropicProvider:
    """Speaks the Messages API, of Anthropic or of whoever answers at `base_url`.

    The key is `api_key`, or stands in the environment variable `key_variable`, or in one of the SDK's own; the environment is read at
    the first request. `timeout_s` is the longest silence, not the length of an answer.
    """

    api = API
    scripted = False
    _vertex: ClassVar[bool] = False

    def __init__(
        self,
        *,
        name: str = "anthropic",
        base_url: str | None = None,
        api_key: str | None = None,
        key_variable: str | None = None,
        timeout_s: float = 600.0,
        prompt_caching: bool = True,
    ) -> None:
        if base_url is not None and not base_url.startswith(("http://", "https://")):
            raise ProgramError(f"the address {base_url!r} is no URL", place=name, right="base_url starts with https:// or http://")
        self.name = name
        self._base_url, self._timeout_s = base_url, timeout_s
        self._api_key, self._key_variable = api_key, key_variable
        diagnoses = base_url is None and not self._vertex  # no gateway need know it
        self._wire = wire.Wire(prompt_caching=prompt_caching, vertex=self._vertex, diagnoses=diagnoses)
        self._client: AsyncAPIClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._faults: tuple[type[Exception], ...] = ()

    async def ask(self, request: Request, draft: Draft) -> Reply:
        """The whole reply; see the door. What came before an error stays in the draft."""
        draft.api = self.api
        place = f"{self.name} {request.config.model}"
        headers = wire.headers(request.config.settings)
        collector = Collector(draft, place)
        try:
            client = await self._connected(headers)
            response = await self._send(client, request, headers)
            draft.requests_left = requests_left(response.headers)
            try:
                await read(response, collector)
            finally:
                await response.aclose()
        except ProviderError as error:
            error.place = error.place or place
            raise
        except self._faults as error:
            fault = self._fault(error, place)
            if isinstance(fault, AuthError):
                await self.close()  # the next request reads the key again, which may be another by then
            raise fault from None  # the SDK's own words may repeat a key
        return draft.reply()

    def preview(self, request: Request) -> dict[str, Any]:
        """The exact request body. Sends nothing, needs no key, loads no SDK."""
        body: dict[str, Any] = msgspec.json.decode(self._wire.body(request))
        return body

    def left_out(self, config: Config) -> tuple[str, ...]:
        """The names of the settings that are not sent because the model does not take them."""
        return wire.left_out(config.settings, config.model)

    async def close(self) -> None:
        """Give connections back. A later request makes new ones."""
        client, self._client = self._client, None
        if client is not None and self._loop is asyncio.get_running_loop():
            await client.close()

    async def _send(self, client: AsyncAPIClient, request: Request, headers: Mapping[str, str]) -> httpx2.Response:
        import httpx2

        # a whole address costs the SDK less than a path
        address = f"{str(client.base_url).rstrip('/')}{self._path(request.config.model)}"
        body, length = sendable(self._wire.pieces(request))
        sent = {**headers, **length}
        # asked for the response itself, the SDK leaves the reading to us: its decoder costs more, and reads nothing but streams
        response: httpx2.Response = await client.post(
            address, cast_to=httpx2.Response, content=body, options={"headers": sent} if sent else {}, stream=True, stream_cls=None
        )
        return response

    def _path(self, model: str) -> str:
        return "/v1/messages"

    async def _connected(self, headers: Mapping[str, str]) -> AsyncAPIClient:
        loop = asyncio.get_running_loop()
        if self._client is None or self._loop is not loop:
            client = await asyncio.to_thread(self._load)  # the SDK takes seconds to import
            self._check_keys({**client.default_headers, **headers}, client)
            if self._client is None or self._loop is not loop:  # another request may have been first
                self._client, self._loop = client, loop
        return self._client

    def _load(self) -> AsyncAPIClient:
        import anthropic
        import httpx2

        self._faults = (anthropic.AnthropicError, httpx2.HTTPError, httpx2.StreamError, httpx2.InvalidURL, OSError)
        return self._make_client(anthropic.Timeout(self._timeout_s, connect=min(self._timeout_s, CONNECT_TIMEOUT_S)))

    def _make_client(self, timeout: Any) -> AsyncAPIClient:
        import anthropic

        return anthropic.AsyncAnthropic(api_key=self._key(), base_url=self._base_url, timeout=timeout, max_retries=0)

    def _key(self) -> str | None:
        """The key that is ours to find; None leaves it to the SDK."""
        if self._api_key is not None or self._key_variable is None:
            return self._api_key
        # a named variable that is not set must not make the SDK send another key to this address
        if not (key := os.environ.get(self._key_variable)):
            raise self._no_key(self._key_variable)
        return key

    def _no_key(self, variable: str, found: str = "there is no API key") -> AuthError:
        right = f"the environment variable {variable} holds it"
        return AuthError(found, place=self.name, right=right, step="Set it before the kernel starts, in .env, or with %env.")

    def _check_keys(self, headers: Mapping[str, Any], client: Any) -> None:
        """Raises AuthError before the SDK says it less clearly, or repeats a broken key in its own error."""
        keys = [value for name, value in headers.items() if name.lower() in ("authorization", "x-api-key") and isinstance(value, str)]
        if not keys and getattr(client, "credentials", None) is None:
            raise self._no_key("ANTHROPIC_API_KEY")
        if any(not key.isascii() or not key.isprintable() or key != key.strip() for key in keys):
            raise AuthError(
                "the API key holds a line break, a space at an end or a character that no key has",
                place=self.name,
                right=f"{self._key_variable or 'ANTHROPIC_API_KEY'} is the key alone",
                step="Copy it again.",
            )

    def _fault(self, error: Exception, place: str) -> ProviderError:
        if type(error).__name__ == "CredentialsError":  # the SDK also looks for profiles in files
            return self._no_key("ANTHROPIC_API_KEY", str(error))
        return sdk_fault(error, place=place) or GarbledReply(str(error)[:300] or type(error).__name__, place=place)
