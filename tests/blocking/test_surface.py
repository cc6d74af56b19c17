"""What python-gearman offers to programs is there, under its names and with its defaults.

That is all of 2.0.2, and what was added on the way to a release that never came.
"""

from __future__ import annotations

import importlib
import inspect
import json
import pickle
from collections import deque
from typing import Any, Final

from twisted.trial.unittest import SynchronousTestCase

from txgearman import blocking as gearman
from txgearman import errors as package_errors
from txgearman.blocking import errors
from txgearman.blocking.connection_manager import address_of
from txgearman.client import Priority

SUBMITTING: Final = "background=False, wait_until_complete=True, max_retries=0, poll_timeout=None"

POLLING: Final = "submitted_connections, callback_fxn, timeout=None"

METHODS: Final = {
    "GearmanClient.__init__": "host_list=None, random_unique_bytes=16",
    "GearmanClient.submit_job": f"task, data, unique=None, priority=None, {SUBMITTING}, options",
    "GearmanClient.submit_multiple_jobs": f"jobs_to_submit, {SUBMITTING}",
    "GearmanClient.submit_multiple_requests": "job_requests, wait_until_complete=True, poll_timeout=None",
    "GearmanClient.wait_until_jobs_accepted": "job_requests, poll_timeout=None",
    "GearmanClient.wait_until_jobs_completed": "job_requests, poll_timeout=None",
    "GearmanClient.get_job_status": "current_request, poll_timeout=None",
    "GearmanClient.get_job_statuses": "job_requests, poll_timeout=None",
    "GearmanClient.wait_until_job_statuses_received": "job_requests, poll_timeout=None",
    "GearmanClient.send_job_request": "current_request",
    "GearmanClient.establish_request_connection": "current_request",
    "GearmanClient.poll_connections_until_stopped": POLLING,
    "GearmanClient.add_connection": "hostport_tuple",
    "GearmanClient.add_ssl_connection": "host, port, keyfile, certfile, ca_certs",
    "GearmanClient.establish_connection": "current_connection",
    "GearmanClient.shutdown": "",
    "GearmanWorker.__init__": "host_list=None",
    "GearmanWorker.register_task": "task, callback_function",
    "GearmanWorker.unregister_task": "task",
    "GearmanWorker.set_client_id": "client_id",
    "GearmanWorker.work": "poll_timeout=60.0",
    "GearmanWorker.shutdown": "",
    "GearmanWorker.after_poll": "any_activity",
    "GearmanWorker.after_job": "",
    "GearmanWorker.establish_worker_connections": "",
    "GearmanWorker.poll_connections_until_stopped": POLLING,
    "GearmanWorker.has_job_lock": "",
    "GearmanWorker.on_job_execute": "current_job",
    "GearmanWorker.on_job_exception": "current_job, exc_info",
    "GearmanWorker.on_job_complete": "current_job, job_result",
    "GearmanWorker.send_job_status": "current_job, numerator, denominator, poll_timeout=None",
    "GearmanWorker.send_job_data": "current_job, data, poll_timeout=None",
    "GearmanWorker.send_job_warning": "current_job, data, poll_timeout=None",
    "GearmanWorker.send_job_complete": "current_job, data, poll_timeout=None",
    "GearmanWorker.send_job_failure": "current_job, poll_timeout=None",
    "GearmanWorker.send_job_exception": "current_job, data, poll_timeout=None",
    "GearmanWorker.wait_until_updates_sent": "multiple_gearman_jobs, poll_timeout=None",
    "GearmanAdminClient.__init__": "host_list=None, poll_timeout=10.0",
    "GearmanAdminClient.ping_server": "",
    "GearmanAdminClient.send_maxqueue": "task, max_size",
    "GearmanAdminClient.send_shutdown": "graceful=True",
    "GearmanAdminClient.get_status": "",
    "GearmanAdminClient.get_version": "",
    "GearmanAdminClient.get_workers": "",
    "GearmanAdminClient.get_pid": "",
    "GearmanAdminClient.get_jobs": "",
    "GearmanAdminClient.get_unique_jobs": "",
    "GearmanAdminClient.cancel_job": "handle",
    "GearmanJob.__init__": "connection, handle, task, unique, data",
    "GearmanJob.to_dict": "",
    "GearmanJobRequest.__init__": "gearman_job, initial_priority=None, background=False, max_attempts=1",
    "GearmanJobRequest.reset": "",
    "GearmanConnection.__init__": "host=None, port=4730, keyfile=None, certfile=None, ca_certs=None",
    "GearmanConnection.get_address": "",
}

