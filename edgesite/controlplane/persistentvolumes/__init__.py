"""Binds PersistentVolumeClaims to PersistentVolumes that somebody has made: nothing is provisioned here."""
