"""Validation of what runs pods: apps, batch, autoscaling, policy, ReplicationController, PodTemplate.

Errors  None raised: what is wrong goes into `Causes`.
Source  Rules and texts of kube-apiserver's validation of apps/v1, batch/v1, autoscaling/v2 and policy/v1.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from edgesite.kube import cronspec
from edgesite.kube.causes import NOT_NEGATIVE, Causes
from edgesite.kube.validation_meta import check_selector, selects
from edgesite.kube.validation_pod import check_pod_template
from edgesite.kube.validation_volume import check_claim_spec

__all__ = ["CHECKS", "UPDATES"]

Object = dict[str, Any]
_PERCENT: Final = re.compile("[0-9]+%")
_NO_PERCENT: Final = (
    "a valid percent string must be a numeric string followed by an ending '%' "
    "(e.g. '1%', or '93%', regex used for validation is '[0-9]+%')"
)
_STATEFUL_FORBIDDEN: Final = (
    "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', "
    "'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden"
)
_STATEFUL_CHANGEABLE: Final = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
)


def _selector(causes: Causes, spec: Object, kind: str) -> None:
    selector = spec.get("selector")
    if selector is None:
        causes.required("spec.selector")
        return
    check_selector(causes, "spec.selector", selector)
    if not selector.get("matchLabels") and not selector.get("matchExpressions"):
        causes.invalid("spec.selector", selector, f"empty selector is invalid for {kind}")
        return
    labels = spec.get("template", {}).get("metadata", {}).get("labels", {})
    if not selects(selector, labels):
        causes.invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")


def _template(causes: Causes, spec: Object, kind: str) -> None:
    template = spec.get("template", {})
    check_pod_template(causes, "spec.template", template)
    pod = template.get("spec", {})
    if pod.get("restartPolicy", "Always") != "Always":
        causes.not_supported("spec.template.spec.restartPolicy", pod["restartPolicy"], ("Always",))
    if "activeDeadlineSeconds" in pod:
        causes.forbidden(
            "spec.template.spec.activeDeadlineSeconds", f"activeDeadlineSeconds in {kind} is not Supported"
        )


def _not_negative(causes: Causes, spec: Object, *fields: str) -> None:
    for field in fields:
        causes.not_negative(f"spec.{field}", spec.get(field))


def _int_or_percent(causes: Causes, path: str, value: int | str | None) -> int:
    """Check and return the number before the percent sign, or the number."""
    if isinstance(value, str):
        if not _PERCENT.fullmatch(value):
            causes.invalid(path, value, _NO_PERCENT)
            return 1
        return int(value[:-1])
    if value is not None and value < 0:
        causes.invalid(path, value, NOT_NEGATIVE)
    return value or 0


def _not_above_100_percent(causes: Causes, path: str, value: int | str | None) -> None:
    if isinstance(value, str) and _PERCENT.fullmatch(value) and int(value[:-1]) > 100:
        causes.invalid(path, value, "must not be greater than 100%")


def _deployment(causes: Causes, obj: Object) -> None:
    spec = obj.get("spec", {})
    _not_negative(causes, spec, "replicas", "minReadySeconds", "revisionHistoryLimit", "progressDeadlineSeconds")
    _selector(causes, spec, "deployment")
    _template(causes, spec, "ReplicaSet")
    strategy = spec.get("strategy", {})
    kind, rolling = strategy.get("type"), strategy.get("rollingUpdate")
    causes.choice("spec.strategy.type", kind, ("Recreate", "RollingUpdate"))
    path = "spec.strategy.rollingUpdate"
    if kind == "Recreate" and rolling is not None:
        causes.forbidden(path, "may not be specified when strategy `type` is 'Recreate'")
    elif kind == "RollingUpdate" and rolling is None:
        causes.required(path, "this should be defaulted and never be nil")
    elif kind == "RollingUpdate" and rolling is not None:
        unavailable = _int_or_percent(causes, f"{path}.maxUnavailable", rolling.get("maxUnavailable"))
        surge = _int_or_percent(causes, f"{path}.maxSurge", rolling.get("maxSurge"))
        if unavailable == 0 and surge == 0:
            causes.invalid(f"{path}.maxUnavailable", rolling.get("maxUnavailable"), "may not be 0 when `maxSurge` is 0")
        _not_above_100_percent(causes, f"{path}.maxUnavailable", rolling.get("maxUnavailable"))
    progress = spec.get("progressDeadlineSeconds")
    if progress is not None and 0 <= progress <= spec.get("minReadySeconds", 0):
        causes.invalid("spec.progressDeadlineSeconds", progress, "must be greater than minReadySeconds")


def _replica_set(causes: Causes, obj: Object) -> None:
    spec = obj.get("spec", {})
    _not_negative(causes, spec, "replicas", "minReadySeconds")
    _selector(causes, spec, "replicaset")
    _template(causes, spec, "ReplicaSet")


def _replication_controller(causes: Causes, obj: Object) -> None:
    spec = obj.get("spec", {})
    _not_negative(causes, spec, "replicas", "minReadySeconds")
    selector = spec.get("selector") or {}
    labels = spec.get("template", {}).get("metadata", {}).get("labels", {})
    if not selector:
        causes.required("spec.selector")
    elif not selects({"matchLabels": selector}, labels):
        causes.invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")
    _template(causes, spec, "ReplicationController")


def _stateful_set(causes: Causes, obj: Object) -> None:
    spec = obj.get("spec", {})
    _not_negative(causes, spec, "replicas", "minReadySeconds", "revisionHistoryLimit")
    causes.choice("spec.podManagementPolicy", spec.get("podManagementPolicy"), ("OrderedReady", "Parallel"))
    strategy = spec.get("updateStrategy", {})
    kind = strategy.get("type")
    if kind not in ("OnDelete", "RollingUpdate"):
        causes.invalid("spec.updateStrategy", strategy, "must be 'RollingUpdate' or 'OnDelete'")
    rolling = strategy.get("rollingUpdate")
    if kind == "OnDelete" and rolling is not None:
        detail = "only allowed for updateStrategy 'RollingUpdate'"
        causes.invalid("spec.updateStrategy.rollingUpdate", rolling, detail)
    elif rolling is not None:
        causes.not_negative("spec.updateStrategy.rollingUpdate.partition", rolling.get("partition"))
    _selector(causes, spec, "statefulset")
    _template(causes, _with_claims(spec), "StatefulSet")
    for index, claim in enumerate(spec.get("volumeClaimTemplates", ())):
        check_claim_spec(causes, f"spec.volumeClaimTemplates[{index}].spec", claim.get("spec", {}))


def _with_claims(spec: Object) -> Object:
    """The spec as its pods will be: each claim template is a volume of that name, in place of the template's own."""
    names = [(one.get("metadata") or {}).get("name", "") for one in spec.get("volumeClaimTemplates") or ()]
    if not names:
        return spec
    template = spec.get("template") or {}
    pod = template.get("spec") or {}
    volumes = [one for one in pod.get("volumes") or () if one.get("name") not in names]
    volumes += [{"name": name, "persistentVolumeClaim": {"claimName": name}} for name in names]
    return {**spec, "template": {**template, "spec": {**pod, "volumes": volumes}}}


