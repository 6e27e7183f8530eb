"""The data plane in an ingress replica: readiness, models, inference that follows a moving version, and control."""

from collections.abc import Callable
from typing import Any

import pytest
from ray.exceptions import RayActorError
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import DeploymentUnavailableError

from trygon.deployments.catalog import Catalog
from trygon.deployments.messages import Routes
from trygon.deployments.ray_data_plane import RayDataPlane
from trygon.errors import ErrorCode, InferenceError
from trygon.models.routing import RoutedVersion
from trygon.models.statistics import ModelStatistics
from trygon.models.tensors import Datatype, InferRequest, InferResponse, Tensor, TensorSpec
from trygon.models.versions import ModelDescription, ModelState, VersionStatus

DESCRIPTION = ModelDescription("test", b"", 0, (TensorSpec("x", Datatype.FP32, (1,)),), ())
REQUEST = InferRequest("m", (Tensor("x", Datatype.FP32, (1,), bytes(4)),))
STATES = {"m": {1: ModelState.READY, 2: ModelState.READY}, "slow": {1: ModelState.LOADING}}


def row(model: str, version: int, state: ModelState) -> RoutedVersion:
    description = DESCRIPTION if state is ModelState.READY else None
    return RoutedVersion(VersionStatus(model, version, state, description=description), "onnx-cpu")


def routes(states: dict[str, dict[int, ModelState]], revision: int = 1, **missing: str) -> Routes:
    rows = tuple(row(model, version, state) for model, of in states.items() for version, state in of.items())
    return Routes("term", revision, rows, missing)


