"""EdgeSite, ``edgesite.config.kubeedge.io/v1alpha1``: a whole site in one file, its sections as the roles' own kinds."""

from __future__ import annotations

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from edgesite.runtime.config.api import Api
from edgesite.runtime.config.cloud import CloudCore
from edgesite.runtime.config.edge import EdgeCore

__all__ = ["EdgeSite"]


class EdgeSite(BaseSettings):
    """Environment overrides: ``EDGESITE_`` and the path joined by two underscores (EDGESITE_API__ADDRESS)."""

    model_config = SettingsConfigDict(
        env_prefix="EDGESITE_", env_nested_delimiter="__", extra="forbid", frozen=True, case_sensitive=False
    )

    apiVersion: str = "edgesite.config.kubeedge.io/v1alpha1"
    kind: str = "EdgeSite"
    api: Api = Field(default_factory=Api)
    cloud: CloudCore = Field(default_factory=CloudCore)
    edge: EdgeCore = Field(default_factory=EdgeCore)
