"""What ``edgesite cloud --install-crds`` does to a cluster: custom resources, webhooks for devices, their certificate.

It may be run again at any time, and changes only what is not as it should be:

    CustomResourceDefinitions     made where missing. Those of devices and models are brought up to date, also KubeEdge's, if there are
                                  webhooks to convert their objects; others that are not ours stay as they are
    Secret, webhooks              where API servers can reach the cloud role (`place`): both versions are served and devices checked.
                                  A place of before is kept unless another is given; the certificate is made anew in its last year
    objects stored as v1alpha2    rewritten as v1beta1, once the webhooks answer

Without a place devices are served as v1beta1 alone and only their schema is checked.

Units   Seconds.
Errors  ApiError of the API; ValueError: a Secret that cannot be used; PkiError, OSError: no certificate can be made.
State   None.
Source  Kubernetes: CustomResourceDefinition and ValidatingWebhookConfiguration v1, versions of stored objects; KubeEdge,
        cloud/pkg/admissioncontroller (names of its webhooks).
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from edgesite.cloud.admission.place import CONVERT, DEVICES, MODELS, SECRET, Place, place_of, text_of
from edgesite.cloud.crds import definitions
from edgesite.cloud.namespace import NAMESPACE, ensure_namespace
from edgesite.cloud.storedversions import rewrite
from edgesite.kube import devices, json
from edgesite.kube.errors import ApiError
from edgesite.kube.resources import BUILTIN, CUSTOM_RESOURCE_DEFINITIONS, SECRETS, Resource
from edgesite.net import pem
from edgesite.net.pki import PLAUSIBLE, SERVER, Pki

if TYPE_CHECKING:
    from edgesite.client import Client
    from edgesite.context import Clock

__all__ = ["TIMEOUT_S", "Installer"]

Object = dict[str, Any]
TIMEOUT_S: Final = 5  #: that an API server waits for a verdict
_CONFIGURATION: Final = "edgesite-devices"
_WEBHOOKS: Final = next(one for one in BUILTIN if one.plural == "validatingwebhookconfigurations")
_KUBEEDGES: Final = ("validate-devicemodel", "kubeedge-crds-validate-webhook-configuration")  #: v1.12, and newer
_DIGEST: Final = "edgesite.kubeedge.io/definition"  #: annotation: which of ours this is
_NAMES: Final = "edgesite.kubeedge.io/names"  #: annotation: what the certificate is for
_DAYS: Final = 3650
_RENEW_S: Final = 365 * 86400.0
_TRIES: Final = 5
_REVIEWS: Final = ["v1", "v1beta1"]
#: Reports of devices change the status alone: there is nothing to check, and the API server need not ask. Since Kubernetes v1.28; older
#: API servers drop it.
_ASKED: Final = {
    "name": "spec-is-new",
    "expression": "request.operation != 'UPDATE' || request.resource.version != 'v1beta1' || !has(object.spec) || "
    "!has(oldObject.spec) || object.spec != oldObject.spec",
}


class Installer:
    """``say`` is told each thing that was done, in a line."""

    def __init__(self, client: Client, pki: Pki, clock: Clock, say: Callable[[str], None]) -> None:
        self._client = client
        self._pki = pki
        self._clock = clock
        self._say = say

    async def run(
        self, place: Place | None, policy: str, *, default: Place | None = None, device_statuses: bool = False
    ) -> None:
        """``policy`` is "Ignore" or "Fail"; ``default`` is where webhooks are if neither is ``place`` given nor were they installed before.
        Raises what the module's docstring says."""
        place = place or await self._former_place() or default
        bundle = b""
        if place is not None:
            await ensure_namespace(self._client)
            bundle = await self._certificate(place.names())
        conversion = None if place is None else _conversion(place, bundle)
        for definition in definitions(conversion=conversion, device_statuses=device_statuses):
            await self._definition(definition, upgrades=place is not None)
        if place is None:
            self._say(
                "devices are served as v1beta1 alone, and not checked against their models: no place of webhooks is known"
            )
            return
        await self._webhooks(_configuration(place, bundle, policy))
        await self._tell_of_kubeedges()
        self._say(f"webhooks for devices are expected at {place}")
        await rewrite(self._client, self._clock, self._say)

    # -- definitions ---------------------------------------------------------------------------------------------

    async def _former_place(self) -> Place | None:
        """Where the webhooks of an earlier run are."""
        found = await self._find(CUSTOM_RESOURCE_DEFINITIONS, f"devices.{devices.GROUP}")
        if found is None or _DIGEST not in (found["metadata"].get("annotations") or {}):
            return None
        webhook = (found["spec"].get("conversion") or {}).get("webhook") or {}
        return place_of(webhook.get("clientConfig") or {})

    async def _definition(self, wanted: Object, *, upgrades: bool) -> None:
        """``upgrades``: definitions of devices that are not ours are brought up to date."""
        name = wanted["metadata"]["name"]
        upgrades = upgrades and "conversion" in wanted["spec"]
        _mark(wanted, wanted["spec"])
        for _ in range(_TRIES):
            live = await self._find(CUSTOM_RESOURCE_DEFINITIONS, name)
            if live is None:
                done = await self._make(CUSTOM_RESOURCE_DEFINITIONS, wanted)
            elif not upgrades and _DIGEST not in (live["metadata"].get("annotations") or {}):
                self._say(f"kept {name}, which was there")
                return
            elif unknown := _unknown_versions(live, wanted):
                self._say(f"kept {name}: it has objects of {', '.join(unknown)}, which this program does not know")
                return
            elif _is_as(live, wanted, wanted["spec"], live["spec"]):
                self._say(f"kept {name}, which is up to date")
                return
            else:
                done = await self._replace(CUSTOM_RESOURCE_DEFINITIONS, _over(live, wanted, "spec"))
            if done:
                self._say(f"{'created' if live is None else 'updated'} {name}")
                return
        raise ApiError(409, "Conflict", f"others write {name} all the time")

    async def _webhooks(self, wanted: Object) -> None:
        _mark(wanted, wanted["webhooks"])
        for _ in range(_TRIES):
            live = await self._find(_WEBHOOKS, _CONFIGURATION)
            if live is None:
                done = await self._make(_WEBHOOKS, wanted)
            elif _is_as(live, wanted, wanted["webhooks"], live.get("webhooks")):
                self._say(f"kept webhooks {_CONFIGURATION}, which are up to date")
                return
            else:
                done = await self._replace(_WEBHOOKS, _over(live, wanted, "webhooks"))
            if done:
                self._say(f"{'created' if live is None else 'updated'} webhooks {_CONFIGURATION}")
                return
        raise ApiError(409, "Conflict", f"others write {_CONFIGURATION} all the time")

    async def _tell_of_kubeedges(self) -> None:
        """Where KubeEdge's program ``admission`` does not run any more, its webhooks stand in the way of rules."""
        for name in _KUBEEDGES:
            if await self._find(_WEBHOOKS, name) is not None:
                self._say(
                    f"kept webhooks {name}, which ask KubeEdge's admission: delete them if that does not run any more"
                )

    # -- the certificate -----------------------------------------------------------------------------------------

    async def _certificate(self, names: Sequence[str]) -> bytes:
        """Return what the API server shall trust; on return the Secret has a certificate for these names."""
        for _ in range(_TRIES):
            secret = await self._find(SECRETS, SECRET, NAMESPACE)
            former = b"" if secret is None else text_of(secret, "ca.crt")
            if secret is not None and self._serves(secret, names):
                if not former:
                    raise ValueError(f"Secret {SECRET}, which is not ours, has no ca.crt")
                return former
            if self._clock.time() < PLAUSIBLE:
                raise ValueError("no certificate can be made: the clock is not set")
            async with self._pki.session() as pki:
                ca = await pki.make_ca("edgesite webhooks", days=_DAYS)
                dns_names = [one for one in names if not _is_address(one)]
                ips = [one for one in names if _is_address(one)]
                pair = await pki.issue(ca, names[0], dns_names=dns_names, ips=ips, usages=SERVER, days=_DAYS)
            bundle = b"".join(
                [ca.certificate, *self._still_good(former)]
            )  # instances show the former one for some seconds
            data = {"ca.crt": bundle, "tls.crt": pair.certificate, "tls.key": pair.key}
            metadata = {"name": SECRET, "namespace": NAMESPACE, "annotations": {_NAMES: ",".join(names)}}
            wanted = {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": metadata,
                "type": "Opaque",
                "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
            }
            made = (
                self._make(SECRETS, wanted) if secret is None else self._replace(SECRETS, _over(secret, wanted, "data"))
            )
            if await made:
                self._say(f"made a certificate for {', '.join(names)} in Secret {NAMESPACE}/{SECRET}")
                return bundle
        raise ApiError(409, "Conflict", f"others write Secret {SECRET} all the time")

    def _serves(self, secret: Object, names: Sequence[str]) -> bool:
        """Whether the Secret's certificate will do; one that is not ours has to."""
        made_for = (secret["metadata"].get("annotations") or {}).get(_NAMES)
        if made_for is None:
            return True
        certificate = text_of(secret, "tls.crt")
        if not certificate or not set(names) <= set(str(made_for).split(",")):
            return False
        return pem.facts(certificate).not_after > self._clock.time() + _RENEW_S

    def _still_good(self, bundle: bytes) -> list[bytes]:
        """The newest CA of a former bundle, if it is still valid."""
        try:
            newest = pem.from_der(pem.to_der(bundle))
            return [newest] if pem.facts(newest).not_after > self._clock.time() else []
        except ValueError:
            return []

    # -- objects -------------------------------------------------------------------------------------------------

    async def _find(self, kind: Resource, name: str, namespace: str = "") -> Object | None:
        try:
            return await self._client.get(kind, name, namespace)
        except ApiError as exc:
            if exc.code == 404:
                return None
            raise

    async def _make(self, kind: Resource, obj: Object) -> bool:
        """False if there is one by now."""
        try:
            await self._client.create(kind, obj)
        except ApiError as exc:
            if exc.reason != "AlreadyExists":
                raise
            return False
        return True

    async def _replace(self, kind: Resource, obj: Object) -> bool:
        """False if it has changed meanwhile."""
        try:
            await self._client.update(kind, obj)
        except ApiError as exc:
            if exc.reason not in ("Conflict", "NotFound"):
                raise
            return False
        return True


