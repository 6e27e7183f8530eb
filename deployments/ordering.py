"""The order of answers for models with preserve_ordering: a tenant's answers leave in the order of its requests."""

from collections import OrderedDict
from typing import Any

from trygon.deployments.item import Item

_PENDING = object()


class ResponseOrder:
    """Holds outcomes back until everything that the same tenant asked before has been answered.

    Per tenant and not over all of them: nobody sees the order of answers to different tenants, and one tenant's slow
    request must not hold another's answer. With one tenant it is Triton's order.
    """

    __slots__ = ("_tenants",)

    def __init__(self) -> None:
        self._tenants: dict[str, OrderedDict[Item, None]] = {}

    def expect(self, item: Item) -> None:
        """Note a request; its answer comes after those expected before."""
        item.outcome = _PENDING
        self._tenants.setdefault(item.tenant, OrderedDict())[item] = None

    def settle(self, item: Item, outcome: Any) -> list[Item]:
        """Note an outcome, and return the items whose `outcome` may leave now, in their order."""
        item.outcome = outcome
        return self._leaving(item.tenant)

    def drop(self, item: Item) -> list[Item]:
        """Expect no outcome of this item any more, and return those that may leave now because of it."""
        del self._tenants[item.tenant][item]
        return self._leaving(item.tenant)

    def _leaving(self, tenant: str) -> list[Item]:
        outstanding = self._tenants.get(tenant, OrderedDict())
        leaving: list[Item] = []
        while outstanding:
            first = next(iter(outstanding))
            if first.outcome is _PENDING:
                return leaving
            del outstanding[first]
            leaving.append(first)
        self._tenants.pop(tenant, None)
        return leaving
