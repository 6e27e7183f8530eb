import asyncio
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trygon.deployments.fairness import Draft, FairQueue
from trygon.deployments.item import Item


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


class Waiting:
    """A fair queue, and shorthand to fill and empty it."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.queue = FairQueue()

    def add(self, tenant: str, count: int = 1, *, rows: int = 1, weight: float = 1, shape: str = "") -> list[Item]:
        items = [
            Item(number, print, rows=rows, tenant=tenant, weight=weight, shape_key=shape, loop=self.loop)
            for number in range(count)
        ]
        for item in items:
            self.queue.append(item)
        return items

    def draw(self, rows: int) -> list[Item]:
        draft = Draft(rows, rows)
        self.queue.draw(draft)
        return draft.items

    def rows(self, rows: int) -> Counter[str]:
        drawn: Counter[str] = Counter()
        for item in self.draw(rows):
            drawn[item.tenant] += item.rows
        return drawn


@pytest.fixture
def waiting(loop: asyncio.AbstractEventLoop) -> Waiting:
    return Waiting(loop)


def test_one_tenant_is_served_in_order(waiting: Waiting) -> None:
    items = waiting.add("a", 5)
    assert waiting.draw(3) == items[:3]
    assert waiting.draw(3) == items[3:]


def test_two_tenants_share_a_batch_evenly(waiting: Waiting) -> None:
    waiting.add("flood", 100)
    waiting.add("polite", 4)
    assert waiting.rows(8) == {"flood": 4, "polite": 4}
    assert waiting.rows(8) == {"flood": 8}


def test_rows_follow_the_weights(waiting: Waiting) -> None:
    waiting.add("gold", 100, weight=3)
    waiting.add("basic", 100)
    assert waiting.rows(32) == {"gold": 24, "basic": 8}


def test_small_weights_cost_no_more_turns(waiting: Waiting) -> None:
    waiting.add("a", 100, rows=8, weight=0.002)
    waiting.add("b", 100, rows=8, weight=0.001)
    drawn: Counter[str] = Counter()
    for _ in range(12):
        drawn += waiting.rows(32)
    assert drawn["a"] / drawn["b"] == pytest.approx(2, rel=0.15)


def test_large_requests_get_their_share_beside_small_ones(waiting: Waiting) -> None:
    waiting.add("small", 400)
    waiting.add("large", 20, rows=8)
    drawn: Counter[str] = Counter()
    for _ in range(10):
        drawn += waiting.rows(8)
    assert abs(drawn["small"] - drawn["large"]) <= 16


def test_another_shape_goes_first_in_the_next_batch(waiting: Waiting) -> None:
    waiting.add("flood", 100, shape="a")
    (other,) = waiting.add("polite", shape="b")
    assert {item.tenant for item in waiting.draw(8)} == {"flood"}
    assert waiting.draw(8) == [other]


def test_large_requests_of_another_shape_do_not_starve(waiting: Waiting) -> None:
    waiting.add("flood", 400, shape="a")
    waiting.add("polite", 2, shape="b", rows=8)
    batches = [waiting.rows(8) for _ in range(4)]
    assert {"polite": 8} in batches


def test_a_shape_s_later_items_may_pass_another_s(waiting: Waiting) -> None:
    first, second, third = waiting.add("t", shape="a") + waiting.add("t", shape="b") + waiting.add("t", shape="a")
    assert waiting.draw(8) == [first, third]
    assert waiting.draw(8) == [second]


def test_a_tenant_is_forgotten_with_its_last_item(waiting: Waiting) -> None:
    items = waiting.add("a", 2) + waiting.add("b", 1)
    waiting.queue.remove(items[2])
    assert waiting.queue.tenants == 1
    waiting.draw(8)
    assert not waiting.queue


def test_restored_items_are_drawn_again_in_the_same_order(waiting: Waiting) -> None:
    waiting.add("a", 3)
    waiting.add("b", 3)
    drawn = waiting.draw(6)
    waiting.queue.restore(drawn)
    again = waiting.draw(6)
    for tenant in "ab":
        assert [item for item in again if item.tenant == tenant] == [item for item in drawn if item.tenant == tenant]


@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, 8), st.floats(0.001, 1000), st.sampled_from("xy")),
        max_size=60,
    ),
    st.integers(8, 16),
)
def test_everything_is_drawn_exactly_once(
    loop: asyncio.AbstractEventLoop, arrivals: list[tuple[str, int, float, str]], size: int
) -> None:
    waiting = Waiting(loop)
    items = [waiting.add(tenant, rows=rows, weight=weight, shape=shape)[0] for tenant, rows, weight, shape in arrivals]
    drawn: list[Item] = []
    while waiting.queue:
        batch = waiting.draw(size)
        assert 0 < sum(item.rows for item in batch) <= size
        assert len({item.shape_key for item in batch}) == 1
        drawn += batch
    assert len(drawn) == len(items)
    assert set(drawn) == set(items)


def test_two_backlogged_tenants_never_drift_apart(waiting: Waiting) -> None:
    waiting.add("a", 2000, rows=3)
    waiting.add("b", 2000, rows=2)
    drawn: Counter[str] = Counter({"a": 0, "b": 0})
    for _ in range(200):
        drawn += waiting.rows(16)
        assert abs(drawn["a"] - drawn["b"]) <= 16


def test_who_had_the_queue_to_itself_owes_nobody(waiting: Waiting) -> None:
    waiting.add("flood", 1000)
    for _ in range(20):
        waiting.add("now and then")
        waiting.rows(16)
    waiting.add("new", 100)
    assert waiting.rows(16)["flood"] >= 7


def test_room_taken_on_credit_is_paid_back(waiting: Waiting) -> None:
    waiting.add("small", 1000)
    waiting.add("large", 500, rows=7)
    drawn: Counter[str] = Counter({"small": 0, "large": 0})
    for _ in range(100):
        drawn += waiting.rows(8)
        assert abs(drawn["small"] - drawn["large"]) <= 16
