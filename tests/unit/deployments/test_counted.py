"""What replicas counted before they went is counted once, however they went."""

from trygon.deployments.counted import RECENT, Counted
from trygon.models.statistics import ModelStatistics


def rows(model: str, count: int) -> ModelStatistics:
    return ModelStatistics(model, 1, inference_count=count)


def total(counted: Counted) -> dict[str, int]:
    return {model: item.inference_count for (model, _), item in counted.total().items()}


def test_replicas_that_are_gone_are_added_up() -> None:
    counted = Counted()
    counted.retire("a", [rows("m", 1), rows("n", 5)])
    counted.retire("b", [rows("m", 2)])
    assert total(counted) == {"m": 3, "n": 5}


def test_a_replica_that_comes_back_is_not_counted_twice() -> None:
    counted = Counted()
    counted.retire("a", [rows("m", 1)])
    counted.revive("a")
    counted.revive("never seen")
    assert total(counted) == {}


def test_many_replicas_take_bounded_room_and_lose_nothing() -> None:
    counted = Counted()
    for number in range(3 * RECENT):
        counted.retire(f"replica-{number}", [rows("m", 1)])
    assert total(counted) == {"m": 3 * RECENT}
    counted.revive("replica-0")
    assert total(counted) == {"m": 3 * RECENT}


def test_a_model_that_is_forgotten_is_counted_no_more() -> None:
    counted = Counted()
    for number in range(RECENT + 2):
        counted.retire(f"replica-{number}", [rows("m", 1), rows("n", 1)])
    counted.forget("m")
    assert total(counted) == {"n": RECENT + 2}


def test_what_is_added_to_a_total_changes_nothing_that_is_kept() -> None:
    counted = Counted()
    counted.retire("a", [rows("m", 1)])
    counted.total()["m", 1].merge(rows("m", 10))
    assert total(counted) == {"m": 1}