def _daemon_set(causes: Causes, obj: Object) -> None:
    spec = obj.get("spec", {})
    _not_negative(causes, spec, "minReadySeconds", "revisionHistoryLimit")
    _selector(causes, spec, "daemonset")
    _template(causes, spec, "DaemonSet")
    strategy = spec.get("updateStrategy", {})
    kind = strategy.get("type")
    if kind not in ("OnDelete", "RollingUpdate"):
        causes.not_supported("spec.updateStrategy.type", kind, ("OnDelete", "RollingUpdate"))
    elif kind == "RollingUpdate":
        path, rolling = "spec.updateStrategy.rollingUpdate", strategy.get("rollingUpdate", {})
        unavailable = _int_or_percent(causes, f"{path}.maxUnavailable", rolling.get("maxUnavailable"))
        surge = _int_or_percent(causes, f"{path}.maxSurge", rolling.get("maxSurge"))
        if unavailable and surge:
            causes.invalid(
                f"{path}.maxSurge", rolling.get("maxSurge"), "may not be set when maxUnavailable is non-zero"
            )
        elif not unavailable and not surge:
            detail = "cannot be 0 when maxSurge is 0"
            causes.invalid(f"{path}.maxUnavailable", rolling.get("maxUnavailable"), detail)


def _job(causes: Causes, obj: Object) -> None:
    _job_spec(causes, "spec", obj.get("spec", {}))
    spec = obj.get("spec", {})
    selector = spec.get("selector")
    if selector is None:
        causes.required("spec.selector")
        return
    check_selector(causes, "spec.selector", selector)
    labels = spec.get("template", {}).get("metadata", {}).get("labels", {})
    if not selects(selector, labels):
        causes.invalid("spec.template.metadata.labels", labels, "`selector` does not match template `labels`")


