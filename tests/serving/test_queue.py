"""Nobody is lost, doubled, overtaken unfairly or kept out for ever."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from foreword.errors import ConfigError, DeadlineExceeded, EngineFailed, Overloaded, UsageError
from foreword.serving.engine.waiting.ledger import Ledger, Reservation
from foreword.serving.engine.waiting.queue import FairQueue, Limits
from foreword.serving.engine.waiting.shares import Shares

IDS = itertools.count()


@dataclass(frozen=True)
class Item:
    tenant: str = "acme"
    priority: int = 0
    deadline: float | None = None
    cost: int = 10
    id: str = field(default_factory=lambda: f"r{next(IDS)}")


def queue_of(*items: Item, limits: Limits | None = None) -> FairQueue[Item]:
    queue = FairQueue[Item](limits)
    for item in items:
        queue.put(item, 0.0)
    return queue


def take_in_order(queue: FairQueue[Item], count: int, now: float = 0.0) -> list[Item]:
    """One admission pass that takes everything it is offered."""
    return [queue.take(item.id, now) for item in itertools.islice(queue.candidates(now), count)]


# --- who is next ---------------------------------------------------------------------------------


def test_a_burst_of_one_tenant_does_not_fill_the_batch_in_a_single_pass() -> None:
    burst = [Item("acme") for _ in range(10)]
    late = [Item("globex") for _ in range(2)]
    taken = take_in_order(queue_of(*burst, *late), 5)
    assert [item.tenant for item in taken] == ["acme", "globex", "acme", "globex", "acme"]


def test_generated_tokens_count_while_they_are_generated() -> None:
    queue = queue_of(Item("acme"), Item("globex"), Item("acme"), Item("globex"))
    take_in_order(queue, 2)
    queue.charge("acme", 1)
    assert [item.tenant for item in queue.candidates(0.0)] == ["globex", "acme"]


def test_a_tenant_that_was_idle_has_no_credit() -> None:
    queue = queue_of(*[Item("acme") for _ in range(20)])
    take_in_order(queue, 10)
    for _ in range(10):
        queue.put(Item("globex"), 0.0)
    served = Counter(item.tenant for item in take_in_order(queue, 10))
    assert served == {"acme": 5, "globex": 5}


def test_a_tenant_does_not_lose_its_debt_by_leaving_for_a_moment() -> None:
    queue = queue_of(Item("acme"), Item("globex"))
    greedy = take_in_order(queue, 1)[0]
    queue.charge(greedy.tenant, 500)
    queue.put(Item("acme"), 0.0)
    for _ in range(10):
        queue.put(Item("globex"), 0.0)
    assert [item.tenant for item in take_in_order(queue, 10)] == ["globex"] * 10


def test_weights_divide_the_service() -> None:
    queue = FairQueue[Item](weights={"acme": 3.0})
    for _ in range(40):
        queue.put(Item("acme"), 0.0)
        queue.put(Item("globex"), 0.0)
    assert Counter(item.tenant for item in take_in_order(queue, 40)) == {"acme": 30, "globex": 10}


def test_priority_goes_first_in_its_own_line_and_then_the_earlier() -> None:
    low, high, high_too = Item(priority=0), Item(priority=5), Item(priority=5)
    assert list(queue_of(low, high, high_too).candidates(0.0)) == [high, high_too, low]


@given(
    st.lists(st.sampled_from("abc"), min_size=1, max_size=30),
    st.lists(st.integers(-9, 9), min_size=30, max_size=30),
)
def test_priorities_take_nothing_from_other_tenants(
    tenants: list[str], priorities: list[int]
) -> None:
    plain = [Item(tenant) for tenant in tenants]
    loud = [replace(item, priority=p) for item, p in zip(plain, priorities, strict=False)]
    served = [take_in_order(queue_of(*items), len(plain)) for items in (plain, loud)]
    assert [item.tenant for item in served[0]] == [item.tenant for item in served[1]]


@given(st.data())
@settings(max_examples=60)
def test_service_of_backlogged_tenants_stays_within_the_bound(data: st.DataObject) -> None:
    """An engine of `rows` rows, whose tenants ask for as much as they like.

    The careless one takes a full batch for want of room, so that the door is held most of the time.
    """
    careless = data.draw(st.booleans())
    rows, most_prompt, most_new = 4, 50, 20
    weights = {"a": data.draw(st.sampled_from([0.5, 1.0, 4.0])), "b": 1.0, "c": 1.0}
    shapes = st.tuples(st.integers(1, most_prompt), st.integers(0, most_new))
    script = {tenant: data.draw(st.lists(shapes, min_size=3, max_size=8)) for tenant in weights}
    queue = FairQueue[Item](Limits(starvation=data.draw(st.sampled_from([0.0, 9.0]))), weights)
    remaining: dict[str, int] = {}
    running: dict[str, tuple[str, int]] = {}
    asked = {tenant: itertools.cycle(shapes) for tenant, shapes in script.items()}
    served = dict.fromkeys(weights, 0.0)
    history = []

    def ask(tenant: str) -> None:
        prompt, new = next(asked[tenant])
        item = Item(tenant, priority=data.draw(st.integers(0, 3)), cost=prompt)
        remaining[item.id] = new
        queue.put(item, 0.0)

    for tenant in [*weights] * (rows + 1):  # more than one pass can take
        ask(tenant)
    for now in range(120):
        for item in queue.candidates(now):
            if len(running) == rows:
                if not careless:
                    break
                queue.no_room(item.id, now)
                continue
            queue.take(item.id, now)
            running[item.id] = (item.tenant, remaining.pop(item.id))
            served[item.tenant] += item.cost / weights[item.tenant]
            ask(item.tenant)
        for name, (tenant, left) in list(running.items()):
            if not left:
                del running[name]
                continue
            running[name] = (tenant, left - 1)
            queue.charge(tenant, 1)
            served[tenant] += 1 / weights[tenant]
        queue.check_integrity()
        history.append(dict(served))
    bound = 2 * ((1 + careless) * most_prompt + rows * most_new) / min(weights.values())
    for one, other in itertools.combinations(weights, 2):
        ahead = [at[one] - at[other] for at in history]
        assert max(ahead) - min(ahead) <= bound


# --- who cannot start now ------------------------------------------------------------------------


def test_a_line_of_loading_prefixes_holds_up_its_own_tenant_only() -> None:
    loading = [Item("acme") for _ in range(100)]
    ready = Item("globex")
    queue = queue_of(*loading, ready, limits=Limits(reach=8))
    assert list(queue.candidates(0.0)) == [*loading[:8], ready]
    for item in loading[:5]:
        queue.cancel(item.id)
    assert list(queue.candidates(0.0)) == [*loading[5:13], ready]


def admit(
    queue: FairQueue[Item], ledger: Ledger, sizes: dict[str, int], now: float
) -> dict[str, Reservation]:
    admitted = {}
    for item in queue.candidates(now):
        reservation = ledger.reserve(item.tenant, sizes.get(item.id, 10))
        if reservation is None:
            queue.no_room(item.id, now)
        else:
            queue.take(item.id, now)
            admitted[item.id] = reservation
    return admitted


@pytest.mark.parametrize(("starvation", "gets_in"), [(3.0, True), (1e9, False)])
def test_a_large_request_gets_in_beside_a_stream_of_small_ones(
    starvation: float, gets_in: bool
) -> None:
    """Without the rule it waits for ever: the second case shows that the first proves something."""
    large = Item("acme")
    queue = queue_of(limits=Limits(starvation=starvation))
    ledger = Ledger(100)
    leaving: dict[int, list[Reservation]] = {}
    waited = None
    for tick in range(60):
        for reservation in leaving.pop(tick, []):
            ledger.release(reservation)
        for _ in range(3):
            queue.put(Item("globex"), float(tick))
        if tick == 10:
            queue.put(large, float(tick))
        admitted = admit(queue, ledger, {large.id: 100}, float(tick))
        if large.id in admitted:
            waited = tick - 10
        leaving.setdefault(tick + 5, []).extend(admitted.values())
    assert (waited is not None) == gets_in
    if waited is not None:
        assert waited <= starvation + 5  # its time at the front, then the longest that runs


def test_nobody_holds_the_door_before_its_turn() -> None:
    first, second = Item("acme"), Item("globex")
    queue = queue_of(first, second, limits=Limits(starvation=1.0))
    for now in (0.0, 2.0):
        offered = []
        for item in queue.candidates(now):
            queue.no_room(item.id, now)
            offered.append(item)
        assert offered == ([first, second] if now == 0.0 else [first])
    queue.cancel(first.id)
    assert list(queue.candidates(2.0)) == [second]
    queue.no_room(second.id, 2.0)
    queue.put(third := Item("initech"), 2.0)
    assert third in list(queue.candidates(2.5))


def test_a_tenant_cannot_line_up_behind_its_own_item_at_the_door() -> None:
    """Each of its items is first for a moment, by a higher priority than the one before."""
    queue = queue_of(limits=Limits(starvation=5.0))
    for now in range(5):
        queue.put(Item("acme", priority=now), float(now))
        first = next(queue.candidates(float(now)))
        queue.no_room(first.id, float(now))
    queue.put(other := Item("globex"), 5.0)
    queue.charge("acme", 100)
    order = list(queue.candidates(100.0))
    assert [item.priority for item in order] == [0, 0, 4, 3, 2, 1]
    assert order[1] is other


def test_who_starves_but_waits_for_something_else_holds_nobody_up() -> None:
    starving, other = Item("acme"), Item("globex")
    queue = queue_of(starving, other, limits=Limits(starvation=1.0))
    for item in queue.candidates(0.0):
        queue.no_room(item.id, 0.0)
    assert list(queue.candidates(5.0)) == [starving, other]


def test_the_door_is_free_again_when_who_held_it_is_gone() -> None:
    for leave in ("cancel", "expire", "deadline"):
        starving, other = Item("acme", deadline=3.0), Item("globex")
        queue = queue_of(starving, other, limits=Limits(starvation=1.0))
        for item in queue.candidates(0.0):
            queue.no_room(item.id, 0.0)
        if leave == "cancel":
            queue.cancel(starving.id)
        elif leave == "expire":
            assert queue.expire(3.0) == [starving]
        assert list(queue.candidates(3.0)) == [other]
        queue.check_integrity()


# --- limits and deadlines ------------------------------------------------------------------------


def test_a_full_queue_says_when_to_come_again() -> None:
    queue = queue_of(*[Item(cost=0) for _ in range(40)], limits=Limits(total=40))
    with pytest.raises(Overloaded, match="40 requests are waiting") as refusal:
        queue.put(Item(), 0.0)
    assert refusal.value.code == "serving.queue_full"
    assert refusal.value.retry_after == 1.0
    for second in range(20):  # two taken and two come a second: 40 take 20 s
        take_in_order(queue, 2, float(second))
        queue.put(Item(), float(second))
        queue.put(Item(), float(second))
    with pytest.raises(Overloaded) as refusal:
        queue.put(Item(), 20.0)
    assert refusal.value.retry_after == pytest.approx(20.0)
    with pytest.raises(Overloaded) as refusal:
        queue.put(Item(), 1e6)
    assert refusal.value.retry_after == 60.0


def test_a_tenant_that_fills_its_part_leaves_room_for_the_others() -> None:
    queue = queue_of(Item(), Item(), limits=Limits(total=3, per_tenant=2))
    with pytest.raises(Overloaded, match="tenant 'acme' has 2 requests waiting"):
        queue.put(Item(), 0.0)
    queue.put(Item("globex"), 0.0)
    assert queue.by_tenant() == {"acme": 2, "globex": 1}


@pytest.mark.parametrize("deadline", [0.0, 5.0, float("nan"), float("-inf")])
def test_what_comes_too_late_is_refused_at_once(deadline: float) -> None:
    queue = queue_of()
    with pytest.raises(DeadlineExceeded) as refusal:
        queue.put(Item(deadline=deadline), 5.0)
    assert refusal.value.code == "serving.deadline"
    assert len(queue) == 0


def test_a_late_item_is_never_offered_even_before_it_is_collected() -> None:
    late, early, never = Item(deadline=2.0), Item(deadline=1.0), Item()
    queue = queue_of(late, early, never)
    assert list(queue.candidates(2.0)) == [never]
    assert queue.expire(0.5) == []
    assert queue.expire(2.0) == [early, late]
    assert queue.expire(9.0) == []
    assert len(queue) == 1


def test_an_id_that_waits_cannot_be_taken_for_another_request() -> None:
    item = Item()
    queue = queue_of(item)
    with pytest.raises(UsageError) as refusal:
        queue.put(replace(item, tenant="globex"), 0.0)
    assert refusal.value.code == "request.id_in_use"
    assert queue.take(item.id, 0.0) is item
    assert queue.cancel(item.id) is None
    for use in (queue.take, queue.no_room):
        with pytest.raises(EngineFailed):
            use(item.id, 0.0)
    queue.put(item, 0.0)


def test_settings_that_make_no_sense_are_refused() -> None:
    for broken in ({"total": 0}, {"per_tenant": 0}, {"reach": 0}, {"starvation": float("nan")}):
        with pytest.raises(ConfigError):
            Limits(**broken)  # type: ignore[arg-type]
    for weight in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError) as refusal:
            FairQueue[Item](weights={"acme": weight})
        assert refusal.value.code == "config.tenant_weight"
    with pytest.raises(EngineFailed):
        queue_of().charge("acme", -1)


def test_the_check_finds_a_lost_item() -> None:
    queue = queue_of(Item(), Item())
    queue._lines["acme"].pop()
    with pytest.raises(EngineFailed, match="do not agree"):
        queue.check_integrity()


def test_ten_thousand_waiting_items_of_a_thousand_tenants_are_no_load() -> None:
    queue = queue_of(limits=Limits(total=10_000))
    began = time.process_time()
    for number in range(10_000):
        queue.put(Item(f"t{number % 1000}", priority=number % 7, deadline=1e6 + number), 0.0)
    order = [item for _ in range(1250) for item in take_in_order(queue, 8)]
    assert time.process_time() - began < 5.0  # seen: 0.2 s
    assert len({item.id for item in order}) == 10_000
    assert Counter(item.tenant for item in order[:1000]).most_common(1)[0][1] == 1


# --- counters ------------------------------------------------------------------------------------


def test_tenants_of_the_past_are_forgotten_and_debts_are_not() -> None:
    shares = Shares()
    shares.join("anchor")
    shares.join("debtor")
    shares.charge("debtor", 10**9)
    shares.leave("debtor")
    for number in range(20_000):
        shares.join(f"t{number}")
        shares.leave(f"t{number}")
    assert len(shares._service) < 5000
    assert shares.service("debtor") == 10**9
    shares.check_integrity()


# --- against a naive queue -----------------------------------------------------------------------


class QueueMachine(RuleBasedStateMachine):
    """The same questions to a plain list that is sorted every time."""

    LIMITS = Limits(total=12, per_tenant=5, reach=3, starvation=2.0)
    WEIGHTS = {"a": 2.0}  # noqa: RUF012 - never changed

    def __init__(self) -> None:
        super().__init__()
        self.queue = FairQueue[Item](self.LIMITS, self.WEIGHTS)
        self.now = 0.0
        self.items: list[Item] = []
        self.service: dict[str, float] = {}
        self.since: list[str] = []
        self.last = ""
        self.no_room: dict[str, tuple[float, Item]] = {}
        self.put_in = self.got_out = 0

    def order(self) -> list[Item]:
        tenants = sorted(self.since, key=lambda t: (self.service[t], self.since.index(t)))
        lines = {t: [item for item in self.items if item.tenant == t] for t in tenants}
        fair = [
            item
            for t in tenants
            for item in sorted(lines[t], key=lambda item: -item.priority)[: self.LIMITS.reach]
        ]
        if self.no_room:
            since, first = next(iter(self.no_room.values()))
            if self.now - since >= self.LIMITS.starvation:
                fair = [first, *(item for item in fair if item is not first)]
        return fair

    def remove(self, item: Item) -> None:
        self.items.remove(item)
        self.no_room = {t: held for t, held in self.no_room.items() if held[1] is not item}
        if not any(other.tenant == item.tenant for other in self.items):
            self.since.remove(item.tenant)
            self.last = item.tenant
        self.got_out += 1

    @rule(
        tenant=st.sampled_from("abc"),
        priority=st.integers(-1, 1),
        span=st.none() | st.integers(-1, 6),
        cost=st.integers(0, 9),
    )
    def put(self, tenant: str, priority: int, span: int | None, cost: int) -> None:
        item = Item(tenant, priority, None if span is None else self.now + span, cost)
        own = sum(other.tenant == tenant for other in self.items)
        try:
            self.queue.put(item, self.now)
        except DeadlineExceeded:
            assert span is not None
            assert span <= 0
        except Overloaded:
            assert len(self.items) == self.LIMITS.total or own == self.LIMITS.per_tenant
        else:
            assert len(self.items) < self.LIMITS.total
            assert own < self.LIMITS.per_tenant
            if not own:
                floor = min((self.service[t] for t in self.since), default=None)
                if floor is None:
                    floor = self.service.get(self.last, 0.0)
                self.service[tenant] = max(floor, self.service.get(tenant, 0.0))
                self.since.append(tenant)
            self.items.append(item)
            self.put_in += 1

    @precondition(lambda self: self.items)
    @rule(data=st.data())
    def take(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(self.order()))
        assert self.queue.take(item.id, self.now) is item
        self.remove(item)
        self.bill(item.tenant, item.cost)

    @precondition(lambda self: self.items)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        item = data.draw(st.sampled_from(self.items))
        assert self.queue.cancel(item.id) is item
        self.remove(item)

    @precondition(lambda self: self.items)
    @rule(data=st.data())
    def find_no_room(self, data: st.DataObject) -> None:
        """A pass in which some items have no room and the others wait for something else."""
        short = data.draw(st.sets(st.sampled_from([item.id for item in self.items])))
        seen, expected = [], self.order()
        held = self.no_room and self.now - next(iter(self.no_room.values()))[0] >= 2.0
        for item in self.queue.candidates(self.now):
            seen.append(item)
            if item.id in short:
                self.queue.no_room(item.id, self.now)
        if held and expected[0].id in short:
            expected = expected[:1]
        assert seen == expected
        for item in expected:
            if item.id in short:
                self.no_room.setdefault(item.tenant, (self.now, item))
                break

    @rule(tenant=st.sampled_from("abc"), tokens=st.integers(0, 20))
    def charge(self, tenant: str, tokens: int) -> None:
        self.queue.charge(tenant, tokens)
        self.bill(tenant, tokens)

    def bill(self, tenant: str, tokens: int) -> None:
        floor = min((self.service[t] for t in self.since), default=self.service.get(self.last, 0.0))
        before = self.service.get(tenant, floor)
        self.service[tenant] = before + tokens / self.WEIGHTS.get(tenant, 1.0)

    @rule(seconds=st.integers(1, 3))
    def pass_time(self, seconds: int) -> None:
        self.now += seconds
        late = [i for i in self.items if i.deadline is not None and i.deadline <= self.now]
        late.sort(key=lambda item: item.deadline or 0.0)
        expired = self.queue.expire(self.now)
        assert sorted(item.id for item in expired) == sorted(item.id for item in late)
        assert [item.deadline for item in expired] == [item.deadline for item in late]
        for item in expired:
            self.remove(item)

    @invariant()
    def agrees(self) -> None:
        self.queue.check_integrity()
        assert list(self.queue.candidates(self.now)) == self.order()
        assert self.queue.by_tenant() == dict(Counter(item.tenant for item in self.items))
        assert len(self.queue) == len(self.items) == self.put_in - self.got_out


TestQueueMachine = QueueMachine.TestCase
TestQueueMachine.settings = settings(max_examples=60, stateful_step_count=40)
