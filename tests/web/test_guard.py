"""Who may change something over HTTP: tokens, read-only, requests that foreign pages send."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.web.asking import Response, Web
from txgearman.web import WebSettings
from txgearman.web.http.guard import WebRight

TOKEN = "0123456789abcdef"
ELSEWHERE = "192.0.2.7"
SAMPLES = {"{function}": "f", "{handle}": "H:t:1", "{number}": "1"}


def changes(web: Web) -> list[tuple[str, str]]:
    """Method and path of everything that changes something."""
    found = [("POST", "/f"), ("PUT", "/f")]
    api = web.site.resource.children[b"api"]
    for route in api.routes:
        if route.right is not WebRight.VIEW:
            path = route.path
            for name, sample in SAMPLES.items():
                path = path.replace(name, sample)
            found.append((route.method, f"/api/v1{path}"))
    return found


class GuardTests(SynchronousTestCase):
    def refusals(self, web: Web, host: str = "127.0.0.1", headers: dict[str, str] | None = None) -> set[str]:
        """The codes of the problems that all changes meet."""
        codes = set()
        for method, path in changes(web):
            codes.add(web.ask(method, path, headers=headers, host=host).code)
        self.assertEqual(web.broker.total, 0)
        return codes

    def assert_let_in(self, web: Web, host: str = "127.0.0.1", headers: dict[str, str] | None = None) -> None:
        response = web.ask(
            "POST", "/f", headers={"X-Gearman-Background": "true", **(headers or {})}, host=host
        )
        self.assertEqual(response.status, 202)

    def test_on_this_machine_without_a_token(self) -> None:
        self.assert_let_in(Web())

    def test_elsewhere_without_a_token(self) -> None:
        self.assertEqual(self.refusals(Web(), ELSEWHERE), {"no-token-set"})

    def test_with_a_token_everybody_must_show_it(self) -> None:
        for host in ("127.0.0.1", ELSEWHERE):
            web = Web(WebSettings(token=TOKEN.encode()))
            self.assertEqual(self.refusals(web, host), {"token-needed"})
            for none in ("", "Bearer", f"Basic {TOKEN}", TOKEN):
                self.assertEqual(self.refusals(web, host, {"Authorization": none}), {"token-needed"}, none)
            for wrong in ("Bearer x", f"Bearer {TOKEN}x"):
                self.assertEqual(self.refusals(web, host, {"Authorization": wrong}), {"wrong-token"}, wrong)
            self.assert_let_in(web, host, {"Authorization": f"bearer {TOKEN}"})

    def test_a_missing_token_is_asked_for(self) -> None:
        response = Web(WebSettings(token=TOKEN.encode())).ask("POST", "/f")
        self.assertEqual((response.status, response.headers["www-authenticate"]), (401, "Bearer"))

    def test_looking_needs_no_token(self) -> None:
        web = Web(WebSettings(token=TOKEN.encode()))
        self.assertEqual(web.get("/api/v1/functions", host=ELSEWHERE).status, 200)

    def test_read_only(self) -> None:
        web = Web(WebSettings(read_only=True, token=TOKEN.encode()))
        self.assertEqual(self.refusals(web, headers={"Authorization": f"Bearer {TOKEN}"}), {"read-only"})

    def test_pages_of_other_sites(self) -> None:
        for headers in (
            {"Origin": "http://evil.example"},
            {"Origin": "null"},
            {"Origin": "http://127.0.0.1:9999"},
            {"Origin": "http://localhost:8080"},
            {"Origin": "http://["},
            {"Sec-Fetch-Site": "cross-site"},
            {"Sec-Fetch-Site": "same-site"},
        ):
            self.assertEqual(self.refusals(Web(), headers=headers), {"cross-origin"}, headers)

    def test_pages_of_this_site(self) -> None:
        self.assert_let_in(
            Web(), headers={"Origin": "http://127.0.0.1:8080", "Sec-Fetch-Site": "same-origin"}
        )
        self.assert_let_in(Web(), headers={"Sec-Fetch-Site": "none"})

    def test_nobody_is_told_that_others_may_read(self) -> None:
        def allowed(response: Response) -> list[str]:
            return [name for name in response.headers if name.startswith("access-control")]

        web = Web()
        headers = {"Origin": "http://evil.example", "Access-Control-Request-Method": "DELETE"}
        self.assertEqual(allowed(web.get("/api/v1/server", headers=headers)), [])
        self.assertEqual(allowed(web.ask("OPTIONS", "/api/v1/jobs/H:t:1", headers=headers)), [])

    def test_reading_changes_nothing(self) -> None:
        """No path that changes something does so by a method that browsers send across sites unasked."""
        for method, _path in changes(Web()):
            self.assertIn(method, ("POST", "PUT", "PATCH", "DELETE"))