_JOB_NUMBERS: Final = ("parallelism", "completions", "activeDeadlineSeconds", "backoffLimit", "ttlSecondsAfterFinished")


def _job_spec(causes: Causes, path: str, spec: Object) -> None:
    for field in _JOB_NUMBERS:
        causes.not_negative(f"{path}.{field}", spec.get(field))
    mode = spec.get("completionMode")
    if mode is not None and mode not in ("Indexed", "NonIndexed"):
        causes.not_supported(f"{path}.completionMode", mode, ("Indexed", "NonIndexed"))
    if mode == "Indexed" and "completions" not in spec:
        causes.required(f"{path}.completions", "when completion mode is Indexed")
    if "backoffLimitPerIndex" in spec and mode != "Indexed":
        causes.invalid(f"{path}.backoffLimitPerIndex", spec["backoffLimitPerIndex"], "requires indexed completion mode")
    template = spec.get("template", {})
    check_pod_template(causes, f"{path}.template", template)
    restart = template.get("spec", {}).get("restartPolicy", "")
    if restart in ("", "Always"):
        # "Always" is the default of pods, so the one who left it out is told what there is to choose from.
        causes.required(f"{path}.template.spec.restartPolicy", 'valid values: "OnFailure", "Never"')
    elif restart not in ("Never", "OnFailure"):
        causes.not_supported(f"{path}.template.spec.restartPolicy", restart, ("OnFailure", "Never"))
    if spec.get("podFailurePolicy") is not None and restart != "Never":
        detail = 'only "Never" is supported when podFailurePolicy is specified'
        causes.invalid(f"{path}.template.spec.restartPolicy", restart, detail)


def _cron_job(causes: Causes, obj: Object) -> None:
    spec = obj.get("spec", {})
    schedule = spec.get("schedule", "")
    if not schedule:
        causes.required("spec.schedule")
    else:
        problem = cronspec.problem(schedule)
        if problem:
            causes.invalid("spec.schedule", schedule, problem)
    zone = spec.get("timeZone")
    if zone is not None and not zone:
        causes.invalid("spec.timeZone", zone, "timeZone must be nil or non-empty string")
    _not_negative(causes, spec, "startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit")
    causes.choice("spec.concurrencyPolicy", spec.get("concurrencyPolicy"), ("Allow", "Forbid", "Replace"))
    job = spec.get("jobTemplate", {}).get("spec", {})
    _job_spec(causes, "spec.jobTemplate.spec", job)
    if job.get("manualSelector"):
        causes.not_supported("spec.jobTemplate.spec.manualSelector", True, ("nil", "false"))
    if len(obj.get("metadata", {}).get("name", "")) > 52:
        causes.invalid("metadata.name", obj["metadata"]["name"], "must be no more than 52 characters")


