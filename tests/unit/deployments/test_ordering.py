from trygon.deployments.item import Item
from trygon.deployments.ordering import ResponseOrder


def expected(order: ResponseOrder, tenant: str, count: int) -> list[Item]:
    items = [Item(number, print, tenant=tenant) for number in range(count)]
    for item in items:
        order.expect(item)
    return items


async def test_outcomes_leave_in_the_order_of_requests() -> None:
    order = ResponseOrder()
    first, second, third = expected(order, "a", 3)
    assert order.settle(second, "two") == []
    assert order.settle(first, "one") == [first, second]
    assert second.outcome == "two"
    assert order.settle(third, "three") == [third]


async def test_tenants_do_not_wait_for_each_other() -> None:
    order = ResponseOrder()
    expected(order, "a", 1)
    (other,) = expected(order, "b", 1)
    assert order.settle(other, None) == [other]


async def test_who_is_dropped_holds_nobody_back() -> None:
    order = ResponseOrder()
    first, second, third = expected(order, "a", 3)
    order.settle(second, "two")
    assert order.drop(first) == [second]
    assert order.drop(third) == []
    assert order.settle(third, "too late") == []
