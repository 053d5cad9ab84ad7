"""Which API the cloud role works on when no option says it."""

from __future__ import annotations

import pytest

from edgesite.cli.cloud import works_on_cluster
from edgesite.client import kubeconfig

IN_POD = {"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


@pytest.mark.parametrize("config", [{"kubeConfig": "/root/.kube/config"}, {"master": "https://10.0.0.1:6443"}])
def test_a_file_that_names_a_cluster(config: dict[str, str]) -> None:
    assert works_on_cluster("cloudcore", config, {})
    assert works_on_cluster("cloud", config, {})


def test_kubeedges_program_in_a_pod_works_on_the_pods_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(kubeconfig, "from_pod", lambda environment: seen.append(environment))
    assert works_on_cluster("cloudcore", {"kubeConfig": "", "master": ""}, IN_POD)
    assert seen == [IN_POD]
    assert not works_on_cluster("cloud", {}, IN_POD)  # asked for by another name, it brings an API of its own
    assert not works_on_cluster("cloudcore", {}, {})


def test_a_pod_without_an_account_has_no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    def from_pod(environment: dict[str, str]) -> None:
        raise kubeconfig.BadKubeconfig("no service account")

    monkeypatch.setattr(kubeconfig, "from_pod", from_pod)
    assert not works_on_cluster("cloudcore", {}, IN_POD)
