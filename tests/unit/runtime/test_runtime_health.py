"""Health: module states and checks, worded as Kubernetes' components word them."""

from __future__ import annotations

from edgesite.runtime.health import RoleHealth, render


def test_all_well_is_ok_and_verbose_lists_the_checks() -> None:
    health = RoleHealth()
    health.add_check("store", lambda: None, live=True)

    assert render(health.report("ready"), path="readyz", verbose=False) == (200, "ok")
    code, text = render(health.report("live"), path="livez", verbose=True)
    assert (code, text) == (200, "[+]ping ok\n[+]store ok\nlivez check passed\n")


def test_a_failed_check_is_told_whether_verbose_or_not() -> None:
    health = RoleHealth()
    health.add_check("hub", lambda: "no link")

    code, text = render(health.report("ready"), path="readyz", verbose=False)
    assert code == 500
    assert "[-]hub failed: no link\nreadyz check failed\n" in text
    assert render(health.report("live"), path="livez", verbose=False)[0] == 200
    assert render(health.report("ready"), path="readyz", verbose=False, excluded=["hub"])[0] == 200


def test_a_check_that_raises_has_failed() -> None:
    health = RoleHealth()
    health.add_check("odd", lambda: 1 / 0)  # type: ignore[arg-type, return-value]

    assert dict(health.report("ready"))["odd"] == "the check failed: ZeroDivisionError"
