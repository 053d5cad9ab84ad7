"""Architectures have the names that images and nodes have for them."""

from __future__ import annotations

import pytest

from edgesite.net.machine import architecture_of


@pytest.mark.parametrize(
    ("machine", "wide", "name"),
    [
        ("x86_64", True, "amd64"),
        ("aarch64", True, "arm64"),
        ("armv7l", False, "arm"),
        ("aarch64", False, "arm"),  # a program of 32 bits on a kernel of 64: images of 64 would not be its own
        ("armv8l", False, "arm"),
        ("x86_64", False, "386"),
        ("loongarch64", True, "loong64"),
        ("s390x", True, "s390x"),
    ],
)
def test_the_name_is_that_of_the_program_and_not_of_the_kernel(machine: str, wide: bool, name: str) -> None:
    assert architecture_of(machine, wide=wide) == name
