"""One reply from a provider, whatever it takes: a slot, an attempt, and further attempts where the fault may pass.

Here: retries, their waits and their events. Not here: what is asked (loop) and how (drivers).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from llmproc_nb.core.clock import Clock
from llmproc_nb.core.errors import GarbledReply, ProviderError, RateLimited, Unreachable
from llmproc_nb.core.event import Asked, AttemptFailed
from llmproc_nb.core.limiter import Limiter
from llmproc_nb.core.provider import Delta, Draft, Provider, Reply, Request
from llmproc_nb.core.usage import Usage

if TYPE_CHECKING:
    from llmproc_nb.core.loop import Run

MAX_ATTEMPTS = 8
MAX_ATTEMPTS_UNREACHABLE = 3
MAX_ATTEMPTS_UNREADABLE = 5
MAX_WAIT_S = 30.0
MAX_RETRY_AFTER_S = 60.0


class Attempts:
    """What it took to get one reply; readable also when it was cut short."""

    def __init__(self) -> None:
        self.count = 0
        self.began = self.first = self.ended = 0.0
        self.draft: Draft | None = None


async def ask(run: Run, request: Request, attempts: Attempts) -> Reply:
    """The reply to a request. Raises the ProviderError of the last attempt when no further one makes sense."""
    provider, clock, limiter = run.process.provider, run.machine.clock, run.process.limiter
    attempts.began = clock.monotonic()
    if run.fan is None:
        return await _ask(run, request, attempts, provider, clock, limiter)
    await run.fan.enter()
    try:
        return await _ask(run, request, attempts, provider, clock, limiter)
    finally:
        run.fan.left()
        run.fan = None  # only a child's first request begins where the others do


async def _ask(run: Run, request: Request, attempts: Attempts, provider: Provider, clock: Clock, limiter: Limiter) -> Reply:
    while True:
        attempts.count += 1
        draft = attempts.draft = Draft(provider.api, run.delta if run.hears else None, _begun(run, attempts))
        burst = run.fan is not None and run.fan.readable
        async with limiter.slot(clock.sleep, lambda why: run.delta(Delta("wait", why)), burst=burst) as began:
            run.write(
                Asked,
                node=request.head.id,
                config=request.config.id,
                digest=request.digest,
                lineage=request.lineage,
                sibling=request.sibling,
                attempt=attempts.count,
            )
            try:
                reply = await provider.ask(request, draft)
            except ProviderError as error:
                limiter.failed(error, began)
                wait_s = _wait_s(error, attempts.count, clock.jitter(), heard=bool(draft))
                _note_failure(run, request, attempts, error, wait_s)
                if wait_s is None:
                    raise
                fault = error
                attempts.draft = None  # it is told and paid for in AttemptFailed: whoever stops the wait must not find it again
            else:
                limiter.succeeded()
                if run.fan is not None:  # a reply without any part has been made of the path, too
                    run.fan.began()
                attempts.ended = clock.monotonic()
                return reply
        run.delta(Delta("reset", f"attempt {attempts.count + 1} in {wait_s:.1f} s: {fault.found}"))
        await clock.sleep(wait_s)


def _begun(run: Run, attempts: Attempts) -> Callable[[], None]:
    """What is to be done when an answer begins."""

    def begun() -> None:
        attempts.first = attempts.first or run.machine.clock.monotonic()
        draft = attempts.draft
        if draft is not None:
            run.process.limiter.heard(draft.requests_left)
        if run.fan is not None and not run.fan.readable:
            run.fan.began()

    return begun


def _wait_s(error: ProviderError, attempt: int, jitter: float, *, heard: bool) -> float | None:
    """How long to wait before the next attempt; None to give up. `heard`: a piece of a reply had come."""
    most = MAX_ATTEMPTS
    if isinstance(error, Unreachable):
        most = MAX_ATTEMPTS_UNREACHABLE
    elif isinstance(error, GarbledReply) and not heard:
        most = MAX_ATTEMPTS_UNREADABLE
    if not error.retryable or attempt >= most:
        return None
    if error.retry_after_s is not None:
        if error.retry_after_s <= MAX_RETRY_AFTER_S:
            return error.retry_after_s
        error.right = f"a wait of at most {MAX_RETRY_AFTER_S:.0f} s is made by itself, the API asks for {error.retry_after_s:.0f} s"
        return None
    base = 1.0 if isinstance(error, RateLimited) else 0.5
    return float(min(MAX_WAIT_S, base * 2 ** (attempt - 1)) * jitter)


def _note_failure(run: Run, request: Request, attempts: Attempts, error: ProviderError, wait_s: float | None) -> None:
    draft = attempts.draft
    assert draft is not None
    usage = spent(run, draft)
    run.spend(usage)
    run.keep(
        AttemptFailed,
        digest=request.digest,
        attempt=attempts.count,
        error=type(error).__name__,
        text=str(error),
        retry_in_s=wait_s,
        partial=draft.message(interrupted=True) if draft else None,
        usage=usage,
    )


def spent(run: Run, draft: Draft) -> Usage:
    """What a reply that did not become whole has cost so far; nothing where no piece of it came."""
    if not draft and not draft.usage.total_tokens:
        return Usage()
    return run.priced(msgspec.structs.replace(draft.usage, requests=1), draft.model)
