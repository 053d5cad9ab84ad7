import base64
from pathlib import Path

import pytest

from edgesite.client import kubeconfig

CONFIG = """
apiVersion: v1
kind: Config
current-context: main
contexts:
- {name: main, context: {cluster: site, user: admin, namespace: work}}
- {name: other, context: {cluster: plain, user: robot}}
- {name: plugin, context: {cluster: site, user: helper}}
- {name: lost, context: {cluster: nowhere, user: admin}}
clusters:
- name: site
  cluster: {server: "https://[::1]:6443/k8s/c-1/", certificate-authority-data: %(ca)s, tls-server-name: api}
- {name: plain, cluster: {server: "http://10.0.0.1", insecure-skip-tls-verify: true}}
users:
- {name: admin, user: {client-certificate: admin.crt, client-key-data: %(key)s}}
- {name: robot, user: {tokenFile: token, token: unused}}
- {name: helper, user: {exec: {command: get-token}}}
""" % {name: base64.b64encode(name.upper().encode()).decode() for name in ("ca", "key")}


def test_reads_certificates_from_data_and_files(tmp_path):
    (tmp_path / "admin.crt").write_bytes(b"CERT")
    (tmp_path / "config").write_text(CONFIG)
    access = kubeconfig.load(tmp_path / "config")
    assert (access.host, access.port, access.path, access.tls) == ("::1", 6443, "/k8s/c-1", True)
    assert (access.ca, access.certificate, access.key) == (b"CA", b"CERT", b"KEY")
    assert (access.server_name, access.namespace, access.verify) == ("api", "work", True)


def test_token_files_are_kept_as_paths_and_ports_have_defaults():
    access = kubeconfig.parse(CONFIG, Path("/etc/x"), "other")
    assert (access.token, access.token_file) == ("", Path("/etc/x/token"))
    assert (access.host, access.port, access.tls, access.verify) == ("10.0.0.1", 80, False, False)


@pytest.mark.parametrize(
    ("context", "why"),
    [("plugin", "not supported"), ("lost", "no cluster named"), ("none", "no context named"), ("main", "admin.crt")],
)
def test_what_cannot_be_used_is_named(tmp_path, context, why):
    with pytest.raises(kubeconfig.BadKubeconfig, match=why):
        kubeconfig.parse(CONFIG, tmp_path, context)


@pytest.mark.parametrize("text", ["", "- 1", "a: [", "contexts: []"])
def test_what_is_no_kubeconfig_is_refused(tmp_path, text):
    with pytest.raises(kubeconfig.BadKubeconfig):
        kubeconfig.parse(text, tmp_path)


def test_secrets_are_not_shown():
    assert "unused" not in repr(kubeconfig.parse(CONFIG, Path("/etc/x"), "other"))


def test_a_pod_finds_its_cluster(tmp_path):
    (tmp_path / "ca.crt").write_bytes(b"CA")
    (tmp_path / "token").write_text("t")
    (tmp_path / "namespace").write_text("work\n")
    environment = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    access = kubeconfig.from_pod(environment, tmp_path)
    assert (access.host, access.port, access.ca, access.namespace) == ("10.96.0.1", 443, b"CA", "work")
    with pytest.raises(kubeconfig.BadKubeconfig, match="not in a cluster"):
        kubeconfig.from_pod({}, tmp_path)
    with pytest.raises(kubeconfig.BadKubeconfig, match="no service account"):
        kubeconfig.from_pod(environment, tmp_path / "missing")