class Control:
    """A handle of control: each method answers what `answers` holds, or raises it."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {"routes": routes(STATES)}
        self.asked: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        async def remote(*arguments: Any) -> Any:
            self.asked.append((name, *arguments))
            answer = self.answers[name]
            if isinstance(answer, Exception):
                raise answer
            return answer

        return type("Method", (), {"remote": staticmethod(remote)})


class Dispatch:
    """Answers, or raises what the test says, in turn."""

    def __init__(self) -> None:
        self.outcomes: list[Callable[[], None]] = []
        self.versions: list[int] = []

    async def infer(self, routed: RoutedVersion, request: InferRequest, rows: int) -> InferResponse:
        assert rows == 1
        self.versions.append(routed.status.version)
        if self.outcomes:
            self.outcomes.pop(0)()
        return InferResponse(request.model, str(routed.status.version), request.id, ())


def refuse(code: ErrorCode) -> Callable[[], None]:
    def raise_it() -> None:
        raise InferenceError(code, "refused")

    return raise_it


@pytest.fixture
def control() -> Control:
    return Control()


@pytest.fixture
def dispatch() -> Dispatch:
    return Dispatch()


@pytest.fixture
def catalog(control: Control) -> Catalog:
    catalog = Catalog(control)
    catalog.take(control.answers["routes"])
    return catalog


@pytest.fixture
def plane(control: Control, catalog: Catalog, dispatch: Dispatch) -> RayDataPlane:
    return RayDataPlane(control, catalog, dispatch)  # type: ignore[arg-type]  # a stand-in


async def test_the_server_is_ready_when_nothing_is_missing(plane: RayDataPlane, catalog: Catalog) -> None:
    assert await plane.server_ready()
    catalog.take(routes(STATES, 2, slow="being loaded"))
    assert not await plane.server_ready()


async def test_a_server_that_has_not_heard_of_control_is_not_ready(control: Control, dispatch: Dispatch) -> None:
    assert not await RayDataPlane(control, Catalog(control), dispatch).server_ready()  # type: ignore[arg-type]


async def test_a_model_is_ready_or_not_or_unknown(plane: RayDataPlane) -> None:
    assert await plane.model_ready("m")
    assert await plane.model_ready("m", "2")
    assert not await plane.model_ready("slow")
    with pytest.raises(InferenceError, match="unknown model"):
        await plane.model_ready("nowhere")


async def test_a_model_is_described_with_all_versions_that_are_ready(plane: RayDataPlane, catalog: Catalog) -> None:
    model = await plane.model("m")
    assert (model.name, model.version, model.versions) == ("m", "2", ("1", "2"))
    assert model.description is DESCRIPTION
    odd = RoutedVersion(VersionStatus("odd", 1, ModelState.READY), "onnx-cpu")
    catalog.take(Routes("term", 2, (odd,), {}))
    with pytest.raises(InferenceError) as caught:
        await plane.model("odd")
    assert caught.value.code is ErrorCode.MODEL_NOT_READY


async def test_a_request_goes_to_the_version_that_is_asked_for(plane: RayDataPlane) -> None:
    assert (await plane.infer(REQUEST)).version == "2"


async def test_a_request_that_does_not_fit_goes_nowhere(plane: RayDataPlane, dispatch: Dispatch) -> None:
    with pytest.raises(InferenceError) as caught:
        await plane.infer(InferRequest("m", ()))
    assert caught.value.code is ErrorCode.TENSOR_INPUT_MISSING
    assert dispatch.versions == []


@pytest.mark.parametrize("code", [ErrorCode.MODEL_NOT_READY, ErrorCode.MODEL_UNAVAILABLE])
async def test_a_version_that_has_just_left_its_replica_is_looked_up_again(
    plane: RayDataPlane, control: Control, dispatch: Dispatch, code: ErrorCode
) -> None:
    dispatch.outcomes = [refuse(code), refuse(code)]
    control.answers["routes"] = routes({"m": {1: ModelState.READY}}, 2)
    assert (await plane.infer(REQUEST)).version == "1"
    assert dispatch.versions == [2, 1, 1]


async def test_a_version_that_stays_away_is_not_looked_up_for_ever(plane: RayDataPlane, dispatch: Dispatch) -> None:
    dispatch.outcomes = [refuse(ErrorCode.MODEL_NOT_READY)] * 10
    with pytest.raises(InferenceError, match="refused"):
        await plane.infer(REQUEST)
    assert len(dispatch.versions) == 3


async def test_other_refusals_are_final(plane: RayDataPlane, dispatch: Dispatch) -> None:
    dispatch.outcomes = [refuse(ErrorCode.RUNNER_DIED)]
    with pytest.raises(InferenceError, match="refused"):
        await plane.infer(REQUEST)
    assert len(dispatch.versions) == 1


async def test_statistics_are_of_one_version_one_model_or_all(plane: RayDataPlane, control: Control) -> None:
    control.answers["statistics"] = [ModelStatistics("m", 1), ModelStatistics("m", 2), ModelStatistics("n", 1)]

    async def found(name: str = "", version: str = "") -> list[tuple[str, int]]:
        return [(item.model, item.version) for item in await plane.statistics(name, version)]

    assert await found("m", "2") == [("m", 2)]
    assert await found("m", "02") == [("m", 2)]
    assert await found("m") == [("m", 1), ("m", 2)]
    assert await found() == await found("", "no number") == [("m", 1), ("m", 2), ("n", 1)]
    with pytest.raises(InferenceError) as caught:
        await found("m", "no number")
    assert caught.value.code is ErrorCode.MODEL_VERSION_INVALID


async def test_the_index_may_be_of_ready_versions_only(plane: RayDataPlane, control: Control) -> None:
    rows = [VersionStatus("m", 1, ModelState.READY), VersionStatus("n", 1, ModelState.UNAVAILABLE)]
    control.answers["index"] = rows
    assert await plane.index() == rows
    assert await plane.index(ready_only=True) == rows[:1]


async def test_who_has_loaded_or_unloaded_sees_it_at_once(plane: RayDataPlane, control: Control) -> None:
    control.answers["load"] = routes({"fresh": {1: ModelState.READY}}, 2)
    await plane.load("fresh", config="{}", files={"1/model.onnx": b""})
    assert await plane.model_ready("fresh")
    control.answers["unload"] = control.answers["routes"] = routes({}, 3)
    await plane.unload("fresh", unload_dependents=True)
    with pytest.raises(InferenceError):
        await plane.model_ready("fresh")
    assert control.asked[:2] == [("load", "fresh", "{}", {"1/model.onnx": b""}), ("unload", "fresh")]


async def test_a_bad_name_does_not_reach_control(plane: RayDataPlane, control: Control) -> None:
    for work in (plane.load("../m"), plane.unload("../m")):
        with pytest.raises(InferenceError) as caught:
            await work
        assert caught.value.code is ErrorCode.MODEL_NAME_INVALID
    assert control.asked == []


@pytest.mark.parametrize(
    "error", [RayActorError(), DeploymentUnavailableError(DeploymentID("control", "trygon")), TimeoutError()]
)
async def test_a_control_that_does_not_answer_is_told_as_such(
    plane: RayDataPlane, control: Control, error: Exception
) -> None:
    control.answers = dict.fromkeys(("index", "statistics", "load", "unload"), error)
    for work in (plane.index(), plane.statistics(), plane.load("m"), plane.unload("m")):
        with pytest.raises(InferenceError, match="may be restarting") as caught:
            await work
        assert caught.value.code is ErrorCode.SYSTEM_NOT_READY


async def test_what_control_refuses_is_told_as_it_is(plane: RayDataPlane, control: Control) -> None:
    control.answers["load"] = InferenceError(ErrorCode.MODEL_LOAD_FAILED, "bad magic")
    with pytest.raises(InferenceError, match="bad magic"):
        await plane.load("m")
