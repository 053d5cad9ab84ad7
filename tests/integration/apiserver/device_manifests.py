"""Devices and models in all the forms in which KubeEdge's repositories publish them; names and values are our own.

Each is a model and a device of it, as somebody would write them for KubeEdge v1.12 (v1alpha2) or v1.15 and later (v1beta1).

Source  KubeEdge v1.12 to v1.23, build/crd-samples/devices and tests/e2e; kubeedge/mappers-go and kubeedge/examples (which members there are).
"""

from __future__ import annotations

from typing import Final

__all__ = ["MANIFESTS", "OLDER", "RULES"]

SELECTOR = """
  nodeSelector:
    nodeSelectorTerms:
    - matchExpressions:
      - {key: '', operator: In, values: [hall-1 ]}
"""

#: A serial line, a value that is wished for and one that has been reported, in a status that a user writes.
SERIAL = f"""
apiVersion: devices.kubeedge.io/v1alpha2
kind: DeviceModel
metadata: {{name: kiln, namespace: default}}
spec:
 protocol: modbus
 properties:
  - name: heat
    description: heat of the kiln
    type:
     int: {{accessMode: ReadWrite, maximum: 1300, unit: degree}}
  - name: fan
    type:
      string: {{accessMode: ReadWrite, defaultValue: 'OFF'}}
---
apiVersion: devices.kubeedge.io/v1alpha2
kind: Device
metadata:
  name: kiln-1
  labels: {{description: Kiln, manufacturer: Potter}}
spec:
  deviceModelRef: {{name: kiln}}
  protocol:
    modbus: {{slaveID: 3}}
    common:
      com: {{serialPort: /dev/ttyS1, baudRate: 115200, dataBits: 8, parity: even, stopBits: 1}}
      customizedValues: {{serialType: RS485}}
{SELECTOR}
  propertyVisitors:
    - propertyName: heat
      modbus: {{register: CoilRegister, offset: 2, limit: 1, scale: 1, isSwap: true, isRegisterSwap: true}}
      collectCycle: 5000
    - propertyName: fan
      modbus: {{register: DiscreteInputRegister, offset: 3, limit: 1, scale: 1.0, isSwap: true}}
  data:
    dataProperties: [{{propertyName: heat, metadata: {{type: string}}}}]
    dataTopic: $ke/events/+/device/customized/update
status:
  twins:
    - propertyName: fan
      reported: {{metadata: {{timestamp: '1550049403598', type: string}}, value: 'OFF'}}
      desired: {{metadata: {{timestamp: '1550049403598', type: string}}, value: 'ON'}}
"""

#: Visitors in the model, where v1alpha1 had them, and commands as lists of bytes.
BLUETOOTH = f"""
apiVersion: devices.kubeedge.io/v1alpha2
kind: DeviceModel
metadata: {{name: beacon, namespace: default}}
spec:
 properties:
  - name: warmth
    type: {{int: {{accessMode: ReadOnly, maximum: 90, unit: degree}}}}
  - name: blink
    type: {{string: {{accessMode: ReadWrite, defaultValue: 'SLOW'}}}}
  - name: lamp
    type: {{int: {{accessMode: ReadWrite, defaultValue: 0}}}}
 propertyVisitors:
  - propertyName: warmth
    bluetooth:
     characteristicUUID: 0000aa01000010008000000000000001
     dataConverter:
      startIndex: 1
      endIndex: 0
      shiftRight: 2
      orderOfOperations:
      - {{operationType: Multiply, operationValue: 0.03125}}
---
apiVersion: devices.kubeedge.io/v1alpha2
kind: Device
metadata: {{name: beacon-1}}
spec:
  deviceModelRef: {{name: beacon}}
  protocol: {{bluetooth: {{macAddress: "AA:BB:CC:00:11:22"}}}}
{SELECTOR}
  propertyVisitors:
    - propertyName: blink
      bluetooth:
        characteristicUUID: fff1
        dataWrite:
          "SLOW": [1]
          "FAST": [2, 255]
          "OFF": AA==
status:
  twins:
    - propertyName: blink
    - propertyName: warmth
    - propertyName: lamp
      desired: {{metadata: {{type: string}}, value: "Red"}}
"""

