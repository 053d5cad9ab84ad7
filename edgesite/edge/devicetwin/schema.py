"""The tables of DeviceTwin: they are there before the first device, as a KubeEdge that takes over the database expects. `tables` says what they hold."""

from __future__ import annotations

from typing import Final

__all__ = ["TABLES"]

TABLES: Final = (
    "CREATE TABLE IF NOT EXISTS `device` (`id` varchar(64) NOT NULL PRIMARY KEY, `name` text, `description` text, `state` text,"
    " `last_online` text)",
    "CREATE TABLE IF NOT EXISTS `device_attr` (`id` integer NOT NULL PRIMARY KEY AUTOINCREMENT, `deviceid` text, `name` text,"
    " `description` text, `value` text, `optional` bool, `attr_type` text, `metadata` text)",
    "CREATE TABLE IF NOT EXISTS `device_twin` (`id` integer NOT NULL PRIMARY KEY AUTOINCREMENT, `deviceid` text, `name` text,"
    " `description` text, `expected` text, `actual` text, `expected_meta` text, `actual_meta` text, `expected_version` text,"
    " `actual_version` text, `optional` bool, `attr_type` text, `metadata` text)",
    "CREATE TABLE IF NOT EXISTS `edgesite_device` (`id` text NOT NULL PRIMARY KEY, `namespace` text NOT NULL, `uid` text NOT NULL,"
    " `version` integer NOT NULL, `overridden` text NOT NULL)",
)
