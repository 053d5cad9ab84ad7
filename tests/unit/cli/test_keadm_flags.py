"""The command line of keadm, and the files that follow from it."""

from __future__ import annotations

import argparse
import io
import re
import time
from pathlib import Path

import pytest
import yaml

from edgesite.cli.keadm import cloudconfig, gettoken, images, init, join, reset, version
from edgesite.cli.keadm.cloudlink import parse_token
from edgesite.cli.keadm.command import main
from edgesite.cli.keadm.edgeconfig import EdgeWishes, Endpoint, edge_document, parse_endpoint
from edgesite.cli.keadm.failure import KeadmError
from edgesite.cli.keadm.parser import KeadmParser, parse_labels
from edgesite.cli.keadm.progress import Progress
from edgesite.cli.keadm.settings import applied
from edgesite.cloud.cloudhub import jointoken

CLOUD = Endpoint("192.0.2.1", 10000, 10002)


def parsed(module: object, *words: str) -> argparse.Namespace:
    parser = KeadmParser(prog="keadm")
    module.configure(parser)  # type: ignore[attr-defined]
    return parser.parse_args(words)


@pytest.mark.parametrize(
    "words",
    [
        # as guides and scripts of KubeEdge 1.10 to 1.22 have it
        "--cloudcore-ipport=192.0.2.1:10000 --token=t --kubeedge-version=v1.12.1 --runtimetype=remote --remote-runtime-endpoint=unix:///run/x.sock",
        "-e 192.0.2.1:10000 -t t -i node -r remote -p unix:///run/x.sock -s 10002 -l a=b,c=d --with-mqtt=false --cgroupdriver=systemd",
        "--cloudcore-ipport 192.0.2.1:10000 --edgenode-name n --token t --certport 10002 --certPath /etc/kubeedge/certs --tarballpath /tmp",
        "--cloudcore-ipport=192.0.2.1:10000 --token=t --hub-protocol=quic --set modules.edgeStream.enable=true --image-repository=r --with-mqtt",
        "--cloudcore-ipport=192.0.2.1:10000 --token=t --pre-run=/x.sh --post-run=/y.sh --dry-run",
    ],
)
def test_join_takes_what_scripts_give(words: str) -> None:
    arguments = parsed(join, *words.split())
    assert (arguments.cloudcore_ipport, arguments.token) == ("192.0.2.1:10000", "t")


@pytest.mark.parametrize(
    "words",
    [
        "--advertise-address=192.0.2.1,192.0.2.2 --kubeedge-version=1.12.1 --kube-config=/root/.kube/config",
        "--profile version=v1.12.1 --set cloudCore.hostNetWork=true,cloudCore.image.tag=v1 --force --manifests a.yaml -f b.yaml",
        "--external-helm-root /tmp --domainname=a.example --master=https://x:6443 --tarballpath=/tmp -d",
    ],
)
def test_init_takes_what_scripts_give(words: str) -> None:
    assert parsed(init, *words.split()).embedded_api is False


def test_switches_are_written_in_three_ways() -> None:
    for words, expected in (
        ((), True),
        (("--with-mqtt",), True),
        (("--with-mqtt=false",), False),
        (("--with-mqtt=F",), False),
    ):
        assert parsed(join, *words).with_mqtt is expected
    with pytest.raises(KeadmError, match="neither true nor false"):
        parsed(join, "--with-mqtt=perhaps")


#: Every flag of KubeEdge v1.12.7's keadm for the commands that are here, with a value.
FLAGS = {
    "init": "--kubeedge-version=1 --advertise-address=192.0.2.1 --kube-config=f --manifests=a -f=b --files=c -d --dry-run=true "
    "--external-helm-root=/x --set=a=b --profile=version=v1 --force",
    "join": "-e=h:1 --cloudcore-ipport=h:1 -t=t --token=t -i=n --edgenode-name=n -r=remote --runtimetype=remote -p=/s "
    "--remote-runtime-endpoint=/s --cgroupdriver=cgroupfs -s=1 --certport=1 -l=a=b --labels=a=b --with-mqtt "
    "--image-repository=r --kubeedge-version=1 --certPath=/c --tarballpath=/t",
    "reset": "--kube-config=f --force --runtimetype=remote --remote-runtime-endpoint=/s",
    "gettoken": "--kube-config=f",
    "version": "-o=json --output=json",
    "config": "images list --kubeedge-version=1 --image-repository=r --part=edge --runtimetype=docker --remote-runtime-endpoint=/s",
    "config ": "images pull --kubeedge-version=1 --image-repository=r --part=edge --runtimetype=docker --remote-runtime-endpoint=/s",
    "deprecated init": "--kubeedge-version=1 --kube-config=f --master=m --advertise-address=192.0.2.1 --domainname=d --tarballpath=/t",
}
MODULES = {"init": init, "join": join, "reset": reset, "gettoken": gettoken, "version": version, "config": images}


