"""The roles and bindings that every cluster has from the start, as tables.

    NAME [> ROLE THAT IT BELONGS TO]
      VERBS  GROUP: RESOURCES [(NAMES)]       "core" is the group without a name
      VERBS  /PATHS

Verbs: R reads (get, list, watch), W writes (create, delete, deletecollection, patch, update), E records events; others by name.

State   None.
Source  Kubernetes documentation "Using RBAC Authorization" (default roles and role bindings); names and rules are those of kube-apiserver's
        bootstrap policy. The roles of kube-controller-manager's own accounts (system:controller:*) are left out: our controllers
        have none. kubeedge:aggregate-to-* are ours, over the kinds of KubeEdge that live in namespaces.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

__all__ = ["AUTOUPDATE", "bindings", "cluster_roles", "roles"]

Object = dict[str, Any]
GROUP: Final = "rbac.authorization.k8s.io"
AUTOUPDATE: Final = "rbac.authorization.kubernetes.io/autoupdate"
_LABEL: Final = "kubernetes.io/bootstrapping"
_AGGREGATE: Final = f"{GROUP}/aggregate-to-"
_SHORT: Final = {
    "R": ["get", "list", "watch"],
    "W": ["create", "delete", "deletecollection", "patch", "update"],
    "E": ["create", "patch", "update"],
}
_AGGREGATED: Final = {"admin": "", "edit": "admin", "view": "edit"}  #: and to which role they belong in turn

_CLUSTER_ROLES: Final = """
cluster-admin
  *  *: *
  *  /*
system:aggregate-to-admin > admin
  create  authorization.k8s.io: localsubjectaccessreviews
  R,W  rbac.authorization.k8s.io: rolebindings roles
system:aggregate-to-edit > edit
  R  core: pods/attach pods/exec pods/portforward pods/proxy secrets services/proxy
  impersonate  core: serviceaccounts
  W  core: pods pods/attach pods/exec pods/portforward pods/proxy
  create  core: pods/eviction serviceaccounts/token
  patch,update  core: pods/resize
  W  core: configmaps events persistentvolumeclaims replicationcontrollers replicationcontrollers/scale secrets
  W  core: serviceaccounts services services/proxy
  W  apps: daemonsets deployments deployments/rollback deployments/scale replicasets replicasets/scale statefulsets statefulsets/scale
  W  autoscaling: horizontalpodautoscalers
  W  batch: cronjobs jobs
  W  policy: poddisruptionbudgets
  W  networking.k8s.io: ingresses networkpolicies
  W  extensions: daemonsets deployments deployments/rollback deployments/scale ingresses networkpolicies replicasets replicasets/scale
  W  extensions: replicationcontrollers/scale
  R,W  coordination.k8s.io: leases
system:aggregate-to-view > view
  R  core: configmaps endpoints persistentvolumeclaims persistentvolumeclaims/status pods replicationcontrollers
  R  core: replicationcontrollers/scale serviceaccounts services services/status
  R  core: bindings events limitranges namespaces/status pods/log pods/status replicationcontrollers/status resourcequotas
  R  core: resourcequotas/status namespaces
  R  discovery.k8s.io: endpointslices
  R  apps: controllerrevisions daemonsets daemonsets/status deployments deployments/scale deployments/status replicasets
  R  apps: replicasets/scale replicasets/status statefulsets statefulsets/scale statefulsets/status
  R  autoscaling: horizontalpodautoscalers horizontalpodautoscalers/status
  R  batch: cronjobs cronjobs/status jobs jobs/status
  R  policy: poddisruptionbudgets poddisruptionbudgets/status
  R  networking.k8s.io: ingresses ingresses/status networkpolicies
  R  extensions: daemonsets daemonsets/status deployments deployments/scale deployments/status ingresses ingresses/status
  R  extensions: networkpolicies replicasets replicasets/scale replicasets/status replicationcontrollers/scale
kubeedge:aggregate-to-edit > edit
  W  devices.kubeedge.io: devices devicemodels
  W  rules.kubeedge.io: rules ruleendpoints
  W  apps.kubeedge.io: edgeapplications
kubeedge:aggregate-to-view > view
  R  devices.kubeedge.io: devices devices/status devicemodels
  R  rules.kubeedge.io: rules rules/status ruleendpoints
  R  apps.kubeedge.io: edgeapplications edgeapplications/status
system:auth-delegator
  create  authentication.k8s.io: tokenreviews
  create  authorization.k8s.io: subjectaccessreviews
system:basic-user
  create  authorization.k8s.io: selfsubjectaccessreviews selfsubjectrulesreviews
  create  authentication.k8s.io: selfsubjectreviews
system:certificates.k8s.io:certificatesigningrequests:nodeclient
  create  certificates.k8s.io: certificatesigningrequests/nodeclient
system:certificates.k8s.io:certificatesigningrequests:selfnodeclient
  create  certificates.k8s.io: certificatesigningrequests/selfnodeclient
system:certificates.k8s.io:kube-apiserver-client-approver
  approve  certificates.k8s.io: signers (kubernetes.io/kube-apiserver-client)
system:certificates.k8s.io:kube-apiserver-client-kubelet-approver
  approve  certificates.k8s.io: signers (kubernetes.io/kube-apiserver-client-kubelet)
system:certificates.k8s.io:kubelet-serving-approver
  approve  certificates.k8s.io: signers (kubernetes.io/kubelet-serving)
system:certificates.k8s.io:legacy-unknown-approver
  approve  certificates.k8s.io: signers (kubernetes.io/legacy-unknown)
system:discovery
  get  /api /api/* /apis /apis/* /healthz /livez /openapi /openapi/* /readyz /version /version/
system:heapster
  R  core: events namespaces nodes pods
  R  extensions: deployments
system:kube-aggregator
  R  core: endpoints services
system:kube-controller-manager
  E  core,events.k8s.io: events
  create  coordination.k8s.io: leases
  get,update  coordination.k8s.io: leases (kube-controller-manager)
  create  core: secrets serviceaccounts serviceaccounts/token
  delete  core: secrets
  get  core: configmaps namespaces secrets serviceaccounts
  update  core: secrets serviceaccounts
  create  authentication.k8s.io: tokenreviews
  create  authorization.k8s.io: subjectaccessreviews
  list,watch  *: *
system:kube-dns
  list,watch  core: endpoints services
system:kube-scheduler
  E  core,events.k8s.io: events
  create  coordination.k8s.io: leases
  get,update  coordination.k8s.io: leases (kube-scheduler)
  R  core: namespaces nodes persistentvolumeclaims persistentvolumes replicationcontrollers services
  R,delete  core: pods
  create  core: bindings pods/binding
  patch,update  core: pods/status
  R  apps,extensions: replicasets
  R  apps: statefulsets
  R  policy: poddisruptionbudgets
  create  authentication.k8s.io: tokenreviews
  create  authorization.k8s.io: subjectaccessreviews
  R  storage.k8s.io: csidrivers csinodes csistoragecapacities
system:kubelet-api-admin
  R,proxy  core: nodes
  *  core: nodes/log nodes/metrics nodes/proxy nodes/stats
system:monitoring
  get  /healthz /healthz/* /livez /livez/* /metrics /metrics/slis /readyz /readyz/*
system:node
  create  authentication.k8s.io: tokenreviews
  create  authorization.k8s.io: localsubjectaccessreviews subjectaccessreviews
  R  core: configmaps secrets services
  R,create,patch,update  core: nodes
  patch,update  core: nodes/status pods/status
  E  core: events
  R,create,delete  core: pods
  create  core: pods/eviction serviceaccounts/token
  get  core: endpoints persistentvolumeclaims persistentvolumes
  get,patch,update  core: persistentvolumeclaims/status
  R,create  certificates.k8s.io: certificatesigningrequests
  create,delete,get,patch,update  coordination.k8s.io: leases
  get  storage.k8s.io: volumeattachments
  R  storage.k8s.io: csidrivers
  create,delete,get,patch,update  storage.k8s.io: csinodes
  R  node.k8s.io: runtimeclasses
system:node-bootstrapper
  R,create  certificates.k8s.io: certificatesigningrequests
system:node-problem-detector
  get  core: nodes
  patch  core: nodes/status
  E  core,events.k8s.io: events
system:node-proxier
  list,watch  core: endpoints services
  R  core: nodes
  E  core,events.k8s.io: events
  list,watch  discovery.k8s.io: endpointslices
system:persistent-volume-provisioner
  R,create,delete  core: persistentvolumes
  R,update  core: persistentvolumeclaims
  R  storage.k8s.io: storageclasses
  watch  core: events
  E  core,events.k8s.io: events
system:public-info-viewer
  get  /healthz /livez /readyz /version /version/
system:service-account-issuer-discovery
  get  /.well-known/openid-configuration /openid/v1/jwks
system:volume-scheduler
  R,patch,update  core: persistentvolumeclaims persistentvolumes
  R  storage.k8s.io: storageclasses
"""

_ROLES: Final = """
kube-public/system:controller:bootstrap-signer
  R  core: configmaps
  update  core: configmaps (cluster-info)
  E  core,events.k8s.io: events
kube-system/extension-apiserver-authentication-reader
  R  core: configmaps (extension-apiserver-authentication)
kube-system/system::leader-locking-kube-controller-manager
  create,get,list,update,watch  coordination.k8s.io: leases leasecandidates
kube-system/system::leader-locking-kube-scheduler
  create,get,list,update,watch  coordination.k8s.io: leases leasecandidates
"""

#: binding, role, subjects: "g:" groups, "u:" users, "s:" service accounts
_BINDINGS: Final = """
cluster-admin  cluster-admin  g:system:masters
system:basic-user  system:basic-user  g:system:authenticated
system:discovery  system:discovery  g:system:authenticated
system:kube-controller-manager  system:kube-controller-manager  u:system:kube-controller-manager
system:kube-dns  system:kube-dns  s:kube-system/kube-dns
system:kube-scheduler  system:kube-scheduler  u:system:kube-scheduler
system:monitoring  system:monitoring  g:system:monitoring
system:node  system:node
system:node-proxier  system:node-proxier  u:system:kube-proxy
system:public-info-viewer  system:public-info-viewer  g:system:authenticated g:system:unauthenticated
system:service-account-issuer-discovery  system:service-account-issuer-discovery  g:system:serviceaccounts
system:volume-scheduler  system:volume-scheduler  u:system:kube-scheduler
kube-system/system::extension-apiserver-authentication-reader  extension-apiserver-authentication-reader  u:system:kube-controller-manager u:system:kube-scheduler
kube-system/system::leader-locking-kube-controller-manager  system::leader-locking-kube-controller-manager  u:system:kube-controller-manager s:kube-system/kube-controller-manager
kube-system/system::leader-locking-kube-scheduler  system::leader-locking-kube-scheduler  u:system:kube-scheduler s:kube-system/kube-scheduler
"""


def cluster_roles() -> Iterator[Object]:
    """Each default ClusterRole. Those that are joined from others have no rules yet."""
    for name, belongs in _AGGREGATED.items():
        selector = {"matchLabels": {f"{_AGGREGATE}{name}": "true"}}
        role = _object("ClusterRole", name, _labels(belongs))
        yield {**role, "aggregationRule": {"clusterRoleSelectors": [selector]}, "rules": []}
    for name, belongs, rules in _parsed(_CLUSTER_ROLES):
        yield {**_object("ClusterRole", name, _labels(belongs)), "rules": rules}


def roles() -> Iterator[Object]:
    """Each default Role."""
    for name, _, rules in _parsed(_ROLES):
        yield {**_object("Role", name, {}), "rules": rules}


def bindings() -> Iterator[Object]:
    """Each default ClusterRoleBinding and RoleBinding."""
    for line in _BINDINGS.split("\n"):
        if line:
            name, role, *subjects = line.split()
            kind = "Role" if "/" in name else "ClusterRole"
            ref = {"apiGroup": GROUP, "kind": kind, "name": role}
            one = {**_object(f"{kind}Binding", name, {}), "roleRef": ref}
            yield {**one, "subjects": [_subject(text) for text in subjects]} if subjects else one


def _labels(belongs: str) -> dict[str, str]:
    return {f"{_AGGREGATE}{belongs}": "true"} if belongs else {}


def _object(kind: str, name: str, labels: dict[str, str]) -> Object:
    place, separator, own = name.rpartition("/")
    metadata: Object = {"name": own if separator else name}
    if separator:
        metadata["namespace"] = place
    metadata |= {"labels": {_LABEL: "rbac-defaults", **labels}, "annotations": {AUTOUPDATE: "true"}}
    return {"kind": kind, "apiVersion": f"{GROUP}/v1", "metadata": metadata}


def _subject(text: str) -> Object:
    kind, _, name = text.partition(":")
    if kind == "s":
        namespace, _, account = name.partition("/")
        return {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    return {"kind": "Group" if kind == "g" else "User", "apiGroup": GROUP, "name": name}


def _parsed(table: str) -> Iterator[tuple[str, str, list[Object]]]:
    """Name, the role that it belongs to, rules."""
    name, belongs, rules = "", "", []
    for line in [*table.split("\n"), "-"]:
        if line.startswith("  "):
            rules.append(_rule(line))
        elif line:
            if name:
                yield name, belongs, rules
            head, _, belongs = line.partition(" > ")
            name, rules = head, []


def _rule(line: str) -> Object:
    verbs, what = line.split(None, 1)
    rule: Object = {"verbs": [one for verb in verbs.split(",") for one in _SHORT.get(verb, [verb])]}
    if what.startswith("/"):
        paths = what.split()
        return {**rule, "nonResourceURLs": ["*"] if paths == ["/*"] else paths}
    groups, _, rest = what.partition(": ")
    resources, _, names = rest.partition(" (")
    rule |= {"apiGroups": ["" if one == "core" else one for one in groups.split(",")], "resources": resources.split()}
    return {**rule, "resourceNames": names.rstrip(")").split()} if names else rule
