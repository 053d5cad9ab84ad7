"""OpenAPI version 2 as protobuf: the message openapi.v2.Document, from the document as JSON has it.

Vendor extensions travel as NamedAny, whose YAML text is written as JSON, which YAML contains.

Errors  protowire's EncodeError for a value that the message cannot hold, which would be our mistake.
Source  Names and numbers of the proto3 package openapi.v2.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from edgesite.kube import json
from edgesite.kube.protowire import Messages, encode

__all__ = ["MESSAGES", "encode_document"]

Object = dict[str, Any]

#: The messages that Kubernetes' documents are made of.
MESSAGES: Final = Messages("""
AdditionalPropertiesItem: schema Schema = 1 (oneof oneof); boolean bool = 2 (oneof oneof)
Any: yaml string = 2
ApiKeySecurity: type string = 1; name string = 2; in string = 3; description string = 4
BodyParameter: description string = 1; name string = 2; in string = 3; required bool = 4; schema Schema = 5
Definitions: additional_properties repeated NamedSchema = 1
Document: swagger string = 1; info Info = 2; paths Paths = 8; definitions Definitions = 9; security repeated SecurityRequirement = 12; security_definitions SecurityDefinitions = 13
Info: title string = 1; version string = 2
ItemsItem: schema repeated Schema = 1
NamedAny: name string = 1; value Any = 2
NamedPathItem: name string = 1; value PathItem = 2
NamedResponseValue: name string = 1; value ResponseValue = 2
NamedSchema: name string = 1; value Schema = 2
NamedSecurityDefinitionsItem: name string = 1; value SecurityDefinitionsItem = 2
NamedStringArray: name string = 1; value StringArray = 2
NonBodyParameter: query_parameter_sub_schema QueryParameterSubSchema = 3 (oneof oneof); path_parameter_sub_schema PathParameterSubSchema = 4 (oneof oneof)
Operation: tags repeated string = 1; operation_id string = 5; produces repeated string = 6; consumes repeated string = 7; parameters repeated ParametersItem = 8; responses Responses = 9; schemes repeated string = 10; vendor_extension repeated NamedAny = 13
Parameter: body_parameter BodyParameter = 1 (oneof oneof); non_body_parameter NonBodyParameter = 2 (oneof oneof)
ParametersItem: parameter Parameter = 1 (oneof oneof)
PathItem: get Operation = 2; put Operation = 3; post Operation = 4; delete Operation = 5; patch Operation = 8; parameters repeated ParametersItem = 9
PathParameterSubSchema: required bool = 1; in string = 2; description string = 3; name string = 4; type string = 5; unique_items bool = 19
Paths: path repeated NamedPathItem = 2
Properties: additional_properties repeated NamedSchema = 1
QueryParameterSubSchema: required bool = 1; in string = 2; description string = 3; name string = 4; type string = 6; unique_items bool = 20
Response: description string = 1; schema SchemaItem = 2
ResponseValue: response Response = 1 (oneof oneof)
Responses: response_code repeated NamedResponseValue = 1
Schema: _ref string = 1; format string = 2; title string = 3; description string = 4; multiple_of double = 6; maximum double = 7; exclusive_maximum bool = 8; minimum double = 9; exclusive_minimum bool = 10; max_length int64 = 11; min_length int64 = 12; pattern string = 13; max_items int64 = 14; min_items int64 = 15; unique_items bool = 16; max_properties int64 = 17; min_properties int64 = 18; enum repeated Any = 20; required repeated string = 19; additional_properties AdditionalPropertiesItem = 21; type TypeItem = 22; items ItemsItem = 23; properties Properties = 25; vendor_extension repeated NamedAny = 31
SchemaItem: schema Schema = 1 (oneof oneof)
SecurityDefinitions: additional_properties repeated NamedSecurityDefinitionsItem = 1
SecurityDefinitionsItem: api_key_security ApiKeySecurity = 2 (oneof oneof)
SecurityRequirement: additional_properties repeated NamedStringArray = 1
StringArray: value repeated string = 1
TypeItem: value repeated string = 1
""")


#: Members of a schema that the message has as they are, with their names there.
_PLAIN: Final = {
    name: name for name in ("description", "format", "maximum", "minimum", "pattern", "required", "title")
} | {
    "exclusiveMaximum": "exclusive_maximum",
    "exclusiveMinimum": "exclusive_minimum",
    "maxItems": "max_items",
    "maxLength": "max_length",
    "maxProperties": "max_properties",
    "minItems": "min_items",
    "minLength": "min_length",
    "minProperties": "min_properties",
    "multipleOf": "multiple_of",
    "uniqueItems": "unique_items",
}


def encode_document(
    head: Object, paths: Iterable[tuple[str, Object]], definitions: Iterable[tuple[str, Object]]
) -> bytes:
    """Encode a version 2 document; ``head`` has its other members. Paths and definitions are encoded as they come."""
    security = head["securityDefinitions"]
    message = {
        "swagger": head["swagger"],
        "info": head["info"],
        "security": [
            {"additional_properties": _named(one, lambda scopes: {"value": scopes})} for one in head["security"]
        ],
        "security_definitions": {"additional_properties": _named(security, lambda one: {"api_key_security": one})},
    }
    result = bytearray(encode(MESSAGES["Document"], message))
    # Repeated members of a message that is split into parts add up, so each part can be encoded by itself.
    path_table, definition_table = MESSAGES["Paths"], MESSAGES["Definitions"]
    parts = (encode(path_table, {"path": [{"name": name, "value": _path_item(item)}]}) for name, item in paths)
    _append(result, _PATHS, parts)
    parts = (
        encode(definition_table, {"additional_properties": [{"name": name, "value": _schema(one)}]})
        for name, one in definitions
    )
    _append(result, _DEFINITIONS, parts)
    return bytes(result)


_PATHS: Final = 8  # numbers of fields in Document
_DEFINITIONS: Final = 9


def _append(result: bytearray, number: int, parts: Iterable[bytes]) -> None:
    """Append a member that is a message, made of ``parts``."""
    body = b"".join(parts)
    result.append(number << 3 | 2)
    length = len(body)
    while length > 0x7F:
        result.append(length & 0x7F | 0x80)
        length >>= 7
    result.append(length)
    result += body


def _named(members: Object, convert: Any) -> list[Object]:
    return [{"name": name, "value": convert(value)} for name, value in members.items()]


def _extensions(members: Object) -> list[Object]:
    return [
        {"name": name, "value": {"yaml": json.dumps(value).decode() + "\n"}}
        for name, value in members.items()
        if name.startswith("x-")
    ]


def _path_item(item: Object) -> Object:
    message: Object = {method: _operation(one) for method, one in item.items() if method != "parameters"}
    message["parameters"] = [_parameter(one) for one in item["parameters"]]
    return message


def _operation(operation: Object) -> Object:
    return {
        "tags": operation["tags"],
        "operation_id": operation["operationId"],
        "produces": operation["produces"],
        "consumes": operation["consumes"],
        "parameters": [_parameter(one) for one in operation["parameters"]],
        "responses": {"response_code": _named(operation["responses"], _response)},
        "schemes": operation["schemes"],
        "vendor_extension": _extensions(operation),
    }


def _response(response: Object) -> Object:
    message: Object = {"description": response["description"]}
    if "schema" in response:
        message["schema"] = {"schema": _schema(response["schema"])}
    return {"response": message}


def _parameter(parameter: Object) -> Object:
    if parameter["in"] == "body":
        return {"parameter": {"body_parameter": {**parameter, "schema": _schema(parameter["schema"])}}}
    plain = {name: value for name, value in parameter.items() if name != "uniqueItems"}
    plain["unique_items"] = parameter["uniqueItems"]
    return {"parameter": {"non_body_parameter": {f"{parameter['in']}_parameter_sub_schema": plain}}}


def _schema(schema: Object) -> Object:
    message: Object = {}
    for name, value in schema.items():
        if name == "$ref":
            message["_ref"] = value
        elif name == "type":
            message["type"] = {"value": [value]}
        elif name == "items":
            message["items"] = {"schema": [_schema(value)]}
        elif name == "properties":
            message["properties"] = {"additional_properties": _named(value, _schema)}
        elif name == "additionalProperties":
            message["additional_properties"] = {"schema": _schema(value)}
        elif name == "enum":
            message["enum"] = [{"yaml": json.dumps(one).decode() + "\n"} for one in value]
        elif name in _PLAIN:
            message[_PLAIN[name]] = value
    extensions = _extensions(schema)
    if extensions:
        message["vendor_extension"] = extensions
    return message
