"""Weighted fairness between tenants: deficit round robin over the rows that wait."""

import math
from collections import OrderedDict
from collections.abc import Hashable, Sequence

from trygon.deployments.item import Item


class Draft:
    """A batch in the making: at most `max_rows` rows in at most `max_items` items, all of the first one's shape."""

    __slots__ = ("items", "max_items", "max_rows", "rows", "shape_key")

    def __init__(self, max_rows: int, max_items: int) -> None:
        self.items: list[Item] = []
        self.rows = 0
        self.max_rows = max_rows
        self.max_items = max_items
        self.shape_key: Hashable = None

    @property
    def full(self) -> bool:
        """Whether nothing more can join."""
        return self.rows >= self.max_rows or len(self.items) >= self.max_items

    def accepts(self, item: Item) -> bool:
        """Whether the item may join."""
        return self.rows + item.rows <= self.max_rows and (not self.items or item.shape_key == self.shape_key)

    def add(self, item: Item) -> None:
        """Let an accepted item join."""
        if not self.items:
            self.shape_key = item.shape_key
        self.items.append(item)
        self.rows += item.rows


class _Tenant:
    """What one tenant has waiting, in order of arrival, and how many rows it may still draw in this round."""

    __slots__ = ("arrivals", "deficit", "shapes", "weight")

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.deficit = weight
        # OrderedDict rather than dict or deque: removal from the middle and a look at the first are both O(1).
        self.arrivals: OrderedDict[Item, None] = OrderedDict()
        self.shapes: dict[Hashable, OrderedDict[Item, None]] = {}

    def add(self, item: Item) -> None:
        self.weight = item.weight
        self.arrivals[item] = None
        lane = self.shapes.get(item.shape_key)
        if lane is None:
            lane = self.shapes[item.shape_key] = OrderedDict()
        lane[item] = None

    def put_back(self, item: Item) -> None:
        self.add(item)
        self.arrivals.move_to_end(item, last=False)
        self.shapes[item.shape_key].move_to_end(item, last=False)

    def remove(self, item: Item) -> None:
        del self.arrivals[item]
        lane = self.shapes[item.shape_key]
        del lane[item]
        if not lane:
            del self.shapes[item.shape_key]

    def candidate(self, draft: Draft) -> Item:
        """The oldest item of the draft's shape, or the oldest of all if none has it."""
        lane = self.shapes.get(draft.shape_key) if draft.items else None
        return next(iter(lane or self.arrivals))


class FairQueue:
    """Items of many tenants, from which batches are drawn by weight.

    Deficit round robin (Shreedhar and Varghese, 1995) with rows as the cost: each round gives every tenant `weight`
    rows of credit, and it draws while its credit lasts. A tenant whose next item does not fit into the batch, or has
    another shape, goes first in the next one. A tenant's items of one shape keep their order. All state of a tenant
    goes with its last item; with one tenant nothing is counted.
    """

    __slots__ = ("_tenants",)

    def __init__(self) -> None:
        self._tenants: OrderedDict[str, _Tenant] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._tenants)

    @property
    def tenants(self) -> int:
        """How many tenants have something waiting."""
        return len(self._tenants)

    def head(self) -> Item:
        """Return the item that is drawn next, as far as shapes go. The queue must not be empty."""
        return next(iter(next(iter(self._tenants.values())).arrivals))

    def append(self, item: Item) -> None:
        """Let an item wait behind its tenant's others."""
        tenant = self._tenants.get(item.tenant)
        if tenant is None:
            tenant = self._tenants[item.tenant] = _Tenant(item.weight)
        tenant.add(item)
        item.lane = self

    def remove(self, item: Item) -> None:
        """Take an item out, wherever it stands."""
        tenant = self._tenants[item.tenant]
        tenant.remove(item)
        item.lane = None
        if not tenant.arrivals:
            del self._tenants[item.tenant]

    def restore(self, items: Sequence[Item]) -> None:
        """Put items that were drawn last back in front, with the credit that they cost."""
        for item in reversed(items):
            tenant = self._tenants.get(item.tenant)
            if tenant is None:
                tenant = self._tenants[item.tenant] = _Tenant(item.weight)
            else:
                tenant.deficit += item.rows
            tenant.put_back(item)
            item.lane = self
            self._tenants.move_to_end(item.tenant, last=False)

    def draw(self, draft: Draft) -> None:
        """Move items into the draft until it is full or nobody has one that it accepts."""
        ring = self._tenants
        alone = len(ring) == 1
        passed: list[tuple[str, _Tenant]] = []
        turned_away = 0
        while ring and not draft.full:
            name = next(iter(ring))
            tenant = ring[name]
            item = tenant.candidate(draft)
            if alone:
                tenant.deficit = 0
            elif len(ring) > 1 and tenant.deficit < item.rows:
                tenant.deficit += tenant.weight
                ring.move_to_end(name)
                turned_away += 1
                if turned_away >= len(ring):
                    self._grant_rounds(draft)
                    turned_away = 0
                continue
            turned_away = 0
            if not draft.accepts(item):
                passed.append((name, ring.pop(name)))
                continue
            if passed or len(ring) > 1:
                # The last who can join fills the room on credit, which it repays to those who were passed over.
                tenant.deficit = max(tenant.deficit - item.rows, -draft.max_rows)
            tenant.remove(item)
            item.lane = None
            draft.add(item)
            if not tenant.arrivals:
                del ring[name]
        for name, tenant in reversed(passed):
            ring[name] = tenant
            ring.move_to_end(name, last=False)

    def _grant_rounds(self, draft: Draft) -> None:
        """Give everyone at once the rounds after which the first tenant can afford its next item.

        Else a small weight or an item of many rows would cost as many turns as it needs rounds.
        """
        tenants = self._tenants.values()
        rounds = min(math.ceil((tenant.candidate(draft).rows - tenant.deficit) / tenant.weight) for tenant in tenants)
        if rounds > 0:
            for tenant in tenants:
                tenant.deficit += rounds * tenant.weight
