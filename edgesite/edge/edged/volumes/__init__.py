"""Volumes of pods: made before the sandbox, kept up to date while the pod runs, removed after its containers."""