def _conversion(place: Place, bundle: bytes) -> Object:
    webhook = {"clientConfig": place.client_config(CONVERT, bundle), "conversionReviewVersions": _REVIEWS}
    return {"strategy": "Webhook", "webhook": webhook}


def _configuration(place: Place, bundle: bytes, policy: str) -> Object:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": _CONFIGURATION},
        "webhooks": list(_validating(place, bundle, policy)),
    }


def _validating(place: Place, bundle: bytes, policy: str) -> Iterator[Object]:
    for name, plural, path in (("validatedevice", "devices", DEVICES), ("validatedevicemodel", "devicemodels", MODELS)):
        rule = {
            "apiGroups": [devices.GROUP],
            "apiVersions": ["v1beta1", "v1alpha2"],
            "operations": ["CREATE", "UPDATE"],
            "resources": [plural],
            "scope": "Namespaced",
        }
        yield {
            "name": f"{name}.kubeedge.io",
            "admissionReviewVersions": _REVIEWS,
            "clientConfig": place.client_config(path, bundle),
            "failurePolicy": policy,
            "matchConditions": [_ASKED],
            "matchPolicy": "Equivalent",
            "rules": [rule],
            "sideEffects": "None",
            "timeoutSeconds": TIMEOUT_S,
        }


def _mark(wanted: Object, content: Any) -> None:
    """Tell by an annotation which contents these are."""
    digest = hashlib.sha256(json.dumps(content)).hexdigest()[:16]
    wanted["metadata"] = {**wanted["metadata"], "annotations": {_DIGEST: digest}}


