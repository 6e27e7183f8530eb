"""All runner deployments of the application as control sees them: told, asked, listened to and woken."""

import asyncio
from collections.abc import Iterable

from trygon.deployments.calls import Connect
from trygon.deployments.desired import DesiredState
from trygon.deployments.messages import Desired, ReplicaReport
from trygon.deployments.runner_link import RunnerLink
from trygon.errors import ErrorCode, InferenceError
from trygon.models.versions import VersionSpec


class Fleet:
    """The runner deployments called `runners`; what their replicas say goes into `state`. `term` is control's own."""

    def __init__(self, runners: Iterable[str], connect: Connect, state: DesiredState, term: str) -> None:
        self._links = {name: RunnerLink(name, connect(name)) for name in runners}
        self._state = state
        self._term = term

    @property
    def starting(self) -> bool:
        """Whether some replica is not yet known to take calls: a new round soon may find that it does."""
        return any(link.starting for link in self._links.values())

    def desired(self, runner: str) -> Desired:
        """Return what every replica of a runner should have loaded."""
        return Desired(self._term, self._state.revision, self._state.desired(runner), self._state.served(runner))

    def hear(self, report: ReplicaReport) -> None:
        """Take a report that a replica sent by itself."""
        if self._links[report.runner].heard(report.replica):
            self._state.take(report)

    async def tell(self) -> None:
        """Tell every replica what is desired, take their reports, and wake the runners that have none."""
        await asyncio.gather(*(self._tell(name, link) for name, link in self._links.items()))

    async def learn(self) -> None:
        """Take the reports of all replicas without telling them anything."""
        for reports in await asyncio.gather(*(link.ask() for link in self._links.values())):
            for report in reports:
                self._state.take(report)

    def require(self, specs: Iterable[VersionSpec]) -> None:
        """Check that there are deployments for these versions.

        Raises: DEVICE_UNAVAILABLE.
        """
        for spec in specs:
            if spec.runner not in self._links:
                raise InferenceError(
                    ErrorCode.DEVICE_UNAVAILABLE,
                    f"model '{spec.model}' needs a runner deployment '{spec.runner}': add it to the setting 'runners'",
                    model=spec.model,
                    runner=spec.runner,
                )

    async def _tell(self, name: str, link: RunnerLink) -> None:
        if self._state.desired(name) or link.living():
            for report in await link.tell(self.desired(name)):
                self._state.take(report)
            self._state.retain(name, link.living())
        if self._state.desired(name) and not link.living():
            link.wake()
