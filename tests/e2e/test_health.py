"""Health and metrics, of the API server and of the edge role's loopback port."""

from __future__ import annotations

import json
import ssl
import urllib.error
import urllib.request
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from e2e_site import Program, Site, eventually, free_port


def ask(url: str, *, token: str = "") -> tuple[int, str]:
    """GET without verification of the certificate, which is not what is tested here."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(
            request, timeout=10, context=context if url.startswith("https") else None
        ) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as exc:
        with exc:
            return exc.code, exc.read().decode()


def test_the_api_server_tells_everybody_that_it_is_well(shared_site: Site) -> None:
    api = f"https://127.0.0.1:{shared_site.port}"
    for path in ("/healthz", "/livez", "/readyz"):
        assert ask(api + path) == (200, "ok")
    status, text = ask(f"{api}/readyz?verbose")
    assert status == 200
    lines = text.splitlines()
    assert {"[+]ping ok", "[+]module/cloudhub ok", "[+]module/scheduler ok"} <= set(lines)
    assert lines[-1] == "readyz check passed"
    assert "[+]module/cloudhub excluded: ok" in ask(f"{api}/readyz?verbose&exclude=module/cloudhub")[1]
    assert ask(f"{api}/readyz/module/cloudhub") == (200, "ok")
    assert ask(f"{api}/readyz/nonsense")[0] == 404


def test_metrics_of_the_api_server_need_a_right(shared_site: Site) -> None:
    api = f"https://127.0.0.1:{shared_site.port}"
    assert json.loads(ask(f"{api}/api/v1/nodes")[1])["reason"] == "Forbidden"
    status, text = ask(f"{api}/metrics", token="nobody")
    assert status == 401, text
    text = shared_site.kubectl()("get", "--raw", "/metrics")
    assert "# TYPE apiserver_request_total counter" in text
    assert 'resource="nodes"' in text
    assert "cannot get path" in shared_site.kubectl().fails("get", "--raw", "/nonsense", "--as=bob")


def test_the_edge_role_answers_on_its_loopback_port(new_site: Callable[..., Site]) -> None:
    site, port = new_site(), free_port()
    site.start("--set", f"edge.modules.edged.tailoredKubeletConfig.healthzPort={port}")
    edge = f"http://127.0.0.1:{port}"
    eventually(lambda: ask(f"{edge}/readyz") == (200, "ok"), "readiness of the edge role")
    assert ask(f"{edge}/livez") == (200, "ok")
    assert ask(f"{edge}/healthz")[0] == 200
    lines = ask(f"{edge}/readyz?verbose")[1].splitlines()
    assert {"[+]module/edged ok", "[+]module/metamanager ok", "[+]container-runtime ok"} <= set(lines)
    assert "# TYPE" in ask(f"{edge}/metrics")[1]
    assert ask(f"{edge}/nonsense")[0] == 404


def test_the_cloud_role_answers_where_kubeedges_monitor_server_does(tmp_path: Path) -> None:
    port, file = free_port(), tmp_path / "cloudcore.yaml"
    file.write_text(json.dumps({"commonConfig": {"monitorServer": {"bindAddress": f"127.0.0.1:{port}"}}}))
    off = [f"--set=modules.{one}.enable=false" for one in ("cloudHub.websocket", "cloudHub.https", "cloudStream")]
    address = f"127.0.0.1:{free_port()}"
    arguments = ("--config", str(file), "--data-dir", str(tmp_path / "data"), "--api-address", address, *off)
    with closing(Program(tmp_path / "log", "cloud", *arguments)) as program:
        program.wait_line("ready after")
        for path in ("/healthz", "/livez", "/readyz"):
            assert ask(f"http://127.0.0.1:{port}{path}") == (200, "ok")
        assert 'edgesite_module_ready{module="cloudhub"} 1.0' in ask(f"http://127.0.0.1:{port}/metrics")[1]
