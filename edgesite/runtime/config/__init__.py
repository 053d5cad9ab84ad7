"""Configuration: KubeEdge's CloudCore and EdgeCore files, the whole site's EdgeSite file, environment, ``--set``.

Validation (pydantic) runs in a short-lived child process, so that what is needed once is not kept; `load` is its caller.
"""
