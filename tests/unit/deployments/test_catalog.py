"""What an ingress knows of all models: news are taken in order, and unknown models are asked about once more."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from trygon.deployments.catalog import STALE_S, Catalog
from trygon.deployments.messages import Routes
from trygon.errors import ErrorCode, InferenceError
from trygon.models.routing import RoutedVersion
from trygon.models.tensors import Datatype, InferRequest, Tensor, TensorSpec
from trygon.models.versions import ModelDescription, ModelState, VersionStatus

INPUT = TensorSpec("x", Datatype.FP32, (2,))
DESCRIPTION = ModelDescription("test", b"", 0, (INPUT,), ())
NOTHING = Routes("term", 0, (), {})


def row(model: str = "m", state: ModelState = ModelState.READY, generation: str = "a") -> RoutedVersion:
    description = DESCRIPTION if state is ModelState.READY else None
    return RoutedVersion(VersionStatus(model, 1, state, "", generation, generation, description), "onnx-cpu")


def routes(revision: int, *rows: RoutedVersion, term: str = "term", missing: dict[str, str] | None = None) -> Routes:
    return Routes(term, revision, rows, missing or {})


class Control:
    """A handle of a control deployment that answers what the test says; `asked` counts by method."""

    def __init__(self) -> None:
        self.now: Callable[[], Any] = lambda: NOTHING
        self.news: asyncio.Queue[Any] = asyncio.Queue()
        self.asked = {"routes": 0}
        self.known: list[tuple[str, int]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    @property
    def routes(self) -> Any:
        return Method(self._routes)

    @property
    def watch(self) -> Any:
        return Method(self._watch)

    async def _routes(self) -> Any:
        self.asked["routes"] += 1
        await self.gate.wait()
        return self.now()

    async def _watch(self, term: str, revision: int) -> Any:
        self.known.append((term, revision))
        news = await self.news.get()
        self.news.task_done()
        if isinstance(news, Exception):
            raise news
        return news


class Method:
    def __init__(self, function: Callable[..., Any]) -> None:
        self.remote = function


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def control() -> Control:
    return Control()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def catalog(control: Control, clock: Clock) -> Catalog:
    return Catalog(control, clock=clock, retry_s=0)


def code_of(caught: pytest.ExceptionInfo[InferenceError]) -> ErrorCode:
    return caught.value.code


async def test_the_newest_routes_count(catalog: Catalog) -> None:
    catalog.take(routes(2, row("new")))
    catalog.take(routes(1, row("old")))
    assert catalog.versions("new") == ("1",)
    assert catalog.versions("old") == ()
    catalog.take(routes(0, row("restarted"), term="another"))
    assert catalog.versions("restarted") == ("1",)


async def test_a_model_that_is_known_needs_no_question(catalog: Catalog, control: Control) -> None:
    catalog.take(routes(1, row()))
    assert (await catalog.resolve("m", "")).runner == "onnx-cpu"
    assert control.asked["routes"] == 0


async def test_an_unknown_model_is_asked_about_once_more(catalog: Catalog, control: Control) -> None:
    catalog.take(routes(1))
    control.now = lambda: routes(2, row("fresh"))
    assert (await catalog.resolve("fresh", "1")).status.model == "fresh"
    with pytest.raises(InferenceError) as caught:
        await catalog.resolve("nowhere", "")
    assert code_of(caught) is ErrorCode.MODEL_NOT_FOUND


async def test_a_model_that_is_unavailable_needs_no_question(catalog: Catalog, control: Control) -> None:
    catalog.take(routes(1, row(state=ModelState.UNAVAILABLE)))
    with pytest.raises(InferenceError) as caught:
        await catalog.resolve("m", "")
    assert code_of(caught) is ErrorCode.MODEL_UNAVAILABLE
    assert control.asked["routes"] == 0


async def test_those_who_ask_at_once_share_one_question_and_one_that_leaves_ends_it_for_nobody(
    catalog: Catalog, control: Control
) -> None:
    catalog.take(routes(1))
    control.gate.clear()
    control.now = lambda: routes(2, row())
    first, *others = [asyncio.create_task(catalog.resolve("m", "")) for _ in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    control.gate.set()
    assert {routed.status.model for routed in await asyncio.gather(*others)} == {"m"}
    assert control.asked["routes"] == 1


async def test_before_control_was_heard_nothing_is_unknown(catalog: Catalog, control: Control) -> None:
    def fail() -> Routes:
        raise RuntimeError("no replica")

    control.now = fail
    with pytest.raises(InferenceError) as caught:
        await catalog.resolve("m", "")
    assert code_of(caught) is ErrorCode.SYSTEM_NOT_READY
    with pytest.raises(InferenceError) as caught:
        catalog.missing()
    assert code_of(caught) is ErrorCode.SYSTEM_NOT_READY


async def test_a_control_that_does_not_answer_leaves_what_is_known(catalog: Catalog, control: Control) -> None:
    catalog.take(routes(1, row(state=ModelState.LOADING)))

    def fail() -> Routes:
        raise RuntimeError("no replica")

    control.now = fail
    with pytest.raises(InferenceError) as caught:
        await catalog.resolve("m", "")
    assert code_of(caught) is ErrorCode.MODEL_LOADING


async def test_what_is_missing_is_known_until_news_are_too_old(catalog: Catalog, clock: Clock) -> None:
    catalog.take(routes(1, missing={"m": "bad magic"}))
    assert catalog.missing() == {"m": "bad magic"}
    clock.now += STALE_S + 1
    with pytest.raises(InferenceError) as caught:
        catalog.missing()
    assert code_of(caught) is ErrorCode.SYSTEM_NOT_READY


async def test_changes_are_followed_through_silence_errors_and_nonsense(
    catalog: Catalog, control: Control, clock: Clock
) -> None:
    following = asyncio.create_task(catalog.follow())
    for news in (routes(1, row("first")), None, RuntimeError("no replica"), "nonsense", routes(2, row("second"))):
        control.news.put_nowait(news)
    clock.now += STALE_S
    await control.news.join()
    while not catalog.versions("second"):  # noqa: ASYNC110 - what was taken off the queue is taken in soon
        await asyncio.sleep(0)
    assert catalog.missing() == {}
    assert control.known[:5] == [("", -1), ("term", 1), ("term", 1), ("term", 1), ("term", 1)]
    assert not following.done()
    following.cancel()


async def test_requests_are_checked_against_the_generation_that_was_resolved(catalog: Catalog) -> None:
    catalog.take(routes(1, row()))
    routed = await catalog.resolve("m", "")
    check = catalog.check(routed)
    assert check(InferRequest("m", (Tensor("x", Datatype.FP32, (2,), bytes(8)),))) == 1
    with pytest.raises(InferenceError):
        check(InferRequest("m", (Tensor("x", Datatype.FP32, (3,), bytes(12)),)))
    catalog.take(routes(2, row(), row("other")))
    assert catalog.check(routed) is check
    catalog.take(routes(3, row(generation="b")))
    with pytest.raises(InferenceError) as caught:
        catalog.check(routed)
    assert code_of(caught) is ErrorCode.MODEL_NOT_READY
