"""Access: CPU of a decision by roles and bindings, of a token's check, and of a token's signature.

    python -m benchmarks.access [--bindings 1000]

CPU times of this process alone; they hardly depend on what else the machine does.
"""

from __future__ import annotations

import argparse
import functools
import random
import time
from collections.abc import Callable

from benchmarks import rig
from edgesite.apiserver.rbacdefaults import bindings, cluster_roles
from edgesite.kube import jwt
from edgesite.kube.rbac import GROUP, Attributes, Index, account_name
from edgesite.net.rsa import PrivateKey

SERVICE_ACCOUNTS = ("system:serviceaccounts", "system:serviceaccounts:ns-7", "system:authenticated")


def cpu_s(work: Callable[[], object], times: int) -> float:
    """CPU seconds of one call, the best of three rounds."""
    rounds = []
    for _ in range(3):
        started = time.process_time()
        for _ in range(times):
            work()
        rounds.append((time.process_time() - started) / times)
    return min(rounds)


def index_of(count: int) -> Index:
    """The default roles, and ``count`` bindings: of accounts in 100 namespaces, users, and groups that all accounts are in."""
    index, rng = Index(), random.Random(1)
    for role in cluster_roles():
        index.set_role("", role["metadata"]["name"], role["rules"])
    for one in bindings():
        index.set_binding(one["metadata"].get("namespace", ""), one["metadata"]["name"], one)
    names = [role["metadata"]["name"] for role in cluster_roles() if role["metadata"]["name"] != "cluster-admin"]
    for number in range(count):
        namespace = f"ns-{number % 100}"
        subject = (
            {"kind": "ServiceAccount", "name": f"robot-{number % 7}", "namespace": namespace},
            {"kind": "User", "name": f"user-{number}"},
            {"kind": "Group", "name": f"system:serviceaccounts:{namespace}"},
        )[number % 3]
        ref = {"apiGroup": GROUP, "kind": "ClusterRole", "name": rng.choice(names)}
        index.set_binding(namespace if number % 10 else "", f"b-{number}", {"roleRef": ref, "subjects": [subject]})
    return index


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bindings", type=int, default=1000)
    arguments = parser.parse_args()
    print(rig.conditions())
    small, large = index_of(0), index_of(arguments.bindings)
    user = account_name("ns-7", "robot-0")
    refused = Attributes("delete", group="apps", resource="deployments", namespace="ns-7", name="x")
    allowed = Attributes("create", group="authorization.k8s.io", resource="selfsubjectaccessreviews")
    few = cpu_s(lambda: small.decide(user, SERVICE_ACCOUNTS, refused), 20_000)
    for what, wanted in (("refused, every binding of the user looked at", refused), ("allowed cluster-wide", allowed)):
        took = cpu_s(functools.partial(large.decide, user, SERVICE_ACCOUNTS, wanted), 20_000)
        rig.line(f"decision, {arguments.bindings} bindings: {what}", f"{took * 1e6:.1f} µs", "≤ 20 µs")
    many = cpu_s(lambda: large.decide(user, SERVICE_ACCOUNTS, refused), 20_000)
    rig.line(f"{arguments.bindings} bindings against the default ones alone", f"{many / few:.1f} ×")
    _tokens()
    return 0


def _tokens() -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    kind = serialization.PrivateFormat.TraditionalOpenSSL
    key = rsa.generate_private_key(65537, 2048)
    ours = PrivateKey.load(key.private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption()))
    claims = {
        "iss": "https://kubernetes.default.svc.cluster.local",
        "sub": account_name("ns", "robot"),
        "exp": 1,
        "x": "y" * 300,
    }
    token = jwt.make({"alg": "RS256", "kid": ours.public.kid}, claims, ours.sign)
    parsed = jwt.parse(token)
    rig.line(
        "token made and signed (RS256, 2048 bits)",
        f"{cpu_s(lambda: jwt.make({}, claims, ours.sign), 200) * 1e3:.2f} ms",
    )
    verified = cpu_s(lambda: ours.public.verifies(parsed.signed, parsed.signature), 500)
    rig.line("its signature verified, once for each token", f"{verified * 1e6:.0f} µs")


if __name__ == "__main__":
    raise SystemExit(main())
