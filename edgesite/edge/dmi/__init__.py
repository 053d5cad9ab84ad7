"""The Device Management Interface: gRPC between the edge and mappers, in both versions at once.

module     the module ``dmi``: the socket, the mappers, their pushes
messages   protobuf tables of v1alpha1 and v1beta1
anyvalues  values of free-form objects
convert    devices and models as messages
records    mappers, and what they have been told, on disk
service    what mappers call
mapper     what one mapper is told: the difference between what it has and what it should have
mappers    `Mappers`: who is registered
doorway    loads the gRPC server when the first mapper knocks
rates      how often may be called
"""