@pytest.mark.parametrize("command", FLAGS)
def test_every_flag_of_kubeedge_is_taken_and_documented(command: str) -> None:
    words = FLAGS[command].split()
    parsed(MODULES[command.split()[-1]], *words)
    text = (Path(__file__).resolve().parents[3] / "docs" / "keadm.md").read_text()
    for flag in (one.partition("=")[0] for one in words if one.startswith("-")):
        assert re.search(rf"(?<![\w-]){flag}(?![\w-])", text), f"docs/keadm.md says nothing of {flag}"


def test_unknown_flags_are_errors_and_unused_ones_noted() -> None:
    with pytest.raises(KeadmError, match="--nonsense"):
        parsed(join, "--nonsense")
    assert parsed(join, "--tarballpath=/tmp").unused == {
        "--tarballpath": "nothing is downloaded: the programs are on this host"
    }


def test_exit_codes_and_the_words_that_scripts_look_for(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version", "-o", "short"]) == 0
    assert capsys.readouterr().out.startswith("v1.12.7-edgesite.")
    assert main(["version", "-o", "xml"]) == 1
    assert capsys.readouterr().err == "execute keadm command failed:  invalid output format: xml\n"
    assert main(["version"]) == 0
    assert capsys.readouterr().out.startswith("version: v1.12.7")
    assert main(["frobnicate"]) == 1
    assert 'unknown command "frobnicate" for "keadm"' in capsys.readouterr().err
    assert main(["deprecated", "join"]) == 1
    assert 'required flag(s) "cloudcore-ipport" not set' in capsys.readouterr().err
    assert (
        main(
            ["config", "images", "list", "--kubeedge-version=1.12.1", "--part=cloud", "--image-repository=r.example/k/"]
        )
        == 0
    )
    assert sorted(capsys.readouterr().out.split()) == [
        f"r.example/k/{name}:v1.12.1" for name in ("admission", "cloudcore", "controller-manager", "iptables-manager")
    ]
    assert main(["config", "images", "list", "--part=sea"]) == 1


def test_all_images_are_listed_as_kubeedge_calls_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "images", "list"]) == 0
    printed = capsys.readouterr().out.split()
    assert {"kubeedge/cloudcore:v1.12.7", "kubeedge/eclipse-mosquitto:1.6.15", "kubeedge/pause:3.1"} <= set(printed)
    assert len(printed) == len(images._CLOUD) + len(images._EDGE)


@pytest.mark.parametrize(
    ("text", "port", "expected"),
    [
        ("192.0.2.1:10000", "", Endpoint("192.0.2.1", 10000, 10002)),
        ("cloud.example:443", "8443", Endpoint("cloud.example", 443, 8443)),
        ("cloud.example", "", Endpoint("cloud.example", 10000, 10002)),
        ("[2001:db8::1]:10000", "", Endpoint("[2001:db8::1]", 10000, 10002)),
        ("[2001:db8::1]", "", Endpoint("[2001:db8::1]", 10000, 10002)),
    ],
)
def test_where_the_cloud_is(text: str, port: str, expected: Endpoint) -> None:
    assert parse_endpoint(text, port) == expected