#: A protocol of one's own: cycles in nanoseconds, one that is never, empty wishes, booleans as numbers, limits with fractions.
CUSTOMIZED = f"""
apiVersion: devices.kubeedge.io/v1alpha2
kind: DeviceModel
metadata: {{name: eye}}
spec:
  properties:
    - name: Lamp
      type: {{boolean: {{accessMode: ReadWrite, defaultValue: false}}}}
    - name: Shutter
      type: {{float: {{accessMode: ReadWrite, defaultValue: 800.0, minimum: 0.5, maximum: 100.0, unit: 'us'}}}}
    - name: Trigger
      type: {{string: {{accessMode: ReadWrite, defaultValue: 'stop'}}}}
    - name: Picture
      type: {{bytes: {{accessMode: ReadOnly}}}}
---
apiVersion: devices.kubeedge.io/v1alpha2
kind: Device
metadata: {{name: eye-1, labels: {{model: eye}}}}
spec:
  deviceModelRef: {{name: eye}}
  protocol:
    common: {{customizedValues: {{deviceSN: '00112233'}}}}
    customizedProtocol: {{protocolName: GigEVision}}
{SELECTOR}
  propertyVisitors:
    - propertyName: Lamp
      collectCycle: 1000000000
      reportCycle: 1000000000
      customizedProtocol: {{protocolName: GigEVision, configData: {{FeatureName: 'Lamp', frames: 3, deep: {{er: [1, x]}}}}}}
    - propertyName: Trigger
      collectCycle: -1
      reportCycle: -1
      customizedProtocol: {{protocolName: GigEVision, configData: {{FeatureName: 'Trigger'}}}}
      customizedValues: {{reportNumber: 1}}
status:
  twins:
    - propertyName: Lamp
      desired: {{metadata: {{type: boolean}}, value: '0'}}
      reported: {{metadata: {{type: boolean}}, value: '0'}}
    - propertyName: Trigger
      desired: {{metadata: {{type: string}}, value: ''}}
"""

OPCUA = f"""
apiVersion: devices.kubeedge.io/v1alpha2
kind: DeviceModel
metadata: {{name: press, namespace: default}}
spec:
 properties:
  - name: force
    type: {{int: {{accessMode: ReadOnly, defaultValue: 1}}}}
  - name: motor
    type: {{boolean: {{accessMode: ReadWrite}}}}
---
apiVersion: devices.kubeedge.io/v1alpha2
kind: Device
metadata: {{name: press-1}}
spec:
  deviceModelRef: {{name: press}}
  protocol:
    opcua:
      url: opc.tcp://192.0.2.3:4840
      userName: operator
      password: /etc/press/password
      certificate: /etc/press/own.pem
      privateKey: /etc/press/own.key
      securityMode: Sign
      securityPolicy: Basic256Sha256
    common: {{customizedValues: {{remoteCertificate: /etc/press/server.pem}}}}
{SELECTOR}
  propertyVisitors:
    - {{propertyName: force, opcua: {{nodeID: ns=2;i=2}}}}
    - {{propertyName: motor, opcua: {{nodeID: ns=2;i=3, browseName: motor}}}}
status:
  twins:
    - propertyName: force
      reported: {{metadata: {{timestamp: '1550049403598', type: integer}}, value: "0"}}
"""

