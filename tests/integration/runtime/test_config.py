"""Configuration files: KubeEdge's own load, mistakes are named with path and line, every source overrides in its turn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from edgesite.runtime.config.load import BadConfig, load
from edgesite.runtime.config.validate import Problem, Request, defaults, validate


def read(tmp_path: Path, text: str, kind: str = "EdgeSite", **more: Any) -> tuple[dict[str, Any], list[str]]:
    file = tmp_path / "config.yaml"
    file.write_text(text)
    return validate(Request(kind=kind, file=str(file), **more))


def problems(tmp_path: Path, text: str, kind: str = "EdgeSite", **more: Any) -> list[str]:
    with pytest.raises(Problem) as caught:
        read(tmp_path, text, kind, **more)
    return [line.replace(f"{tmp_path}/", "") for line in caught.value.lines]


def test_the_three_kinds_load_what_they_print(tmp_path: Path) -> None:
    for kind in ("EdgeSite", "CloudCore", "EdgeCore"):
        for minimal in (False, True):
            values, warnings = read(tmp_path, defaults(kind, minimal=minimal), kind)
            assert warnings == []
            assert (
                values["cloud"]["modules"]["cloudHub"]["enable"] is True
            )  # KubeEdge's --minconfig has false by mistake
            assert values["edge"]["modules"]["eventBus"]["enable"] is True


def test_names_match_without_regard_to_case_and_null_means_the_default(tmp_path: Path) -> None:
    values, _ = read(
        tmp_path, "kind: CloudCore\nmodules:\n  CLOUDHUB:\n    NodeLimit: 7\n    websocket: null\n", "CloudCore"
    )
    hub = values["cloud"]["modules"]["cloudHub"]
    assert (hub["nodeLimit"], hub["websocket"]["port"]) == (7, 10000)


def test_an_unknown_field_is_named_with_path_line_and_a_guess(tmp_path: Path) -> None:
    text = "kind: EdgeSite\nedge:\n  modules:\n    eventBus:\n      mqttModes: 2\n"
    assert problems(tmp_path, text) == [
        "config.yaml:5: edge.modules.eventBus.mqttModes: unknown field; did you mean mqttMode?"
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("modules:\n  eventBus:\n    mqttMode: 5\n", "config.yaml:3: modules.eventBus.mqttMode:"),
        ("modules:\n  eventBus:\n    mqttMode: many\n", "config.yaml:3: modules.eventBus.mqttMode:"),
        ("modules:\n  eventBus: 3\n", "config.yaml:2: modules.eventBus: must be a mapping, not a number"),
        (
            "modules:\n  edged:\n    registerWithTaints:\n    - key: a\n      effect: Never\n",
            "config.yaml:5: modules.edged.registerWithTaints[0].effect:",
        ),
        ("modules: [\n", "config.yaml:2: "),
        ("kind: CloudCore\n", "config.yaml:1: kind is CloudCore, but EdgeCore is needed here"),
        ("database: {}\ndatabase: {}\n", "config.yaml:2: database is given twice"),
    ],
    ids=["range", "type", "shape", "list member", "yaml", "kind", "twice"],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, text: str, expected: str) -> None:
    (line,) = problems(tmp_path, text, "EdgeCore")
    assert line.startswith(expected)


def test_environment_overrides_the_file_and_set_overrides_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "edge:\n  modules:\n    edgeHub:\n      heartbeat: 1\n      messageQPS: 1\n      messageBurst: 1\n"
    monkeypatch.setenv("EDGESITE_EDGE__MODULES__EDGEHUB__MESSAGEQPS", "2")
    monkeypatch.setenv("EDGESITE_EDGE__MODULES__EDGEHUB__MESSAGEBURST", "2")
    values, _ = read(tmp_path, text, sets=["edge.modules.edgeHub.messageBurst=3"])
    hub = values["edge"]["modules"]["edgeHub"]
    assert (hub["heartbeat"], hub["messageQPS"], hub["messageBurst"]) == (1, 2, 3)


def test_set_goes_without_the_roles_prefix_where_there_is_one_role(tmp_path: Path) -> None:
    values, _ = read(tmp_path, "", "EdgeCore", sets=["modules.edgeHub.heartbeat=4"])
    assert values["edge"]["modules"]["edgeHub"]["heartbeat"] == 4


@pytest.mark.parametrize("bad", ["nonsense", "a.b", "=1"])
def test_a_set_without_key_or_value_is_refused(tmp_path: Path, bad: str) -> None:
    (line,) = problems(tmp_path, "", sets=[bad])
    assert line.startswith(f'--set "{bad}": write KEY=VALUE')


def test_a_v1alpha1_edgecore_file_is_converted_and_said(tmp_path: Path) -> None:
    text = (
        "apiVersion: edgecore.config.kubeedge.io/v1alpha1\nkind: EdgeCore\nmodules:\n  edged:\n    clusterDNS: 10.0.0.10\n"
        "    nodeStatusUpdateFrequency: 20\n    concurrentConsumers: 5\n    runtimeType: remote\n"
    )
    values, warnings = read(tmp_path, text, "EdgeCore")
    edged = values["edge"]["modules"]["edged"]
    assert edged["tailoredKubeletConfig"]["clusterDNS"] == ["10.0.0.10"]
    assert edged["tailoredKubeletConfig"]["nodeStatusUpdateFrequency"] == "20s"
    assert edged["containerRuntime"] == "remote"
    assert len(warnings) == 4


def test_fields_of_newer_kubeedge_are_taken_with_a_warning(tmp_path: Path) -> None:
    _, warnings = read(tmp_path, "modules:\n  policyController:\n    enable: true\n", "CloudCore")
    assert "newer KubeEdge" in warnings[0]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (
            "CloudCore",
            "leaderelection: {leaderElect: true}\nmodules: {edgeController: {context: {receiveModule: edgecontroller}}}\n",
        ),
        (
            "EdgeCore",
            "modules: {edgeMesh: {enable: false}, metaManager: {podStatusSyncInterval: 60, metaServer: {debug: true}}}\n",
        ),
    ],
)
def test_fields_of_older_kubeedge_are_taken_with_a_warning(tmp_path: Path, kind: str, text: str) -> None:
    """As the files of KubeEdge 1.8 have them, which openEuler ships."""
    _, warnings = read(tmp_path, text, kind)
    assert warnings
    assert all("belongs to an older KubeEdge and is not used here" in one for one in warnings)


def test_a_plugins_section_is_checked_like_every_other(tmp_path: Path) -> None:
    sections = [("edge", "modules.greeter", "edgesite.runtime.config.edge:DBTest")]
    values, _ = read(tmp_path, "edge:\n  modules:\n    greeter:\n      enable: true\n", sections=sections)
    assert values["edge"]["modules"]["greeter"] == {"enable": True}
    (line,) = problems(tmp_path, "edge:\n  modules:\n    greeter:\n      foo: 1\n", sections=sections)
    assert line == "config.yaml:4: edge.modules.greeter.foo: unknown field"


def test_the_answer_is_cached_until_anything_that_went_in_changes(tmp_path: Path) -> None:
    file, cache = tmp_path / "config.yaml", tmp_path / "data" / "config.cache"

    def go(**more: Any) -> dict[str, Any]:
        given: dict[str, Any] = {"sets": (), "underlay": {}, "overlay": {}, "sections": (), **more}
        return load("EdgeSite", file=file, cache=cache, **given)[0]

    file.write_text("api: {address: '127.0.0.1:1'}\n")
    assert go()["api"]["address"] == "127.0.0.1:1"
    before = cache.read_bytes()
    assert cache.stat().st_mode & 0o777 == 0o600
    assert go()["api"]["address"] == "127.0.0.1:1"
    assert cache.read_bytes() == before
    file.write_text("api: {address: '127.0.0.1:2'}\n")
    assert go()["api"]["address"] == "127.0.0.1:2"
    cache.write_text("broken")
    assert go()["api"]["address"] == "127.0.0.1:2"
    with pytest.raises(BadConfig, match="unknown field"):
        go(sets=["api.x=1"])


def test_a_missing_file_is_said_with_what_helps(tmp_path: Path) -> None:
    with pytest.raises(Problem, match="does not exist; --defaultconfig prints"):
        validate(Request(kind="EdgeSite", file=str(tmp_path / "none.yaml")))


def test_the_default_file_is_yaml_with_every_member() -> None:
    values = yaml.safe_load(defaults("EdgeCore"))
    assert values["modules"]["edged"]["tailoredKubeletConfig"]["evictionHard"]["memory.available"] == "100Mi"
