"""What one ingress replica knows of all models: a routing table that follows the control deployment's."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

from trygon.deployments.calls import call, detach
from trygon.deployments.messages import Routes
from trygon.errors import ErrorCode, InferenceError
from trygon.models.routing import RoutedVersion, RoutingTable
from trygon.models.signature import RequestCheck

logger = logging.getLogger(__name__)

RETRY_S = 0.5
"""Pause after control did not answer."""

STALE_S = 30.0
"""How old news may be before this replica says that it is not ready; also the longest wait for an answer of control."""

LOOK_UP_S = 5.0
"""Longest a request for a model that is not known waits for control to say whether it is there by now."""


class Catalog:
    """A routing table kept fresh. `control` is the handle of the control deployment."""

    def __init__(self, control: Any, *, clock: Callable[[], float] = time.monotonic, retry_s: float = RETRY_S) -> None:
        self._control = control
        self._retry_s = retry_s
        self._clock = clock
        self._routes = Routes("", -1, (), {})
        self._table = RoutingTable(())
        self._checks: dict[tuple[str, int, str], RequestCheck] = {}
        self._heard = clock()
        self._refreshing: asyncio.Task[None] | None = None

    async def follow(self) -> None:
        """Follow control's changes for ever."""
        while True:
            try:
                async with asyncio.timeout(STALE_S):
                    routes = await call(self._control.watch, self._routes.term, self._routes.revision)
                self._heard = self._clock()
                if routes:
                    self.take(routes)
            except Exception as error:  # noqa: BLE001 - control may be restarting: go on with what is known
                logger.warning("control does not answer: %r", error)
                await asyncio.sleep(self._retry_s)

    def take(self, routes: Routes) -> None:
        """Take news, unless something newer is known."""
        if routes.term == self._routes.term and routes.revision <= self._routes.revision:
            return
        table = RoutingTable(routes.rows)
        checks: dict[tuple[str, int, str], RequestCheck] = {}
        for row in routes.rows:
            status = row.status
            if status.description:
                key = (status.model, status.version, status.generation)
                checks[key] = self._checks.get(key) or RequestCheck(status.model, status.description)
        self._routes, self._table, self._checks = routes, table, checks

    def missing(self) -> dict[str, str]:
        """Return the models that should be loaded and cannot serve, with the reason.

        Raises: SYSTEM_NOT_READY while nothing is known, or nothing new has been heard for too long.
        """
        if not self._routes.term or self._clock() - self._heard > STALE_S:
            raise _not_heard()
        return self._routes.missing

    def versions(self, name: str) -> tuple[str, ...]:
        """Return the versions of a model that are ready."""
        return self._table.ready_versions(name)

    def check(self, routed: RoutedVersion) -> RequestCheck:
        """Return the check of requests for a version that `resolve` has just returned.

        Raises: MODEL_NOT_READY for a version that nothing is known of.
        """
        status = routed.status
        check = self._checks.get((status.model, status.version, status.generation))
        if check is None:
            raise InferenceError(ErrorCode.MODEL_NOT_READY, f"model '{status.model}' is not ready", model=status.model)
        return check

    async def resolve(self, name: str, version: str) -> RoutedVersion:
        """Return the version that should serve; ask control once more before a model counts as unknown.

        Raises: SYSTEM_NOT_READY before control was heard, and what `RoutingTable.resolve` raises.
        """
        try:
            return self._table.resolve(name, version)
        except InferenceError as error:
            if error.code not in {
                ErrorCode.MODEL_NOT_FOUND,
                ErrorCode.MODEL_VERSION_NOT_FOUND,
                ErrorCode.MODEL_LOADING,
            }:
                raise
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LOOK_UP_S):
                await self.refresh()
        if not self._routes.term:
            raise _not_heard()
        return self._table.resolve(name, version)

    async def refresh(self) -> None:
        """Ask control for the newest routes; callers that come meanwhile share one question."""
        if self._refreshing is None:
            self._refreshing = detach(self._refresh())
        await asyncio.shield(self._refreshing)

    async def _refresh(self) -> None:
        try:
            async with asyncio.timeout(STALE_S):
                self.take(await call(self._control.routes))
        except Exception as error:  # noqa: BLE001 - without control, what is known is what there is
            logger.warning("control does not answer: %r", error)
        finally:
            self._refreshing = None


def _not_heard() -> InferenceError:
    return InferenceError(ErrorCode.SYSTEM_NOT_READY, "the control deployment does not answer")
