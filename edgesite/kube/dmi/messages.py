"""Messages of the Device Management Interface, v1alpha1 and v1beta1.

Source  KubeEdge v1.12, pkg/apis/dmi/v1alpha1/api.proto, and v1.23, pkg/apis/dmi/v1beta1/api.proto (services, names, numbers).
"""

from __future__ import annotations

from typing import Final

from edgesite.kube.protowire import Messages

__all__ = ["MANAGER_SERVICE", "MAPPER_SERVICE", "VERSIONS", "tables"]

VERSIONS: Final = ("v1alpha1", "v1beta1")
MANAGER_SERVICE: Final = "DeviceManagerService"  #: the edge's
MAPPER_SERVICE: Final = "DeviceMapperService"  #: a mapper's

_COMMON: Final = """
Any: type_url string = 1; value bytes = 2
CustomizedValue: data map<string, Any> = 1
MapperRegisterRequest: withData bool = 1; mapper MapperInfo = 2
MapperRegisterResponse: modelList repeated DeviceModel = 1; deviceList repeated Device = 2
MapperInfo: name string = 1; version string = 2; api_version string = 3; protocol string = 4; address bytes = 5; state string = 6
DeviceCommand: name string = 1; url string = 2; method string = 3; status_code repeated string = 4; parameters repeated string = 5; response bytes = 6
TwinProperty: value string = 1; metadata map<string, string> = 2
RegisterDeviceRequest: device Device = 1
CreateDeviceModelRequest: model DeviceModel = 1
UpdateDeviceRequest: device Device = 1
UpdateDeviceModelRequest: model DeviceModel = 1
GetDeviceResponse: device Device = 1
ReportDeviceStatusResponse: (empty)
RemoveDeviceResponse: (empty)
RemoveDeviceModelResponse: (empty)
UpdateDeviceResponse: (empty)
UpdateDeviceModelResponse: (empty)
"""
_ALPHA: Final = """
DeviceModel: name string = 1; spec DeviceModelSpec = 2
DeviceModelSpec: properties repeated DeviceProperty = 1; commands repeated DeviceCommand = 2; protocol string = 3
DeviceProperty: name string = 1; description string = 2; type PropertyType = 3
PropertyType: int PropertyTypeInt64 = 1; string PropertyTypeString = 2; double PropertyTypeDouble = 3; float PropertyTypeFloat = 4; boolean PropertyTypeBoolean = 5; bytes PropertyTypeBytes = 6
PropertyTypeInt64: accessMode string = 1; defaultValue int64 = 2; minimum int64 = 3; maximum int64 = 4; unit string = 5
PropertyTypeString: accessMode string = 1; defaultValue string = 2
PropertyTypeDouble: accessMode string = 1; defaultValue double = 2; minimum double = 3; maximum double = 4; unit string = 5
PropertyTypeFloat: accessMode string = 1; defaultValue float = 2; minimum float = 3; maximum float = 4; unit string = 5
PropertyTypeBoolean: accessMode string = 1; defaultValue bool = 2
PropertyTypeBytes: accessMode string = 1
Device: name string = 1; spec DeviceSpec = 2; status DeviceStatus = 3
DeviceSpec: deviceModelReference string = 1; protocol ProtocolConfig = 2; propertyVisitors repeated DevicePropertyVisitor = 3
ProtocolConfig: opcua ProtocolConfigOpcUA = 1; modbus ProtocolConfigModbus = 2; bluetooth ProtocolConfigBluetooth = 3; common ProtocolConfigCommon = 4; customizedProtocol ProtocolConfigCustomized = 5
ProtocolConfigOpcUA: url string = 1; userName string = 2; password string = 3; securityPolicy string = 4; securityMode string = 5; certificate string = 6; privateKey string = 7; timeout int64 = 8
ProtocolConfigModbus: slaveID int64 = 1
ProtocolConfigBluetooth: macAddress string = 1
ProtocolConfigCommon: com ProtocolConfigCOM = 1; tcp ProtocolConfigTCP = 2; commType string = 3; reconnTimeout int64 = 4; reconnRetryTimes int64 = 5; collectTimeout int64 = 6; collectRetryTimes int64 = 7; collectType string = 8; customizedValues CustomizedValue = 9
ProtocolConfigCOM: serialPort string = 1; baudRate int64 = 2; dataBits int64 = 3; parity string = 4; stopBits int64 = 5
ProtocolConfigTCP: ip string = 1; port int64 = 2
ProtocolConfigCustomized: protocolName string = 1; configData CustomizedValue = 2
DevicePropertyVisitor: propertyName string = 1; reportCycle int64 = 2; collectCycle int64 = 3; customizedValues CustomizedValue = 4; opcua VisitorConfigOPCUA = 5; modbus VisitorConfigModbus = 6; bluetooth VisitorConfigBluetooth = 7; customizedProtocol VisitorConfigCustomized = 8
VisitorConfigOPCUA: nodeID string = 1; browseName string = 2
VisitorConfigModbus: register string = 1; offset int64 = 2; limit int64 = 3; scale double = 4; isSwap bool = 5; isRegisterSwap bool = 6
VisitorConfigBluetooth: characteristicUUID string = 1; dataWrite map<string, bytes> = 2; dataConverter BluetoothReadConverter = 3
BluetoothReadConverter: startIndex int64 = 1; endIndex int64 = 2; shiftLeft uint64 = 3; shiftRight uint64 = 4; orderOfOperations repeated BluetoothOperations = 5
BluetoothOperations: operationType string = 1; operationValue double = 2
VisitorConfigCustomized: protocolName string = 1; configData CustomizedValue = 2
ReportDeviceStatusRequest: deviceName string = 1; reportedDevice DeviceStatus = 2
DeviceStatus: twins repeated Twin = 1; state string = 2
Twin: propertyName string = 1; desired TwinProperty = 2; reported TwinProperty = 3
RegisterDeviceResponse: deviceName string = 1
CreateDeviceModelResponse: deviceModelName string = 1
RemoveDeviceRequest: deviceName string = 1
RemoveDeviceModelRequest: modelName string = 1
UpdateDeviceStatusRequest: deviceName string = 1; desiredDevice DeviceStatus = 2
UpdateDeviceStatusResponse: (empty)
GetDeviceRequest: deviceName string = 1
"""
_BETA: Final = """
DeviceModel: name string = 1; spec DeviceModelSpec = 2; namespace string = 3
DeviceModelSpec: properties repeated ModelProperty = 1; commands repeated DeviceCommand = 2
ModelProperty: name string = 1; description string = 2; type string = 3; accessMode string = 4; minimum string = 5; maximum string = 6; unit string = 7
Device: name string = 1; spec DeviceSpec = 2; status DeviceStatus = 3; namespace string = 4
DeviceSpec: deviceModelReference string = 1; protocol ProtocolConfig = 2; properties repeated DeviceProperty = 3; methods repeated DeviceMethod = 4
DeviceMethod: name string = 1; description string = 2; propertyNames repeated string = 3
DeviceProperty: name string = 1; desired TwinProperty = 2; visitors VisitorConfig = 3; reportCycle int64 = 4; collectCycle int64 = 5; reportToCloud bool = 6; pushMethod PushMethod = 7
ProtocolConfig: protocolName string = 1; configData CustomizedValue = 2
VisitorConfig: protocolName string = 1; configData CustomizedValue = 2
PushMethod: http PushMethodHTTP = 1; mqtt PushMethodMQTT = 2; dbMethod DBMethod = 3; otel PushMethodOTEL = 4; anomalyDetection CustomizedValue = 5
PushMethodHTTP: hostname string = 1; port int64 = 2; requestpath string = 3; timeout int64 = 4
PushMethodMQTT: address string = 1; topic string = 2; qos int32 = 3; retained bool = 4
PushMethodOTEL: endpointURL string = 1
DBMethod: influxdb2 DBMethodInfluxdb2 = 1; redis DBMethodRedis = 2; tdengine DBMethodTDEngine = 3; mysql DBMethodMySQL = 4
DBMethodInfluxdb2: influxdb2ClientConfig Influxdb2ClientConfig = 1; influxdb2DataConfig Influxdb2DataConfig = 2
Influxdb2DataConfig: measurement string = 1; tag map<string, string> = 2; fieldKey string = 3
Influxdb2ClientConfig: url string = 1; org string = 2; bucket string = 3
DBMethodRedis: redisClientConfig RedisClientConfig = 1
RedisClientConfig: addr string = 1; db int32 = 2; poolsize int32 = 3; minIdleConns int32 = 4
DBMethodTDEngine: tdEngineClientConfig TDEngineClientConfig = 1
TDEngineClientConfig: addr string = 1; dbname string = 2
DBMethodMySQL: mysqlClientConfig MySQLClientConfig = 1
MySQLClientConfig: addr string = 1; database string = 2; userName string = 3
ReportDeviceStatusRequest: deviceName string = 1; reportedDevice DeviceStatus = 2; deviceNamespace string = 3
ReportDeviceStatesRequest: deviceName string = 1; deviceNamespace string = 2; state string = 3
ReportDeviceStatesResponse: (empty)
DeviceStatus: twins repeated Twin = 1; reportToCloud bool = 2; reportCycle int64 = 3
Twin: propertyName string = 1; observedDesired TwinProperty = 2; reported TwinProperty = 3
RegisterDeviceResponse: deviceName string = 1; deviceNamespace string = 2
CreateDeviceModelResponse: deviceModelName string = 1; deviceModelNamespace string = 2
RemoveDeviceRequest: deviceName string = 1; deviceNamespace string = 2
RemoveDeviceModelRequest: modelName string = 1; modelNamespace string = 2
GetDeviceRequest: deviceName string = 1; deviceNamespace string = 2
"""


def tables(version: str) -> Messages:
    """Return the messages of a version, "v1alpha1" or "v1beta1"; parsed as they are used."""
    return Messages(_COMMON + (_ALPHA if version == "v1alpha1" else _BETA))
