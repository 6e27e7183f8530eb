"""The versions of one replica: loading, reloading and unloading until all is as desired."""

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from trygon.deployments.residents import Residents
from trygon.errors import ErrorCode, InferenceError
from trygon.models.statistics import ModelStatistics
from trygon.models.versions import ModelDescription, ModelState, VersionSpec

DESCRIPTION = ModelDescription("test", b"", 0, (), ())


class Instance:
    """A model instance that remembers whether it was closed."""

    def __init__(self, spec: VersionSpec) -> None:
        self.spec = spec
        self.description = DESCRIPTION
        self.statistics = ModelStatistics(spec.model, spec.version)
        self.closed = False

    async def close(self) -> None:
        self.closed = True


class Loader:
    """Loads instances, or raises what a test says, by generation."""

    def __init__(self) -> None:
        self.loaded: list[Instance] = []
        self.outcomes: dict[str, Callable[[], None]] = {}

    def __call__(self, spec: VersionSpec) -> Any:
        self.outcomes.get(spec.generation, lambda: None)()
        instance = Instance(spec)
        self.loaded.append(instance)
        return instance


def spec(generation: str = "a", version: int = 1) -> VersionSpec:
    return VersionSpec("m", version, "onnx-cpu", "/m", f"/m/{version}", b"", generation)


def refuse() -> None:
    raise InferenceError(ErrorCode.MODEL_FILE_INVALID, "bad magic")


def crash() -> None:
    raise MemoryError("none left")


@pytest.fixture
def loader() -> Loader:
    return Loader()


@pytest.fixture
def residents(loader: Loader) -> Residents:
    return Residents(loader, lambda: None, load_timeout_s=10)


async def test_what_is_desired_is_loaded_and_what_is_not_is_unloaded(residents: Residents, loader: Loader) -> None:
    residents.apply([spec(version=1), spec(version=2)])
    assert {status.state for status in residents.statuses()} == {ModelState.LOADING}
    await residents.settle()
    assert {status.state for status in residents.statuses()} == {ModelState.READY}
    assert residents.get("m", 2).spec == spec(version=2)
    assert residents.specs() == (spec(version=1), spec(version=2))
    residents.apply([spec(version=2)])
    await residents.settle()
    assert [status.version for status in residents.statuses()] == [2]
    assert [(instance.spec.version, instance.closed) for instance in sorted(loader.loaded, key=_version)] == [
        (1, True),
        (2, False),
    ]


def _version(instance: Instance) -> int:
    return instance.spec.version


async def test_applying_the_same_again_changes_nothing(residents: Residents, loader: Loader) -> None:
    for _ in range(3):
        residents.apply([spec()])
        await residents.settle()
    assert len(loader.loaded) == 1


async def test_a_new_generation_takes_the_place_of_the_old(residents: Residents, loader: Loader) -> None:
    residents.apply([spec("a")])
    await residents.settle()
    residents.apply([spec("b")])
    assert residents.get("m", 1).spec.generation == "a"
    await residents.settle()
    assert residents.get("m", 1).spec.generation == "b"
    assert [instance.closed for instance in loader.loaded] == [True, False]


async def test_a_broken_new_generation_leaves_the_old_one_serving(residents: Residents, loader: Loader) -> None:
    loader.outcomes["b"] = refuse
    residents.apply([spec("a")])
    await residents.settle()
    residents.apply([spec("b")])
    await residents.settle()
    (status,) = residents.statuses()
    assert (status.state, status.generation, status.attempted) == (ModelState.READY, "a", "b")
    assert status.reason == "bad magic"


async def test_a_model_that_does_not_load_is_unavailable_and_not_tried_again(
    residents: Residents, loader: Loader
) -> None:
    loader.outcomes["a"] = refuse
    for _ in range(2):
        residents.apply([spec("a")])
        await residents.settle()
    (status,) = residents.statuses()
    assert (status.state, status.reason) == (ModelState.UNAVAILABLE, "bad magic")
    with pytest.raises(InferenceError, match="bad magic") as caught:
        residents.get("m", 1)
    assert caught.value.code is ErrorCode.MODEL_UNAVAILABLE
    residents.apply([spec("repaired")])
    await residents.settle()
    assert residents.get("m", 1)