@pytest.mark.parametrize(
    "text", ["", ":10000", "host:", "host:0", "host:70000", "2001:db8::1:10000", "https://host:10000"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(KeadmError):
        parse_endpoint(text, "")


def test_labels() -> None:
    assert parse_labels(["a=b,example.com/c=d", "e="]) == {"a": "b", "example.com/c": "d", "e": ""}
    for bad in ("a", "a b=c", "=c", "a=b c", "a=" + "x" * 64):
        with pytest.raises(KeadmError):
            parse_labels([bad])


def test_tokens_are_read_without_trusting_them() -> None:
    end = int(time.time()) + 60
    token = parse_token(jointoken.make(b"ca", b"key", end, "node-1") + "\n")
    assert (token.expires_at, token.node, len(token.ca_hash)) == (end, "node-1", 64)
    for bad in ("", "a.b.c.d", "x" * 64 + ".a.b.c", f"{'0' * 64}.e30.e30.e30", f"{'0' * 64}.e30.bnVsbA.x"):
        with pytest.raises(KeadmError, match="token credentials are in the wrong format"):
            parse_token(bad)


def test_the_edges_file_keeps_what_was_there() -> None:
    base = {"modules": {"Edged": {"nodeip": "192.0.2.9", "hostnameoverride": "old"}, "edgeStream": {"enable": True}}}
    wishes = EdgeWishes(
        cloud=CLOUD, node="edge-1", token="t", labels={"a": "b"}, cgroup_driver="systemd", with_mqtt=False
    )
    modules = edge_document(base, wishes)["modules"]
    assert modules["Edged"]["nodeip"] == "192.0.2.9"
    assert (modules["Edged"]["hostnameoverride"], modules["Edged"]["nodeLabels"]) == ("edge-1", {"a": "b"})
    assert modules["Edged"]["tailoredKubeletConfig"] == {"cgroupDriver": "systemd"}
    assert modules["edgeHub"]["httpServer"] == "https://192.0.2.1:10002"
    assert modules["edgeHub"]["websocket"] == {"enable": True, "server": "192.0.2.1:10000"}
    assert modules["edgeStream"] == {"enable": True, "server": "192.0.2.1:10004"}
    assert modules["eventBus"] == {"mqttMode": 2}
    assert base["modules"]["Edged"]["hostnameoverride"] == "old"
    quic = edge_document({}, EdgeWishes(cloud=CLOUD, node="n", token="t", protocol="quic"))["modules"]["edgeHub"]
    assert (quic["websocket"]["enable"], quic["quic"]) == (False, {"enable": True, "server": "192.0.2.1:10000"})


def test_settings_by_path() -> None:
    document = {"modules": {"cloudHub": {"advertiseAddress": ["a"]}}}
    applied(
        document,
        [
            "modules.cloudhub.advertiseAddress[1]=192.0.2.1,modules.x.y=7",
            "modules.cloudHub.dnsNames={a,b}",
            r"modules.z=1\,2",
        ],
    )
    assert document["modules"] == {
        "cloudHub": {"advertiseAddress": ["a", "192.0.2.1"], "dnsNames": ["a", "b"]},
        "x": {"y": 7},
        "z": "1,2",
    }
    for bad in ("a", "=1", "a..b=1", "modules.cloudHub.advertiseAddress[5]=x", "modules.x.y.z[0].a.b[3]=1"):
        with pytest.raises(KeadmError):
            applied({"modules": {"cloudHub": {"advertiseAddress": []}}}, [bad])


def test_values_of_the_chart_become_settings_or_a_warning() -> None:
    said = io.StringIO()
    progress = Progress(err=said)
    sets = [
        "cloudCore.modules.cloudHub.nodeLimit=7,cloudCore.image.tag=v1",
        "iptablesManager.mode=external",
        "kubeAPIConfig.qps=9",
    ]
    found = cloudconfig.settings_of_chart(sets, progress)
    assert found == ["modules.cloudHub.nodeLimit=7", "modules.iptablesManager.mode=external", "kubeAPIConfig.qps=9"]
    assert "--set cloudCore.image.tag has no effect" in said.getvalue()
    assert cloudconfig.profile_settings("iptablesmgr=", progress) == ["modules.iptablesManager.mode=external"]
    for bad in ("iptablesmgr=no", "dashboard="):
        with pytest.raises(KeadmError):
            cloudconfig.profile_settings(bad, progress)


def test_the_clouds_file_keeps_what_was_there() -> None:
    base = yaml.safe_load("modules: {cloudHub: {nodeLimit: 5, advertiseAddress: [a]}}\nkubeAPIConfig: {qps: 1}")
    document = cloudconfig.cloud_document(base, cloudconfig.CloudWishes((), ("n.example",), "/k"))
    assert document["modules"]["cloudHub"] == {
        "enable": True,
        "nodeLimit": 5,
        "advertiseAddress": ["a"],
        "dnsNames": ["n.example"],
    }
    assert document["kubeAPIConfig"] == {"qps": 1, "kubeConfig": "/k"}
