"""The Device Management Interface without I/O, for both ends of it: the edge (`edgesite.edge.dmi`) and mappers (`edgesite.mapper`)."""