def _is_as(live: Object, wanted: Object, content: Any, held: Any) -> bool:
    mark = (live["metadata"].get("annotations") or {}).get(_DIGEST)
    return bool(mark == wanted["metadata"]["annotations"][_DIGEST] and _covers(held, content))


def _covers(held: Any, wanted: Any) -> bool:
    """Whether all that is wanted is there; an API server adds defaults, and drops what it does not know yet."""
    if isinstance(wanted, dict):
        return isinstance(held, dict) and all(
            _covers(held.get(name), value) for name, value in wanted.items() if name != "matchConditions"
        )
    if isinstance(wanted, list):
        return isinstance(held, list) and len(held) == len(wanted) and all(map(_covers, held, wanted))
    return bool(held == wanted)


def _over(live: Object, wanted: Object, member: str) -> Object:
    """The live object with what is wanted in it; annotations and labels of others stay."""
    annotations = {**(live["metadata"].get("annotations") or {}), **wanted["metadata"]["annotations"]}
    return {**live, "metadata": {**live["metadata"], "annotations": annotations}, member: wanted[member]}


def _unknown_versions(live: Object, wanted: Object) -> list[str]:
    known = {one["name"] for one in wanted["spec"]["versions"]}
    return [one for one in (live.get("status") or {}).get("storedVersions") or () if one not in known]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
