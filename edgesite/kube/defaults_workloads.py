"""Defaults of what runs pods: apps, batch, autoscaling, ReplicationController, PodTemplate.

Source  Defaults of apps/v1, batch/v1, autoscaling/v1 and v2 in kube-apiserver 1.36 (values only).
"""

from __future__ import annotations

from typing import Any, Final

from edgesite.kube.defaults_pod import claim_spec_defaults, fill, pod_spec_defaults

__all__ = ["DEFAULTS", "OTHER_VERSIONS", "add_job_selector"]

Object = dict[str, Any]
_NO_LIMIT: Final = 2**31 - 1


def _template(spec: Object) -> Object:
    """Default the pod template in ``spec`` and return it."""
    template: Object = spec.setdefault("template", {})
    template.setdefault("metadata", {})
    pod_spec_defaults(template.setdefault("spec", {}))
    return template


def _deployment(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    fill(spec, replicas=1, revisionHistoryLimit=10, progressDeadlineSeconds=600)
    strategy = spec.setdefault("strategy", {})
    fill(strategy, type="RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        fill(strategy.setdefault("rollingUpdate", {}), maxUnavailable="25%", maxSurge="25%")
    _template(spec)
    obj.setdefault("status", {})


def _replica_set(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    fill(spec, replicas=1)
    _template(spec)
    obj.setdefault("status", {"replicas": 0})


def _replication_controller(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    fill(spec, replicas=1)
    labels = _template(spec)["metadata"].get("labels")
    if labels:
        spec.setdefault("selector", dict(labels))
        obj["metadata"].setdefault("labels", dict(labels))
    obj.setdefault("status", {"replicas": 0})


def _stateful_set(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    fill(spec, podManagementPolicy="OrderedReady", replicas=1, revisionHistoryLimit=10)
    strategy = spec.setdefault("updateStrategy", {})
    fill(strategy, type="RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        fill(strategy.setdefault("rollingUpdate", {}), partition=0)
    fill(spec.setdefault("persistentVolumeClaimRetentionPolicy", {}), whenDeleted="Retain", whenScaled="Retain")
    for claim in spec.get("volumeClaimTemplates", ()):
        fill(claim, apiVersion="v1", kind="PersistentVolumeClaim")
        claim_spec_defaults(claim.setdefault("spec", {}))
        fill(claim.setdefault("status", {}), phase="Pending")
    _template(spec)
    obj.setdefault("status", {"replicas": 0})


def _daemon_set(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    fill(spec, revisionHistoryLimit=10)
    strategy = spec.setdefault("updateStrategy", {})
    fill(strategy, type="RollingUpdate")
    if strategy["type"] == "RollingUpdate":
        fill(strategy.setdefault("rollingUpdate", {}), maxUnavailable=1, maxSurge=0)
    _template(spec)
    zeros = dict.fromkeys(("currentNumberScheduled", "desiredNumberScheduled", "numberMisscheduled", "numberReady"), 0)
    obj.setdefault("status", zeros)


def _job(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    if "completions" not in spec and "parallelism" not in spec:
        spec["completions"] = 1
    fill(spec, parallelism=1, completionMode="NonIndexed", suspend=False, manualSelector=False)
    fill(spec, backoffLimit=_NO_LIMIT if "backoffLimitPerIndex" in spec else 6)
    failure_policy = spec.get("podFailurePolicy")
    fill(spec, podReplacementPolicy="Failed" if failure_policy else "TerminatingOrFailed")
    for rule in (failure_policy or {}).get("rules", ()):
        for condition in rule.get("onPodConditions", ()):
            fill(condition, status="True")
    labels = _template(spec)["metadata"].get("labels")
    if labels and not obj["metadata"].get("labels"):
        obj["metadata"]["labels"] = dict(labels)
    obj.setdefault("status", {})


def add_job_selector(job: Object) -> None:
    """Give a new Job, which has its uid already, the selector and labels by which it knows its pods, unless told not to."""
    spec, meta = job["spec"], job["metadata"]
    if spec.get("manualSelector"):
        return
    prefix = "batch.kubernetes.io/"
    labels = spec["template"].setdefault("metadata", {}).setdefault("labels", {})
    for name, value in (("controller-uid", meta["uid"]), ("job-name", meta["name"])):
        labels.setdefault(name, value)
        labels.setdefault(prefix + name, value)
    spec["selector"] = {"matchLabels": {f"{prefix}controller-uid": meta["uid"]}}
    if not meta.get("labels"):
        meta["labels"] = dict(labels)


def _cron_job(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    fill(
        spec,
        concurrencyPolicy="Allow",
        suspend=False,
        successfulJobsHistoryLimit=3,
        failedJobsHistoryLimit=1,
    )
    template = spec.setdefault("jobTemplate", {})
    template.setdefault("metadata", {})
    _template(template.setdefault("spec", {}))
    obj.setdefault("status", {})


def _autoscaler_v1(obj: Object) -> None:
    fill(obj.setdefault("spec", {}), minReplicas=1)
    obj.setdefault("status", {"currentReplicas": 0, "desiredReplicas": 0})


def _autoscaler_v2(obj: Object) -> None:
    spec = obj.setdefault("spec", {})
    fill(spec, minReplicas=1)
    if not spec.get("metrics"):
        target = {"type": "Utilization", "averageUtilization": 80}
        spec["metrics"] = [{"type": "Resource", "resource": {"name": "cpu", "target": target}}]
    behavior = spec.get("behavior")
    if behavior is not None:
        whole = {"type": "Percent", "value": 100, "periodSeconds": 15}
        up = behavior.setdefault("scaleUp", {})
        fill(up, stabilizationWindowSeconds=0, selectPolicy="Max")
        fill(up, policies=[{"type": "Pods", "value": 4, "periodSeconds": 15}, whole])
        fill(behavior.setdefault("scaleDown", {}), selectPolicy="Max", policies=[dict(whole)])
    obj.setdefault("status", {"desiredReplicas": 0})


def _pod_template(obj: Object) -> None:
    _template(obj)


DEFAULTS: Final = {
    ("", "PodTemplate"): _pod_template,
    ("", "ReplicationController"): _replication_controller,
    ("apps", "DaemonSet"): _daemon_set,
    ("apps", "Deployment"): _deployment,
    ("apps", "ReplicaSet"): _replica_set,
    ("apps", "StatefulSet"): _stateful_set,
    ("autoscaling", "HorizontalPodAutoscaler"): _autoscaler_v2,
    ("batch", "CronJob"): _cron_job,
    ("batch", "Job"): _job,
}
#: Kinds whose defaults differ from those of the group's preferred version.
OTHER_VERSIONS: Final = {("autoscaling", "v1", "HorizontalPodAutoscaler"): _autoscaler_v1}