#: v1beta1: numbers in hexadecimal and in texts, a pushMethod of several kinds, methods, a status with what was observed.
NEWER = """
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: pump}
spec:
  protocol: modbus
  properties:
    - {name: flow, description: litres, type: FLOAT, accessMode: ReadWrite, minimum: "0", maximum: "100.0", unit: l}
    - {name: gate, type: INT, accessMode: ReadWrite, maximum: '100'}
    - {name: view, type: STREAM, accessMode: ReadOnly}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: pump-1, labels: {model: pump}}
spec:
  deviceModelRef: {name: pump}
  nodeName: hall-1
  protocol:
    protocolName: modbus
    configData: {communicateMode: "TCP", port: "5502", slaveID: 1, ip: "192.0.2.9", format: 0x56595559}
  properties:
    - name: flow
      visitors:
        protocolName: modbus
        configData: {dataType: "float", register: "HoldingRegister", offset: 0, limit: 1, scale: 0.1, isSwap: false, max: 100.0}
      collectCycle: 10000000000
      reportCycle: 10000
      reportToCloud: true
      pushMethod:
        http: {hostName: http://192.0.2.5, port: 8080, requestPath: /flow, timeout: 50}
        mqtt: {address: tcp://192.0.2.5:1883, topic: flow, qos: 0, retained: false}
        dbMethod:
          influxdb2:
            influxdb2ClientConfig: {url: http://192.0.2.6:8086, org: plant, bucket: hall}
            influxdb2DataConfig: {measurement: stat, tag: {unit: l}, fieldKey: flow}
    - name: gate
      desired: {value: "1", metadata: {timestamp: '1550049403598'}}
      visitors: {protocolName: modbus, configData: {Register: CoilRegister, Offset: "2", IsSwap: "true"}}
    - name: view
      visitors: {protocolName: modbus, configData: {dataType: stream}}
  methods:
    - {name: TurnGate, description: opens the gate and shuts it, propertyNames: [gate]}
status:
  twins:
    - propertyName: flow
      reported: {metadata: {timestamp: '1550049403598', type: int}, value: "20"}
      observedDesired: {metadata: {timestamp: '1550049403598', type: int}, value: "20"}
"""

#: Where there is nothing behind a name, and no protocol named where a visitor is.
BARE = """
apiVersion: devices.kubeedge.io/v1beta1
kind: DeviceModel
metadata: {name: tally, namespace: default}
spec:
  protocol: "virtualProtocol"
  properties:
   - {name: sum, type: STRING, accessMode: ReadWrite}
---
apiVersion: devices.kubeedge.io/v1beta1
kind: Device
metadata: {name: tally-1, namespace: default}
spec:
  deviceModelRef: {name: tally}
  nodeName: "hall-1"
  protocol:
    protocolName: virtualProtocol
    configData:
      # nothing but a comment
  properties:
    - name: sum
      visitors:
        configData: {name: sum}
      collectCycle: 1000
"""

MANIFESTS: Final = {
    "serial": SERIAL,
    "bluetooth": BLUETOOTH,
    "customized": CUSTOMIZED,
    "opcua": OPCUA,
    "newer": NEWER,
    "bare": BARE,
}

#: v1alpha1, which KubeEdge left behind with v1.4.
OLDER: Final = """
apiVersion: devices.kubeedge.io/v1alpha1
kind: Device
metadata: {name: lamp-1}
spec: {deviceModelRef: {name: lamp}}
"""

#: What KubeEdge's router is told: kept here, and carried out by nothing.
RULES: Final = """
apiVersion: rules.kubeedge.io/v1
kind: RuleEndpoint
metadata: {name: own-bus, labels: {description: bus}}
spec: {ruleEndpointType: "eventbus", properties: {}}
---
apiVersion: rules.kubeedge.io/v1
kind: RuleEndpoint
metadata: {name: own-service}
spec: {ruleEndpointType: "servicebus", properties: {"service_port": "6666"}}
---
apiVersion: rules.kubeedge.io/v1
kind: Rule
metadata: {name: bus-to-rest}
spec:
  source: "own-bus"
  sourceResource: {"topic": "hall", "node_name": "hall-1"}
  target: "own-rest"
  targetResource: {"resource": "http://192.0.2.5/hall"}
"""
