"""Asks for volumes to be attached to the nodes where pods need them: VolumeAttachments, which a driver's own attacher carries out."""
