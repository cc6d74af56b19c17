"""Jobs that only the store has, as the web side shows them."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.server.stores import UNAVAILABLE, ListStore, Thread
from tests.web.asking import Web
from txgearman.broker.entities import Worker
from txgearman.broker.stored_job import StoredJob
from txgearman.server import Settings
from txgearman.server.persistence.lease import NUMBERS_PER_START
from txgearman.server.persistence.lookups import INITIAL_FETCH_LIMIT
from txgearman.server.persistence.writer import REMOVAL_DELAY, StoreWriter

JOBS = "/api/v1/functions/f/jobs"
BEFORE = NUMBERS_PER_START
AHEAD = INITIAL_FETCH_LIMIT
"""Jobs that are in memory after a start: more than half of what may be, so no more are fetched."""


def kept(number: int, priority: int = 1, function: bytes = b"f") -> StoredJob:
    place = BEFORE + number
    data = b"data %d" % number
    return StoredJob(place, place, b"H:t:%d" % place, function, b"", data, priority, None, 0, 50.0, None)


class StoredCase(SynchronousTestCase):
    """A server that has just started on a store with jobs."""

    DEPTH = AHEAD + 20

    def setUp(self) -> None:
        self.store = ListStore()
        self.store.starts = 1
        for job in self.kept():
            self.store.jobs[job.number] = job
        self.web = Web(server=Settings(handle_prefix="H:t", store_ahead=2 * AHEAD - 1, web="8080"))
        self.thread = Thread()
        store_writer = StoreWriter(self.store, self.web.gearman.clock, self.thread)
        factory = self.web.gearman.server
        factory.use_store(store_writer, store_writer.open("test", 10))
        self.broker = factory.broker
        self.inspection = factory.inspection
        store_writer.load(self.broker)
        self.thread.run_all()

    def kept(self) -> list[StoredJob]:
        return [kept(number) for number in range(1, self.DEPTH + 1)]

    def ask(self, method: str, path: str) -> Any:
        """What is answered once the store was asked all it was to be."""
        exchange = self.web.begin(method, path)
        while not exchange.response.status:
            assert self.thread.calls, "no answer"
            self.thread.run()
            self.web.gearman.turn()
        return exchange.response

    def page(self, query: str = "") -> tuple[list[int], str | None]:
        page = self.ask("GET", JOBS + query).json()
        numbers = [int(job["handle"].rpartition(":")[2]) - BEFORE for job in page["jobs"]]
        return numbers, page["next"]

    def all(self, query: str = "?limit=50") -> list[int]:
        """All pages, one after the other."""
        numbers, place = self.page(query)
        while place is not None:
            more, place = self.page(f"{query}&after={place}")
            numbers += more
        return numbers


class SearchTests(StoredCase):
    def kept(self) -> list[StoredJob]:
        return [job._replace(unique=b"unique %d" % job.number) for job in super().kept()]

    def found(self, text: str) -> list[tuple[str, str]]:
        jobs = self.ask("GET", f"/api/v1/search?text={text}").json()["jobs"]
        return [(job["handle"], job["state"]) for job in jobs]

    def test_by_handle_and_by_unique(self) -> None:
        last = BEFORE + self.DEPTH
        self.assertEqual(self.found(f"H:t:{last}"), [(f"H:t:{last}", "stored")])
        self.assertEqual(self.found(f"unique%20{last}"), [(f"H:t:{last}", "stored")])
        self.assertEqual(self.found(f"unique%20{last + 1}"), [])


class ListTests(StoredCase):
    def test_the_list_goes_on_into_the_store(self) -> None:
        self.assertEqual(self.all(), list(range(1, self.DEPTH + 1)))

    def test_what_they_are_like(self) -> None:
        page = self.ask("GET", f"{JOBS}?limit=1&after={AHEAD + BEFORE}").json()
        (job,) = page["jobs"]
        place = BEFORE + AHEAD + 1
        self.assertEqual((job["state"], job["handle"], job["place"]), ("stored", f"H:t:{place}", place))
        self.assertEqual((job["preview"], job["size"], job["submitted"]), (f"data {AHEAD + 1}", 8, 50.0))
        self.assertEqual(page["next"], f"stored-1-{place}")

    def test_states(self) -> None:
        self.assertEqual(self.all("?state=stored"), list(range(AHEAD + 1, self.DEPTH + 1)))
        self.assertEqual(self.all("?state=queued&limit=60"), list(range(1, self.DEPTH + 1)))
        self.assertEqual(self.all("?state=scheduled"), [])
        self.assertEqual(self.all("?state=running"), [])

    def test_search(self) -> None:
        self.assertEqual(self.all(f"?search=data%20{AHEAD + 1}"), [AHEAD + 1])
        self.assertEqual(self.all(f"?search={BEFORE + AHEAD + 2}"), [AHEAD + 2])

    def test_places_that_are_none(self) -> None:
        for after in ("x", "-1", "stored-3-1", "stored-1", "stored-1-", "%D9%A3", "1" * 20):
            response = self.web.get(f"{JOBS}?after={after}")
            self.assertEqual((response.status, response.code), (400, "bad-parameter"), after)

    def test_one_that_comes_into_memory_between_two_pages_is_shown_once(self) -> None:
        first, place = self.page(f"?limit={AHEAD + 5}")
        worker = Worker(self.web.gearman.server)  # type: ignore[arg-type]
        self.broker.can_do(worker, b"f")
        for _ in range(AHEAD // 2):
            assert self.broker.grab(worker) is not None
        self.thread.run_all()
        self.assertEqual(self.inspection.function_detail(b"f").stored, 0)
        second, place = self.page(f"?limit=50&after={place}")
        self.assertEqual((first + second, place), (list(range(1, self.DEPTH + 1)), None))

    def test_one_that_ended_is_left_out(self) -> None:
        self.assertEqual(self.ask("DELETE", f"/api/v1/jobs/H:t:{BEFORE + AHEAD + 3}").status, 204)
        self.web.gearman.turn(REMOVAL_DELAY / 2)
        numbers = self.all("?state=stored")
        self.assertNotIn(AHEAD + 3, numbers)
        self.assertEqual(len(numbers), self.DEPTH - AHEAD - 1)

    def test_a_store_that_does_not_answer(self) -> None:
        self.store.failing = UNAVAILABLE
        response = self.ask("GET", f"{JOBS}?state=stored")
        self.assertEqual(response.status, 503)
        numbers, place = self.page(f"?limit={AHEAD + 5}")
        self.assertEqual((numbers, place), (list(range(1, AHEAD + 1)), "stored-1-0"))

    def test_without_a_store_there_are_none(self) -> None:
        web = Web()
        web.ask("POST", f"{JOBS}?background=true")
        self.assertEqual(web.get(f"{JOBS}?state=stored").json(), {"jobs": [], "next": None})

    def test_where_they_begin(self) -> None:
        shown = self.ask("GET", "/api/v1/functions/f").json()
        self.assertEqual((shown["away"], shown["behind"]["normal"]), (20, BEFORE + AHEAD))
        self.assertIsNone(shown["behind"]["high"])


class PrioritiesTest(StoredCase):
    def kept(self) -> list[StoredJob]:
        return [kept(number, number % 3) for number in range(1, 3 * AHEAD + 1)] + [
            kept(10_000 + number, number % 3) for number in range(6)
        ]

    def test_one_behind_the_other(self) -> None:
        stored = self.all("?state=stored&limit=7")
        ranks = [number % 3 if number < 10_000 else (number - 10_000) % 3 for number in stored]
        self.assertEqual(ranks, sorted(ranks))
        everything = self.all("?limit=70")
        self.assertEqual(sorted(everything), sorted(job.number - BEFORE for job in self.kept()))
        self.assertEqual(len(everything), len(set(everything)))


class JobTests(StoredCase):
    HANDLE = f"H:t:{BEFORE + AHEAD + 1}"

    def test_one_with_its_data(self) -> None:
        job = self.ask("GET", f"/api/v1/jobs/{self.HANDLE}").json()
        self.assertEqual((job["state"], job["size"]), ("stored", 8))
        self.assertEqual(self.ask("GET", f"/api/v1/jobs/{self.HANDLE}/data").body, b"data 101")

    def test_one_of_another_server(self) -> None:
        self.patch(StoreWriter, "owns", lambda store_writer, job: False)
        job = self.ask("GET", f"/api/v1/jobs/{self.HANDLE}").json()
        self.assertEqual((job["state"], job["size"], job["place"]), ("stored", None, None))
        response = self.ask("GET", f"/api/v1/jobs/{self.HANDLE}/data")
        self.assertEqual((response.status, response.code), (409, "elsewhere"))