MODULES: Final = {
    "admin_client": ["GearmanAdminClient"],
    "client": ["GearmanClient"],
    "connection": ["GearmanConnection"],
    "connection_manager": ["DataEncoder", "GearmanConnectionManager", "NoopEncoder"],
    "constants": [
        "DEFAULT_GEARMAN_PORT",
        "JOB_COMPLETE",
        "JOB_CREATED",
        "JOB_FAILED",
        "JOB_PENDING",
        "JOB_UNKNOWN",
        "PRIORITY_HIGH",
        "PRIORITY_LOW",
        "PRIORITY_NONE",
    ],
    "job": ["GearmanJob", "GearmanJobRequest"],
    "worker": ["GearmanWorker"],
}

ERRORS: Final = [
    "ConnectionError",
    "ServerUnavailable",
    "ProtocolError",
    "UnknownCommandError",
    "ExceededConnectionAttempts",
    "InvalidClientState",
    "InvalidWorkerState",
    "InvalidAdminClientState",
]


class Surface(SynchronousTestCase):
    def test_methods(self) -> None:
        for name, expected in METHODS.items():
            kind, _, method = name.partition(".")
            parameters = list(inspect.signature(getattr(getattr(gearman, kind), method)).parameters.values())
            found = ", ".join(
                one.name if one.default is one.empty else f"{one.name}={one.default!r}"
                for one in parameters[1:]
            )
            self.assertEqual(found, expected, name)

    def test_modules(self) -> None:
        for name, contents in MODULES.items():
            module = importlib.import_module(f"txgearman.blocking.{name}")
            self.assertIs(getattr(gearman, name), module)
            self.assertEqual([one for one in contents if not hasattr(module, one)], [])

    def test_errors(self) -> None:
        self.assertIs(gearman.errors, errors)
        for name in ERRORS:
            self.assertTrue(issubclass(getattr(errors, name), errors.GearmanError), name)
        self.assertIs(errors.GearmanError, package_errors.GearmanError)

    def test_constants(self) -> None:
        priorities = (gearman.PRIORITY_NONE, gearman.PRIORITY_LOW, gearman.PRIORITY_HIGH)
        self.assertEqual(priorities, (None, "LOW", "HIGH"))
        states = ("UNKNOWN", "PENDING", "CREATED", "FAILED", "COMPLETE")
        for state in states:
            self.assertEqual(getattr(gearman, f"JOB_{state}"), state)

    def test_version(self) -> None:
        """Programs look whether it is one of 2.0."""
        self.assertEqual(gearman.__version__, "2.0.2")

    def test_all_names_are_there(self) -> None:
        self.assertEqual([name for name in gearman.__all__ if not hasattr(gearman, name)], [])


class Hosts(SynchronousTestCase):
    def test_one_server_as_text_or_dictionary(self) -> None:
        given: list[Any] = ["localhost:4731", ["localhost:4731"], {"host": "localhost", "port": 4731}]
        for kind in (gearman.GearmanClient, gearman.GearmanWorker, gearman.GearmanAdminClient):
            for hosts in given:
                (connection,) = kind(hosts).connection_list
                self.assertEqual(connection.get_address(), ("localhost", 4731))
        (connection,) = gearman.GearmanClient("unix:/run/gearman.sock").connection_list
        self.assertEqual(connection.name, "unix:/run/gearman.sock")

    def test_priorities(self) -> None:
        client = gearman.GearmanClient("localhost")
        for priority in (None, "LOW", "high", Priority.HIGH):
            job = {"task": "f", "data": "", "priority": priority}
            request = client._new_request(job, False, 0, iter(["u"]))
            self.assertIs(request.priority, priority)
        for wrong, error in (("urgent", ValueError), (5, TypeError)):
            with self.assertRaises(error):
                client._new_request({"task": "f", "data": "", "priority": wrong}, False, 0, iter(["u"]))


