"""The manifest of Kubernetes in contrib/: what it says of the server is true of the server."""

from __future__ import annotations

from pathlib import Path

import yaml
from twisted.trial.unittest import SynchronousTestCase

from txgearman.server.process.twistd import Options

MANIFEST = Path(__file__).parent.parent.parent / "contrib/kubernetes/txgearmand.yml"


class KubernetesTest(SynchronousTestCase):
    def setUp(self) -> None:
        documents = yaml.safe_load_all(MANIFEST.read_text(encoding="utf-8"))
        self.objects = {document["kind"]: document for document in documents}
        self.pod = self.objects["StatefulSet"]["spec"]["template"]
        (self.container,) = self.pod["spec"]["containers"]

    def test_it_has_time_to_drain(self) -> None:
        options = Options()
        options.parseOptions([each for each in self.container["args"] if not each.startswith("--log-")])
        self.assertGreater(self.pod["spec"]["terminationGracePeriodSeconds"], options.process.drain_timeout)

    def test_ports_are_those_of_the_options(self) -> None:
        ports = {port["name"]: port["containerPort"] for port in self.container["ports"]}
        self.assertIn(f"--listen=tcp:{ports['gearman']}", self.container["args"])
        self.assertIn(f"--web=tcp:{ports['web']}", self.container["args"])
        service = {port["name"]: port["port"] for port in self.objects["Service"]["spec"]["ports"]}
        self.assertEqual(service, ports)

    def test_only_a_server_that_hangs_is_ended(self) -> None:
        """One that cannot save, or drains, is not ready and lives."""
        probes = {
            name: self.container[f"{name}Probe"]["httpGet"] for name in ("startup", "readiness", "liveness")
        }
        self.assertEqual({probe["port"] for probe in probes.values()}, {"web"})
        self.assertEqual(
            {name: probe["path"] for name, probe in probes.items()},
            {"startup": "/readyz", "readiness": "/readyz", "liveness": "/healthz"},
        )

    def test_selectors_find_the_pods(self) -> None:
        labels = self.pod["metadata"]["labels"]
        self.assertEqual(self.objects["Service"]["spec"]["selector"], labels)
        for kind in ("StatefulSet", "PodDisruptionBudget"):
            self.assertEqual(self.objects[kind]["spec"]["selector"]["matchLabels"], labels)
        self.assertEqual(self.objects["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"], labels)
        service = self.objects["StatefulSet"]["spec"]["serviceName"]
        self.assertEqual(service, self.objects["Service"]["metadata"]["name"])

    def test_it_does_not_run_as_root(self) -> None:
        security = self.pod["spec"]["securityContext"]
        self.assertTrue(security["runAsNonRoot"])
        self.assertEqual(security["runAsUser"], 4730, "as in the image")
