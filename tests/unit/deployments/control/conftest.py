"""Control and runners in one event loop: real objects and real models; only the handles between them are stand-ins."""

import asyncio
import pickle
import shutil
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from ray.exceptions import RayTaskError
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import DeploymentUnavailableError

from trygon.deployments.control import Control, Pace
from trygon.deployments.runner import CONTROL, Runner
from trygon.models.versions import VersionStatus
from trygon.settings import ModelControlMode

EXAMPLE = Path(__file__).resolve().parents[4] / "examples" / "models" / "digits_onnx"
RUNNERS = ("onnx-cpu", "litert-cpu")
QUICK = Pace(round_s=0.02, starting_s=0.005, watch_s=20, settle_margin_s=20)
LIMIT_S = 30
"""Longest a test waits for what must happen."""


def copied(value: Any) -> Any:
    """Return what arrives at the other end of a handle."""
    return pickle.loads(pickle.dumps(value))  # noqa: S301 - our own


class Deployment:
    """The replicas of one deployment that take calls. A call that finds none waits, and `wanted` is called."""

    def __init__(self, name: str, wanted: Callable[[], None]) -> None:
        self.name = name
        self.replicas: dict[str, Any] = {}
        self.hung: set[str] = set()
        self.wanted = wanted
        self.changed = asyncio.Event()

    def add(self, name: str, replica: Any) -> None:
        self.replicas[name] = replica
        self.changed.set()

    async def call(self, method: str, arguments: Any) -> Any:
        while not self.replicas:
            self.wanted()
            self.changed.clear()
            await self.changed.wait()
        return await answer(next(iter(self.replicas.values())), method, arguments)


async def answer(replica: Any, method: str, arguments: Any) -> Any:
    try:
        return copied(await getattr(replica, method)(*copied(arguments)))
    except Exception as error:  # noqa: BLE001 - whatever is raised travels
        raise RayTaskError(method, "", copied(error)).as_instanceof_cause() from None


class Method:
    def __init__(self, deployment: Deployment, name: str) -> None:
        self._deployment = deployment
        self._name = name

    def remote(self, *arguments: Any) -> Awaitable[Any]:
        return self._deployment.call(self._name, arguments)


class Broadcast:
    def __init__(self, deployment: Deployment, method: str, arguments: Any) -> None:
        self._deployment, self._method, self._arguments = deployment, method, arguments

    async def results_async(self, *, timeout_s: float, return_exceptions: bool) -> list[Any]:
        assert timeout_s > 0
        replicas = self._deployment.replicas
        if not replicas:
            raise DeploymentUnavailableError(DeploymentID(self._deployment.name, "trygon"))
        answers = [answer(replica, self._method, self._arguments) for replica in replicas.values()]
        results = await asyncio.gather(*answers, return_exceptions=return_exceptions)
        if self._deployment.hung & replicas.keys():
            raise TimeoutError
        return results