class Requests(SynchronousTestCase):
    def request(self, **options: Any) -> gearman.GearmanJobRequest:
        return gearman.GearmanJobRequest(gearman.GearmanJob(None, None, "f", "u", "data"), **options)

    def test_new(self) -> None:
        request = self.request()
        self.assertIs(request.job, request.gearman_job)
        self.assertEqual((request.state, request.timed_out), (gearman.JOB_UNKNOWN, False))
        self.assertEqual((request.result, request.exception, request.status), (None, None, {}))
        self.assertEqual((request.data_updates, request.warning_updates), (deque(), deque()))
        self.assertEqual((request.status_updates, request.server_status), (deque(), {}))
        self.assertEqual((request.connection_attempts, request.max_connection_attempts), (0, 1))
        self.assertEqual((request.priority, request.background), (None, False))
        self.assertIn("task='f'", repr(request))
        self.assertIn("task='f'", repr(request.job))

    def test_complete(self) -> None:
        for background, ends in ((False, ["FAILED", "COMPLETE"]), (True, ["CREATED", "FAILED", "COMPLETE"])):
            request, complete = self.request(background=background), []
            for state in ("UNKNOWN", "PENDING", "CREATED", "FAILED", "COMPLETE"):
                request.state = state
                if request.complete:
                    complete.append(state)
            self.assertEqual(complete, ends)

    def test_reset(self) -> None:
        request = self.request()
        request.state, request.result, request.connection_attempts = "COMPLETE", "result", 1
        request.job.handle = "H:x:1"
        request.reset()
        self.assertEqual((request.state, request.result, request.connection_attempts), ("UNKNOWN", None, 0))
        self.assertIsNone(request.job.handle)

    def test_format(self) -> None:
        """As Python 2 took it: what a program that was translated logs."""
        request = self.request()
        for one in (request, request.job):
            self.assertEqual(f"{one:s}|{one:>1}|{one}", "|".join([str(one)] * 3))


class Names(SynchronousTestCase):
    """Names are text, and old programs use them like bytes."""

    def test_decode(self) -> None:
        for text in ("key", "grüße"):
            name = gearman.Name.of(text)
            self.assertEqual((name.decode(), name.decode("utf-8"), str(name)), (text, text, text))
            self.assertIs(type(name.decode()), str)
        with self.assertRaises(UnicodeDecodeError):
            gearman.Name.of(b"\xff").decode()
        with self.assertRaises(UnicodeDecodeError):
            gearman.Name.of("ü").decode("ascii")
        self.assertEqual(gearman.Name.of(b"\xff").decode("latin-1"), "ÿ")

    def test_comparing(self) -> None:
        name = gearman.Name.of(b"key")
        for same in ("key", b"key", gearman.Name.of("key")):
            self.assertEqual(
                [name == same, same == name, name != same, same != name], [True, True, False, False]
            )
        for other in ("other", b"other", 1):
            self.assertEqual([name == other, name != other], [False, True])
        self.assertEqual(gearman.Name.of("ü"), "ü")
        self.assertNotEqual(gearman.Name.of("ü"), "ü".encode())

    def test_looking_up(self) -> None:
        name = gearman.Name.of("key")
        self.assertEqual([{"key": 1}[name], {b"key": 2}[name], {name: 3}["key"]], [1, 2, 3])
        self.assertIn(name, {b"key"})

    def test_what_is_stored_is_plain_text(self) -> None:
        self.assertIs(type(pickle.loads(pickle.dumps(gearman.Name.of("key")))), str)
        self.assertEqual(json.dumps({gearman.Name.of("key"): gearman.Name.of("value")}), '{"key": "value"}')


