"""The files of a new mapper that are no Python, as templates."""

from __future__ import annotations

from typing import Final

__all__ = ["TEXTS"]

_PYPROJECT: Final = """[build-system]
requires = ["setuptools>=77"]
build-backend = "setuptools.build_meta"

[project]
name = "$distribution"
version = "0.1.0"
description = "Machines that speak $protocol as devices of edgesite and KubeEdge"
readme = "README.md"
requires-python = ">=3.11"
dependencies = ["edgesite[plugin-abi-$abi]>=$version"]

[project.optional-dependencies]
test = ["pytest>=8", "pyyaml>=6"]

[project.scripts]
$distribution = "$package.__main__:main"

[project.entry-points."edgesite.plugins"]
mapper-$name = "$package.plugin"

[tool.setuptools.packages.find]
include = ["$package*"]

[tool.pytest.ini_options]
testpaths = ["tests"]
pythonpath = ["."]
filterwarnings = ["error"]
addopts = "--strict-markers"
"""

_README: Final = """# $distribution

Machines that speak $protocol as devices of edgesite and KubeEdge. As it was written by `edgesite mapper new` it drives a heater in memory, so that all of
it can be tried; the way to a real machine goes into `$package/driver.py`, four methods.

    pip install -e .[test]
    pytest

## As a plugin

Where edgesite runs as a Python package, install this beside it (`pip install .`) and restart the edge. The frozen program installs the wheel:

    pip wheel --no-deps -w dist .
    edgesite plugins install dist/*.whl

The edge then drives all of its devices whose protocol is `$protocol`.

## As a program of its own

    $distribution --edge-socket /etc/kubeedge/dmi.sock --socket /etc/kubeedge/$name.sock

It registers at the edge, edgesite's or KubeEdge's, and serves devices, metrics and health at http://127.0.0.1:7777 (`--help` tells of all options).
`deploy/` has a systemd unit, a Dockerfile and a Kubernetes manifest; wheels that no package index has, as edgesite's own, go into `wheels/` before an image is
built. Where this is also installed as a plugin, leave the devices to the program
by `modules.mappers.outOfProcess: [$protocol]` in the edge's configuration.

## A device

    kubectl apply -f deploy/device.yaml
    kubectl get devices
    kubectl patch device heater-1 --type=json -p '[{"op": "add", "path": "/spec/properties/0/desired", "value": {"value": "24"}}]'

Set `nodeName` in the manifest to the node where the mapper runs.
"""

_DEVICE: Final = """apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: heater}
spec:
  protocol: $protocol
  properties:
  - {name: target, type: FLOAT, accessMode: ReadWrite, minimum: "5", maximum: "30", unit: Celsius}
  - {name: actual, type: FLOAT, accessMode: ReadOnly, unit: Celsius}
  - {name: heating, type: BOOLEAN, accessMode: ReadOnly}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: heater-1}
spec:
  deviceModelRef: {name: heater}
  nodeName: edge-1
  protocol: {protocolName: $protocol, configData: {address: heater-1}}
  properties:
  - name: target
    collectCycle: 1000
    reportCycle: 1000
    reportToCloud: true
    visitors: {protocolName: $protocol, configData: {register: target}}
  - name: actual
    collectCycle: 1000
    reportCycle: 1000
    reportToCloud: true
    visitors: {protocolName: $protocol, configData: {register: actual}}
  - name: heating
    collectCycle: 1000
    reportCycle: 1000
    reportToCloud: true
    visitors: {protocolName: $protocol, configData: {register: heating}}
  methods:
  - {name: set, description: change the set point, propertyNames: [target]}
"""

_UNIT: Final = """[Unit]
Description=Mapper for devices that speak $protocol
Documentation=https://kubeedge.io
After=network-online.target edgecore.service
Wants=network-online.target

[Service]
ExecStart=/usr/local/bin/$distribution --socket /etc/kubeedge/$name.sock
Restart=always
RestartSec=5
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths=/etc/kubeedge
ProtectHome=yes
PrivateTmp=yes

[Install]
WantedBy=multi-user.target
"""

_DOCKERFILE: Final = """# docker build -f deploy/Dockerfile -t $distribution:0.1.0 .
FROM python:3.11-slim AS build
WORKDIR /src
COPY . .
# wheels/ may hold what no package index has, as the edgesite that this is written for.
RUN pip wheel --no-cache-dir --find-links wheels --wheel-dir /wheels .

FROM python:3.11-slim
RUN --mount=type=bind,from=build,source=/wheels,target=/wheels pip install --no-cache-dir --no-index --find-links /wheels $distribution
# The edge's socket is its owner's, root: so is the mapper.
ENTRYPOINT ["$distribution"]
CMD ["--socket", "/etc/kubeedge/$name.sock"]
"""

_DEPLOYMENT: Final = """# The mapper on one node. Its image is made by deploy/Dockerfile.
apiVersion: apps/v1
kind: Deployment
metadata: {name: mapper-$name, labels: {app: mapper-$name}}
spec:
  replicas: 1
  strategy: {type: Recreate}
  selector: {matchLabels: {app: mapper-$name}}
  template:
    metadata: {labels: {app: mapper-$name}}
    spec:
      nodeName: edge-1
      hostNetwork: true
      containers:
      - name: mapper
        image: $distribution:0.1.0
        args: [--socket, /etc/kubeedge/$name.sock]
        resources: {requests: {cpu: 20m, memory: 40Mi}, limits: {memory: 128Mi}}
        livenessProbe: {httpGet: {host: 127.0.0.1, path: /healthz, port: 7777}, periodSeconds: 30}
        volumeMounts:
        - {name: dmi, mountPath: /etc/kubeedge}
      volumes:
      - {name: dmi, hostPath: {path: /etc/kubeedge, type: Directory}}
"""

_IGNORED: Final = """__pycache__/
*.egg-info/
.pytest_cache/
build/
dist/
wheels/
"""

TEXTS: Final = {
    ".gitignore": _IGNORED,
    "README.md": _README,
    "pyproject.toml": _PYPROJECT,
    "deploy/Dockerfile": _DOCKERFILE,
    "deploy/$distribution.service": _UNIT,
    "deploy/deployment.yaml": _DEPLOYMENT,
    "deploy/device.yaml": _DEVICE,
}