class Handle:
    """A deployment handle."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment

    def __getattr__(self, name: str) -> Method:
        return Method(self._deployment, name)

    def broadcast(self, method: str, *arguments: Any) -> Broadcast:
        return Broadcast(self._deployment, method, arguments)


class Cluster:
    """One application. `repository` is its model repository, `control` the replica that lives."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.repository = root / "models"
        self.repository.mkdir()
        self.deployments = {
            name: Deployment(name, lambda name=name: self.want_replica(name))  # type: ignore[misc]  # a lambda's default
            for name in (CONTROL, *RUNNERS)
        }
        self.starts: dict[str, asyncio.Task[None]] = {}
        self.scales = True
        self.runner: type[Runner] = Runner
        self.load_timeout_s = 30.0
        self.count = 0

    @property
    def control(self) -> Control:
        control: Control = self.deployments[CONTROL].replicas["control"]
        return control

    @property
    def overrides(self) -> Path:
        return self.root / "overrides"

    def connect(self, name: str) -> Handle:
        return Handle(self.deployments[name])

    def write(self, name: str, *versions: int, config: str = "", content: bytes = b"") -> Path:
        """Write a model folder; the versions hold the example's model unless there is other content."""
        folder = self.repository / name
        for version in versions:
            (folder / str(version)).mkdir(parents=True, exist_ok=True)
            (folder / str(version) / "model.onnx").write_bytes(content or model_bytes())
        if config:
            (folder / "config.pbtxt").write_text(config)
        return folder

    async def start(
        self,
        mode: ModelControlMode = ModelControlMode.EXPLICIT,
        *load_models: str,
        poll_s: float = 0.01,
        pace: Pace = QUICK,
    ) -> Control:
        """Start control, or start it anew."""
        control = await started(
            Control,
            repositories=(str(self.repository),),
            mode=mode,
            load_models=load_models,
            poll_s=poll_s,
            load_timeout_s=self.load_timeout_s,
            overrides=str(self.overrides),
            runners=RUNNERS,
            connect=self.connect,
            pace=pace,
        )
        self.deployments[CONTROL].add("control", control)
        return self.control

    def stop_control(self) -> None:
        """Let the control replica die."""
        end_tasks_of("Control")
        del self.deployments[CONTROL].replicas["control"]

    def want_replica(self, name: str) -> None:
        """Do what Serve's autoscaler does when a call waits for a replica."""
        if self.scales and name != CONTROL and name not in self.starts:
            self.starts[name] = asyncio.create_task(self._scale(name))

    async def _scale(self, name: str) -> None:
        await self.add_replica(name)
        del self.starts[name]

    async def make_replica(self, name: str = "onnx-cpu", **options: Any) -> tuple[str, Runner]:
        """Start a replica that does not take calls yet."""
        self.count += 1
        replica = f"replica-{self.count}"
        runner = await started(
            self.runner,
            name,
            threads=1,
            load_timeout_s=self.load_timeout_s,
            default_max_batch_size=4,
            replica=replica,
            connect=self.connect,
            batch=alone,
            **options,
        )
        return replica, runner

    async def add_replica(self, name: str = "onnx-cpu", **options: Any) -> str:
        """Start a replica; return its id."""
        replica, runner = await self.make_replica(name, **options)
        self.deployments[name].add(replica, runner)
        return replica

    def kill(self, name: str, replica: str) -> None:
        """Let a runner replica die."""
        del self.deployments[name].replicas[replica]

    async def until(self, condition: Callable[[dict[str, str]], bool]) -> None:
        """Wait until the states in the routes, by "model version", are as wished."""
        async with asyncio.timeout(LIMIT_S):
            routes = await self.control.routes()
            while not condition({_key(row.status): str(row.status.state) for row in routes.rows}):
                routes = await self.control.watch(routes.term, routes.revision) or routes

    async def states(self) -> dict[str, str]:
        """Return the index's states by "model version"."""
        return {_key(status): str(status.state) for status in await self.control.index()}

    async def reason(self, model: str, version: int = 1) -> str:
        (found,) = [row for row in await self.control.index() if (row.model, row.version) == (model, version)]
        return found.reason

    async def missing(self) -> dict[str, str]:
        return (await self.control.routes()).missing


def alone(run: Callable[[list[Any]], Awaitable[list[Any]]], **_: object) -> Callable[[Any], Awaitable[Any]]:
    """Stand in for `serve.batch`: each item is a batch."""

    async def run_one(item: Any) -> Any:
        (result,) = await run([item])
        return result

    return run_one


async def started(made: type[Any], *arguments: Any, **options: Any) -> Any:
    """Return an object whose constructor is awaited, as Ray Serve does."""
    instance = made.__new__(made)
    await instance.__init__(*arguments, **options)
    return instance


def end_tasks_of(owner: str) -> None:
    for task in asyncio.all_tasks():
        coroutine = task.get_coro()
        if coroutine and coroutine.__qualname__.startswith(f"{owner}."):
            task.cancel()


def _key(status: VersionStatus) -> str:
    return f"{status.model} {status.version}"


def model_bytes() -> bytes:
    return (EXAMPLE / "1" / "model.onnx").read_bytes()


@pytest.fixture
async def cluster(tmp_path: Path) -> Cluster:
    made = Cluster(tmp_path)
    shutil.copytree(EXAMPLE, made.repository / "digits_onnx")
    return made