class Addresses(SynchronousTestCase):
    def test_forms(self) -> None:
        for server, expected in {
            "host": ("host", 4730),
            "host:4731": ("host", 4731),
            ("host", 4731): ("host", 4731),
            ("host", "4731"): ("host", 4731),
            ("host", None): ("host", 4730),
            ("host",): ("host", 4730),
            "[::1]:4731": ("::1", 4731),
            "[::1]": ("::1", 4730),
            "::1": ("::1", 4730),
            "unix:4731": ("unix", 4731),
            "unix:/run/gearman.sock": ("unix:/run/gearman.sock", None),
            "tls:host:4730:timeout=5": ("tls:host:4730:timeout=5", None),
            "tcp:host:4730": ("tcp:host:4730", None),
        }.items():
            self.assertEqual(address_of(server), expected, server)  # type: ignore[arg-type]

    def test_in_errors(self) -> None:
        for server in ("host:4731", "[::1]:4731", "unix:/run/gearman.sock"):
            (connection,) = gearman.GearmanClient([server]).connection_list
            self.assertEqual(connection.address, server)

    def test_wrong_ones(self) -> None:
        for server in ("host:port", "host:0", "host:65536", ("host", -1)):
            with self.assertRaises(ValueError):
                gearman.GearmanClient([server])  # type: ignore[list-item]
        for server in ("", (None, 4730), ":4730"):
            with self.assertRaises(errors.ServerUnavailable):
                gearman.GearmanClient([server])  # type: ignore[list-item]

    def test_dictionaries(self) -> None:
        tls = {"keyfile": "k", "certfile": "c", "ca_certs": "a"}
        client = gearman.GearmanClient(
            [{"host": "a", "port": 1}, {"host": "b", "port": None, **tls}, {"host": "c", "keyfile": ""}]
        )
        self.assertEqual(
            [one.get_address() for one in client.connection_list], [("a", 1), ("b", 4730), ("c", 4730)]
        )
        self.assertEqual([one.use_ssl for one in client.connection_list], [False, True, False])
        self.assertEqual(
            [one.name for one in client.connection_list], ["tcp:a:1", "tls:b:4730", "tcp:c:4730"]
        )
        self.assertEqual(client.connection_list[1].ca_certs, "a")

    def test_dictionaries_that_leave_tls_in_doubt(self) -> None:
        for wrong in ({"keyfile": "k"}, {"keyfile": "k", "certfile": "c"}, {"cacerts": "a"}):
            with self.assertRaises(errors.GearmanError):
                gearman.GearmanClient([{"host": "a", "port": 1, **wrong}])
        with self.assertRaises(errors.ServerUnavailable):
            gearman.GearmanClient([{"port": 1}])

    def test_connection(self) -> None:
        client = gearman.GearmanClient(["a", ("b", 1), "unix:/x"])
        self.assertEqual(
            [one.get_address() for one in client.connection_list], [("a", 4730), ("b", 1), ("unix:/x", None)]
        )
        self.assertEqual([one.name for one in client.connection_list], ["tcp:a:4730", "tcp:b:1", "unix:/x"])
        self.assertIs(client.connection_list[0].connected, False)
        self.assertEqual(gearman.GearmanConnection("::1").name, r"tcp:\:\:1:4730")


class Encoders(SynchronousTestCase):
    def test_text(self) -> None:
        encoder = gearman.TextEncoder
        self.assertEqual(encoder.encode("ü"), b"\xc3\xbc")
        self.assertEqual(encoder.encode(b"\xff"), b"\xff")
        self.assertEqual(encoder.encode(encoder.decode(b"\xff\x00")), b"\xff\x00")
        self.assertEqual(encoder.decode("世界".encode()), "世界")
        for wrong in (None, 12, bytearray()):
            with self.assertRaises(TypeError):
                encoder.encode(wrong)

    def test_bytes(self) -> None:
        self.assertEqual(gearman.NoopEncoder.encode(b"\xff"), b"\xff")
        self.assertEqual(gearman.NoopEncoder.decode(b"\xff"), b"\xff")
        with self.assertRaises(TypeError):
            gearman.NoopEncoder.encode("text")

    def test_must_be_made(self) -> None:
        for method in (gearman.DataEncoder.encode, gearman.DataEncoder.decode):
            with self.assertRaises(NotImplementedError):
                method(b"")  # type: ignore[operator]

    def test_encoder_that_makes_no_bytes(self) -> None:
        class Wrong(gearman.DataEncoder):
            @classmethod
            def encode(cls, encodable_object: Any) -> Any:
                return encodable_object

        class WrongClient(gearman.GearmanClient):
            data_encoder = Wrong

        with self.assertRaises(TypeError):
            WrongClient().encode_data(12)