async def test_a_fault_that_nobody_foresaw_is_a_reason_too(residents: Residents, loader: Loader) -> None:
    loader.outcomes["a"] = crash
    residents.apply([spec("a")])
    await residents.settle()
    assert residents.statuses()[0].reason == "MemoryError: none left"


async def test_a_version_that_is_not_there_says_what_it_is(residents: Residents) -> None:
    with pytest.raises(InferenceError) as caught:
        residents.get("m", 1)
    assert caught.value.code is ErrorCode.MODEL_NOT_READY
    residents.apply([spec()])
    with pytest.raises(InferenceError) as caught:
        residents.get("m", 1)
    assert caught.value.code is ErrorCode.MODEL_LOADING
    await residents.settle()


async def test_a_version_that_leaves_is_not_ready_rather_than_loading(residents: Residents) -> None:
    residents.apply([spec()])
    await residents.settle()
    residents.apply([])
    # The unload begins in the event loop's next turn.
    await asyncio.sleep(0)
    with pytest.raises(InferenceError) as caught:
        residents.get("m", 1)
    assert caught.value.code is ErrorCode.MODEL_NOT_READY


async def test_a_load_that_hangs_is_given_up_and_closed_when_it_ends_after_all(loader: Loader) -> None:
    gate = threading.Event()
    loader.outcomes["a"] = lambda: gate.wait(30) and None
    residents = Residents(loader, lambda: None, load_timeout_s=0.01)
    residents.apply([spec("a")])
    await residents.settle()
    (status,) = residents.statuses()
    assert status.state is ModelState.UNAVAILABLE
    assert "0.01 s" in status.reason
    gate.set()
    async with asyncio.timeout(10):
        while not (loader.loaded and loader.loaded[0].closed):  # noqa: ASYNC110 - the thread has no event to wait for
            await asyncio.sleep(0)


async def test_a_version_wanted_again_while_it_leaves_comes_back(residents: Residents) -> None:
    residents.apply([spec()])
    await residents.settle()
    residents.apply([])
    assert residents.statuses()[0].state is ModelState.UNLOADING
    await asyncio.sleep(0)
    residents.apply([spec()])
    await residents.settle()
    assert residents.get("m", 1).closed is False  # type: ignore[attr-defined]
    assert residents.statuses()[0].state is ModelState.READY


async def test_closing_unloads_everything_and_news_is_told(loader: Loader) -> None:
    news: list[int] = []
    residents = Residents(loader, lambda: news.append(1), load_timeout_s=10)
    residents.apply([spec(version=1), spec(version=2)])
    await residents.settle()
    assert len(residents.statistics()) == 2
    await residents.close()
    assert residents.statuses() == []
    assert all(instance.closed for instance in loader.loaded)
    assert len(news) >= 4


async def test_a_version_that_flips_back_is_not_loaded_once_more(residents: Residents, loader: Loader) -> None:
    loader.outcomes["b"] = refuse
    residents.apply([spec("a")])
    await residents.settle()
    for _ in range(3):
        residents.apply([spec("b")])
        residents.apply([spec("a")])
    residents.apply([spec("b")])
    await residents.settle()
    residents.apply([spec("a")])
    await residents.settle()
    (status,) = residents.statuses()
    assert (status.generation, status.attempted, status.reason) == ("a", "a", "")
    assert [instance.spec.generation for instance in loader.loaded] == ["a"]


async def test_a_version_that_flips_while_it_loads_ends_as_wanted_last(loader: Loader) -> None:
    gate = threading.Event()
    loader.outcomes["a"] = lambda: gate.wait(30) and None
    residents = Residents(loader, lambda: None, load_timeout_s=100)
    residents.apply([spec("a")])
    await asyncio.sleep(0)
    residents.apply([])
    residents.apply([spec("b")])
    gate.set()
    await residents.settle()
    assert residents.get("m", 1).spec.generation == "b"
    assert [instance.closed for instance in loader.loaded] == [True, False]


