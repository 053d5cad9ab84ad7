"""The Device Management Interface at the edge: gRPC with mappers, in both versions at once (messages: `edgesite.kube.dmi`).

module     the module ``dmi``: the socket, the mappers, their pushes
convert    devices and models as messages
records    mappers, and what they have been told, on disk
service    what mappers call
mapper     what one mapper is told: the difference between what it has and what it should have
mappers    `Mappers`: who is registered
doorway    loads the gRPC server when the first mapper knocks
rates      how often may be called
"""
