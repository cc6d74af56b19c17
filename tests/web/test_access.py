"""The access policy over HTTP."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from ipaddress import ip_address, ip_network
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.web.asking import Web
from txgearman.access.patterns import MAX_SHOWN
from txgearman.access.policy import AccessPolicy, Identity, Rule
from txgearman.server import Settings
from txgearman.server.config.options import FunctionSettings
from txgearman.web import WebSettings
from txgearman.web.http.guard import Guard, WebRight
from txgearman.web.http.responses import HTTPProblem

SERVER = "/api/v1/server"
TOKEN = "the token of an administrator"
POLICY = AccessPolicy(
    (
        Rule("here", networks=(ip_network("127.0.0.0/8"),), submit=(b"f*",), admin=frozenset({"view"})),
        Rule("boss", tokens=(sha256(TOKEN.encode()).digest(),), admin=frozenset({"view", "manage"})),
    )
)
ELSEWHERE = "192.0.2.7"


class ViewTests(SynchronousTestCase):
    """A real request for what everybody may see where there is no policy."""

    def ask(self, host: str, token: str | None = None) -> Any:
        web = Web(server=Settings(access=POLICY))
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        return web.get(SERVER, headers=headers, host=host)

    def test_a_rule_fits(self) -> None:
        self.assertEqual(self.ask("127.0.0.1").status, 200)
        self.assertEqual(self.ask(ELSEWHERE, TOKEN).status, 200)

    def test_without_a_token_one_is_asked_for(self) -> None:
        response = self.ask(ELSEWHERE)
        self.assertEqual((response.status, response.code), (401, "token-needed"))
        self.assertEqual(response.headers["www-authenticate"], "Bearer")

    def test_a_wrong_token(self) -> None:
        for token in ("wrong", "", TOKEN + "x", TOKEN.upper()):
            response = self.ask(ELSEWHERE, token)
            code = "wrong-token" if token else "token-needed"
            self.assertEqual((response.status, response.code), (401, code), token)

    def test_a_token_that_allows_other_things(self) -> None:
        web = Web(server=Settings(access=POLICY))
        headers = {"Authorization": f"Bearer {TOKEN}"}
        response = web.ask("POST", "/api/v1/functions/f/jobs", b"x", headers=headers, host=ELSEWHERE)
        self.assertEqual((response.status, response.code), (403, "access-denied"))


class SubmitTests(SynchronousTestCase):
    """Submitting, in both styles."""

    def test_by_function(self) -> None:
        web = Web(server=Settings(access=POLICY))
        for host, function, status in (
            ("127.0.0.1", "fg", 202),
            ("127.0.0.1", "g", 401),
            (ELSEWHERE, "fg", 401),
        ):
            api = web.ask("POST", f"/api/v1/functions/{function}/jobs?background=true", b"x", host=host)
            self.assertEqual(api.status, status, (host, function))
            like_gearmand = web.ask(
                "POST", f"/{function}", b"x", headers={"X-Gearman-Background": "true"}, host=host
            )
            self.assertEqual(like_gearmand.status == 401, status == 401, (host, function))
        self.assertEqual(web.broker.total, 2)

    def test_limits_of_names_come_ahead_of_the_policy(self) -> None:
        web = Web(server=Settings(access=POLICY))
        rights = POLICY.rights_of(Identity(address=ip_address("127.0.0.1")))
        rights.may_submit.clear()
        long = "f" * 513
        for path in (f"/api/v1/functions/{long}/jobs?background=true", f"/{long}"):
            response = web.ask("POST", path, b"x", host="127.0.0.1")
            self.assertEqual((response.status, response.code), (400, "argument-too-large"), path)
        self.assertEqual(set(rights.may_submit), set())

    def test_no_answer_repeats_what_is_long(self) -> None:
        web = Web(server=Settings(access=POLICY))
        denied = web.ask("POST", f"/api/v1/functions/{'%1b' * 512}/jobs", b"x", host="127.0.0.1")
        self.assertEqual(denied.status, 401)
        unknown = web.get(f"{SERVER}?{'%1b' * 4000}=1", host="127.0.0.1")
        self.assertEqual(unknown.code, "unknown-parameter")
        for response in (denied, unknown):
            # JSON doubles each backslash.
            self.assertLess(len(response.body), 5 * MAX_SHOWN + 300)


class ChangedPolicyTests(SynchronousTestCase):
    """A reload takes rights away from requests that are under way."""

    def setUp(self) -> None:
        self.web = Web(server=Settings(access=POLICY, functions={"f": FunctionSettings(keep_results=60.0)}))
        job = self.web.ask("POST", "/api/v1/functions/f/jobs?background=true", b"x")
        self.job = f"/api/v1/jobs/{job.json()['handle']}"

    def reload(self, *rules: Rule) -> None:
        server = self.web.gearman.server
        server.reconfigure(replace(server.settings, access=AccessPolicy(rules)))
        self.web.gearman.turn()

    def test_requests_that_it_does_not_allow_end(self) -> None:
        paths = ("/api/v1/live", f"{self.job}/events", f"{self.job}/result?wait=60")
        exchanges = [self.web.begin("GET", path) for path in paths]
        self.reload(*POLICY.rules, Rule("more"))
        self.assertEqual([exchange.response.closed for exchange in exchanges], [False] * 3)
        self.reload()
        self.assertEqual([exchange.response.closed for exchange in exchanges], [True] * 3)
        self.assertEqual([b"JOB" in exchange.transport.value() for exchange in exchanges], [False] * 3)

    def test_who_waits_for_the_result_of_the_own_job_gets_it(self) -> None:
        exchange = self.web.begin("POST", "/api/v1/functions/f/jobs", b"ab")
        self.reload()
        self.assertIs(exchange.response.closed, False)

    def test_what_was_answered_is_forgotten(self) -> None:
        exchange = self.web.begin("GET", "/api/v1/live")
        exchange.leave()
        self.web.get(SERVER)
        self.reload()
        routes: Any = self.web.site.resource.children[b"api"].children[b"v1"]
        self.assertEqual(routes._under_way, {})


class GuardTests(SynchronousTestCase):
    """Each right, asked of the guard itself."""

    def guard(self, policy: AccessPolicy | None = POLICY, **settings: Any) -> Guard:
        return Guard(WebSettings(**settings), lambda: policy)

    def request(self, host: str, token: str | None = None) -> Any:
        """What the guard looks at of a request."""
        transport = Web().begin("GET", "/", host=host).transport
        request = type("Request", (), {})()
        request.channel = type("Channel", (), {"transport": transport})()
        request.getHeader = lambda _name: None if token is None else b"Bearer " + token.encode()
        request.getHost = transport.getHost
        return request

    def test_rights(self) -> None:
        guard = self.guard()
        for host, token, rights in (
            ("127.0.0.1", None, {WebRight.VIEW, WebRight.SUBMIT}),
            (ELSEWHERE, None, set()),
            (ELSEWHERE, TOKEN, {WebRight.VIEW, WebRight.MANAGE}),
            ("127.0.0.1", TOKEN, {WebRight.VIEW, WebRight.MANAGE, WebRight.SUBMIT}),
        ):
            request = self.request(host, token)
            self.assertEqual({right for right in WebRight if guard.allows(request, right)}, rights)

    def test_functions(self) -> None:
        guard = self.guard()
        guard.check_submit(self.request("127.0.0.1"), b"fg")
        for host, function in (("127.0.0.1", b"g"), (ELSEWHERE, b"f")):
            with self.assertRaises(HTTPProblem):
                guard.check_submit(self.request(host), function)
        self.guard(None).check_submit(self.request(ELSEWHERE), b"g")

    def test_read_only_is_stronger(self) -> None:
        guard = self.guard(read_only=True)
        request = self.request("127.0.0.1", TOKEN)
        self.assertEqual({right for right in WebRight if guard.allows(request, right)}, {WebRight.VIEW})

    def test_the_token_of_the_web_side_allows_everything(self) -> None:
        guard = self.guard(AccessPolicy(), token=b"the one token of all")
        request = self.request(ELSEWHERE, "the one token of all")
        self.assertTrue(all(guard.allows(request, right) for right in WebRight))
        guard.check_submit(request, b"f")
        request = self.request("127.0.0.1", "another token")
        self.assertFalse(any(guard.allows(request, right) for right in WebRight))
