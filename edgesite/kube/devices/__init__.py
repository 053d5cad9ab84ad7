"""Devices and their models (devices.kubeedge.io), without I/O: forms of both versions, values, rules, definitions.

to_v1beta1(obj), to_v1alpha2(obj)     another version's form; an object of that version is returned as it is
values                                what a twin value of a type may be
model                                 a DeviceModel as rules for values
rules                                 what is wrong with a Device or a DeviceModel
profile                               the device profile that mappers of KubeEdge v1.12 read
judgement                             what is answered to who writes a bad one
reviews                               questions of a cluster's API server, and answers
crds                                  the CustomResourceDefinitions
"""

from edgesite.kube.devices.conversion import GROUP, V1ALPHA2, V1BETA1, to_v1alpha2, to_v1beta1

__all__ = ["GROUP", "V1ALPHA2", "V1BETA1", "to_v1alpha2", "to_v1beta1"]