async def test_a_version_that_is_unwanted_while_it_loads_leaves_when_it_has(loader: Loader) -> None:
    gate = threading.Event()
    loader.outcomes["a"] = lambda: gate.wait(30) and None
    residents = Residents(loader, lambda: None, load_timeout_s=100)
    residents.apply([spec("a")])
    await asyncio.sleep(0)
    residents.apply([])
    gate.set()
    await residents.settle()
    assert residents.statuses() == []
    assert [instance.closed for instance in loader.loaded] == [True]


async def test_a_caller_may_wait_for_the_first_load(residents: Residents, loader: Loader) -> None:
    residents.apply([spec("a")])
    assert (await residents.find("m", 1)).spec.generation == "a"
    loader.outcomes["bad"] = refuse
    residents.apply([spec("a"), spec("bad", version=2)])
    with pytest.raises(InferenceError, match="bad magic") as caught:
        await residents.find("m", 2)
    assert caught.value.code is ErrorCode.MODEL_UNAVAILABLE
    with pytest.raises(InferenceError) as caught:
        await residents.find("m", 3)
    assert caught.value.code is ErrorCode.MODEL_NOT_READY


async def test_requests_that_never_end_do_not_keep_a_new_generation_from_coming(loader: Loader) -> None:
    residents = Residents(loader, lambda: None, load_timeout_s=0.01)
    never = asyncio.Event()

    async def hang() -> None:
        await never.wait()

    residents.apply([spec("a")])
    await residents.settle()
    loader.loaded[0].close = hang  # type: ignore[method-assign]  # a model whose run hangs
    residents.apply([spec("b")])
    residents.apply([spec("c")])
    await residents.settle()
    assert residents.get("m", 1).spec.generation == "c"
    residents.apply([])
    await residents.settle()
    assert residents.statuses() == []
    never.set()


async def test_a_close_that_fails_is_logged_and_the_version_leaves(
    residents: Residents, loader: Loader, caplog: pytest.LogCaptureFixture
) -> None:
    async def fail() -> None:
        raise OSError("device lost")

    residents.apply([spec()])
    await residents.settle()
    loader.loaded[0].close = fail  # type: ignore[method-assign]  # a runtime that fails
    residents.apply([])
    await residents.settle()
    assert residents.statuses() == []
    assert "could not close m 1: device lost" in caplog.text


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), StopIteration("over")])
async def test_a_runtime_that_wants_to_exit_is_a_failed_load(
    residents: Residents, loader: Loader, error: BaseException
) -> None:
    def throw() -> None:
        raise error

    loader.outcomes["a"] = throw
    residents.apply([spec("a")])
    await residents.settle()
    (status,) = residents.statuses()
    assert status.state is ModelState.UNAVAILABLE
    assert type(error).__name__ in status.reason


async def test_a_load_that_was_given_up_and_fails_after_all_harms_nobody(loader: Loader) -> None:
    gate, ended = threading.Event(), threading.Event()

    def fail_late() -> None:
        gate.wait(30)
        ended.set()
        raise MemoryError("none left")

    loader.outcomes["a"] = fail_late
    residents = Residents(loader, lambda: None, load_timeout_s=0.01)
    residents.apply([spec("a")])
    await residents.settle()
    gate.set()
    await asyncio.to_thread(ended.wait, 30)
    await asyncio.sleep(0)
    assert loader.loaded == []


def test_a_load_that_ends_after_the_event_loop_harms_nobody(loader: Loader) -> None:
    gate = threading.Event()
    loader.outcomes["a"] = lambda: gate.wait(30) and None

    async def begin() -> None:
        Residents(loader, lambda: None, load_timeout_s=100).apply([spec("a")])
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    before = set(threading.enumerate())
    asyncio.run(begin())
    (late,) = set(threading.enumerate()) - before
    gate.set()
    late.join(30)
    assert len(loader.loaded) == 1