def _autoscaler(causes: Causes, obj: Object) -> None:
    spec = obj.get("spec", {})
    low, high = spec.get("minReplicas"), spec.get("maxReplicas", 0)
    if low is not None and low < 1:
        causes.invalid("spec.minReplicas", low, "must be greater than or equal to 1")
    if high < 1:
        causes.invalid("spec.maxReplicas", high, "must be greater than 0")
    elif low is not None and high < low:
        causes.invalid("spec.maxReplicas", high, "must be greater than or equal to `minReplicas`")
    target = spec.get("scaleTargetRef", {})
    for field in ("kind", "name"):
        if not target.get(field):
            causes.required(f"spec.scaleTargetRef.{field}")
    kinds = ("ContainerResource", "External", "Object", "Pods", "Resource")
    for index, metric in enumerate(spec.get("metrics", ())):
        path, kind = f"spec.metrics[{index}]", metric.get("type", "")
        if not kind:
            causes.required(f"{path}.type", "must specify a metric source type")
        elif kind not in kinds:
            causes.not_supported(f"{path}.type", kind, kinds)
        elif kind[0].lower() + kind[1:] not in metric:
            causes.required(
                f"{path}.{kind[0].lower()}{kind[1:]}", "must populate information for the given metric source"
            )


def _disruption_budget(causes: Causes, obj: Object) -> None:
    spec = obj.get("spec", {})
    if "minAvailable" in spec and "maxUnavailable" in spec:
        causes.invalid("spec", spec, "minAvailable and maxUnavailable cannot be both set")
    for field in ("minAvailable", "maxUnavailable"):
        _int_or_percent(causes, f"spec.{field}", spec.get(field))
        _not_above_100_percent(causes, f"spec.{field}", spec.get(field))
    check_selector(causes, "spec.selector", spec.get("selector"))
    policy = spec.get("unhealthyPodEvictionPolicy")
    choices = ("AlwaysAllow", "IfHealthyBudget")
    if policy is not None and policy not in choices:
        causes.not_supported("spec.unhealthyPodEvictionPolicy", policy, choices)


def _pod_template(causes: Causes, obj: Object) -> None:
    check_pod_template(causes, "template", obj.get("template", {}))


def _selector_update(causes: Causes, new: Object, old: Object) -> None:
    causes.unchanged("spec.selector", new.get("spec", {}).get("selector"), old.get("spec", {}).get("selector"))


def _stateful_update(causes: Causes, new: Object, old: Object) -> None:
    def rest(obj: Object) -> Object:
        return {name: value for name, value in obj.get("spec", {}).items() if name not in _STATEFUL_CHANGEABLE}

    if rest(new) != rest(old):
        causes.forbidden("spec", _STATEFUL_FORBIDDEN)


def _job_update(causes: Causes, new: Object, old: Object) -> None:
    after, before = new.get("spec", {}), old.get("spec", {})
    if after.get("completionMode") != "Indexed" or after.get("completions") != after.get("parallelism"):
        causes.unchanged("spec.completions", after.get("completions"), before.get("completions"))
    _selector_update(causes, new, old)
    if not before.get("suspend") or old.get("status", {}).get("startTime"):
        causes.unchanged("spec.template", after.get("template"), before.get("template"))
    for field in ("completionMode", "podFailurePolicy", "backoffLimitPerIndex"):
        causes.unchanged(f"spec.{field}", after.get(field), before.get(field))


Check = Callable[[Causes, Object], None]
Update = Callable[[Causes, Object, Object], None]

CHECKS: Final[dict[tuple[str, str], Check]] = {
    ("", "PodTemplate"): _pod_template,
    ("", "ReplicationController"): _replication_controller,
    ("apps", "DaemonSet"): _daemon_set,
    ("apps", "Deployment"): _deployment,
    ("apps", "ReplicaSet"): _replica_set,
    ("apps", "StatefulSet"): _stateful_set,
    ("autoscaling", "HorizontalPodAutoscaler"): _autoscaler,
    ("batch", "CronJob"): _cron_job,
    ("batch", "Job"): _job,
    ("policy", "PodDisruptionBudget"): _disruption_budget,
}
UPDATES: Final[dict[tuple[str, str], Update]] = {
    ("apps", "DaemonSet"): _selector_update,
    ("apps", "Deployment"): _selector_update,
    ("apps", "ReplicaSet"): _selector_update,
    ("apps", "StatefulSet"): _stateful_update,
    ("batch", "Job"): _job_update,
}
