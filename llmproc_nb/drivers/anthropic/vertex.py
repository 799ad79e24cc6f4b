"""The same API on Google's Vertex AI: the model stands in the URL, and Google's credentials pay.

Here: project, region and credentials. Not here: everything that is as with Anthropic itself (driver).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from llmproc_nb.core.errors import AuthError, ProviderError
from llmproc_nb.drivers.anthropic.driver import AnthropicProvider

if TYPE_CHECKING:
    from collections.abc import Mapping

    from anthropic._base_client import AsyncAPIClient


API_KEYS = ("AIza", "AQ.")
"""What Google's API keys begin with, and no access token."""


class AnthropicVertexProvider(AnthropicProvider):
    """The same models on Google's Vertex AI. Project and region come from the arguments or from environment variables.

    `api_key` is an access token, which may stand in `VERTEX_API_KEY` too; without one Google's default credentials are used. The SDK
    has no place for a key of Google's API keys: one that stands there is for something else.
    """

    _vertex = True

    def __init__(
        self,
        *,
        name: str = "anthropic_vertex",
        project_id: str | None = None,
        region: str | None = None,
        base_url: str | None = None,
        api_key: str | None = None,
        key_variable: str | None = None,
        timeout_s: float = 600.0,
        prompt_caching: bool = True,
    ) -> None:
        super().__init__(
            name=name, base_url=base_url, api_key=api_key, key_variable=key_variable, timeout_s=timeout_s, prompt_caching=prompt_caching
        )
        self._project_id, self._region = project_id, region

    def _path(self, model: str) -> str:
        project, region = self._where()
        parts = (quote(part, safe="@.") for part in (project, region, model))
        return "/projects/{}/locations/{}/publishers/anthropic/models/{}:streamRawPredict".format(*parts)

    def _where(self) -> tuple[str, str]:
        project = self._project_id or os.environ.get("ANTHROPIC_VERTEX_PROJECT_ID") or os.environ.get("GOOGLE_CLOUD_PROJECT")
        region = self._region or os.environ.get("CLOUD_ML_REGION")
        if not project:
            raise self._not_named("project", "project_id", "ANTHROPIC_VERTEX_PROJECT_ID or GOOGLE_CLOUD_PROJECT")
        if not region:
            raise self._not_named("region", "region", "CLOUD_ML_REGION")
        return project, region

    def _key(self) -> str | None:
        if self._api_key is not None or self._key_variable is not None:
            return super()._key()
        token = os.environ.get("VERTEX_API_KEY", "").strip()
        return token if token and not token.startswith(API_KEYS) else None

    def _not_named(self, word: str, key: str, variable: str) -> AuthError:
        right = f"{key} of the program or the environment variable {variable} names it"
        return AuthError(f"no {word} of Google Cloud is named", place=self.name, right=right, step="Set one of them.")

    def _make_client(self, timeout: Any) -> AsyncAPIClient:
        from anthropic.lib.vertex import AsyncAnthropicVertex

        project, region = self._where()
        token = self._key()
        if token is None and not _google_auth_error():
            raise AuthError(
                "the package google-auth is not installed",
                place=self.name,
                right="the extra llmproc-nb[vertex] brings it",
                step="Install that and restart the kernel.",
            )
        return AsyncAnthropicVertex(
            project_id=project, region=region, access_token=token, base_url=self._base_url, timeout=timeout, max_retries=0
        )

    def _load(self) -> AsyncAPIClient:
        client = super()._load()
        self._faults = (*self._faults, *_google_auth_error())
        return client

    def _check_keys(self, headers: Mapping[str, Any], client: Any) -> None:
        """Google's credentials are found by the SDK when the request goes out."""

    def _fault(self, error: Exception, place: str) -> ProviderError:
        if isinstance(error, _google_auth_error()) and not getattr(error, "retryable", False):
            return AuthError(
                str(error)[:300], place=place, step="Run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS."
            )
        return super()._fault(error, place)


def _google_auth_error() -> tuple[type[Exception], ...]:
    """The root of google-auth's errors; nothing where that package is not installed."""
    try:
        from google.auth.exceptions import GoogleAuthError
    except ImportError:
        return ()
    return (GoogleAuthError,)
