"""The protobuf form of Kubernetes' kinds: field numbers and types, one message in a line, for `edgesite.kube.protowire`.

Message names are those of Kubernetes' packages without their common prefix ("core.v1.Pod"). A member whose name begins with ``inline_`` is
a message of its own on the wire whose members stand in its parent in JSON. Data only; `protobuf` reads it.

Source  k8s.io/api and k8s.io/apimachinery v0.32, ``generated.proto`` (names, numbers, types).
"""

from typing import Final

__all__ = ["TEXT"]

TEXT: Final = """\
admissionregistration.v1.AuditAnnotation: key string = 1; valueExpression string = 2
admissionregistration.v1.ExpressionWarning: fieldRef string = 2; warning string = 3
admissionregistration.v1.MatchCondition: name string = 1; expression string = 2
admissionregistration.v1.MatchResources: namespaceSelector meta.v1.LabelSelector = 1; objectSelector meta.v1.LabelSelector = 2; resourceRules repeated admissionregistration.v1.NamedRuleWithOperations = 3; excludeResourceRules repeated admissionregistration.v1.NamedRuleWithOperations = 4; matchPolicy string = 7
admissionregistration.v1.MutatingWebhook: name string = 1; clientConfig admissionregistration.v1.WebhookClientConfig = 2; rules repeated admissionregistration.v1.RuleWithOperations = 3; failurePolicy string = 4; namespaceSelector meta.v1.LabelSelector = 5; sideEffects string = 6; timeoutSeconds int32 = 7; admissionReviewVersions repeated string = 8; matchPolicy string = 9; reinvocationPolicy string = 10; objectSelector meta.v1.LabelSelector = 11; matchConditions repeated admissionregistration.v1.MatchCondition = 12
admissionregistration.v1.MutatingWebhookConfiguration: metadata meta.v1.ObjectMeta = 1; webhooks repeated admissionregistration.v1.MutatingWebhook = 2
admissionregistration.v1.NamedRuleWithOperations: resourceNames repeated string = 1; inline_ruleWithOperations admissionregistration.v1.RuleWithOperations = 2
admissionregistration.v1.ParamKind: apiVersion string = 1; kind string = 2
admissionregistration.v1.ParamRef: name string = 1; namespace string = 2; selector meta.v1.LabelSelector = 3; parameterNotFoundAction string = 4
admissionregistration.v1.Rule: apiGroups repeated string = 1; apiVersions repeated string = 2; resources repeated string = 3; scope string = 4
admissionregistration.v1.RuleWithOperations: operations repeated string = 1; inline_rule admissionregistration.v1.Rule = 2
admissionregistration.v1.ServiceReference: namespace string = 1; name string = 2; path string = 3; port int32 = 4
admissionregistration.v1.TypeChecking: expressionWarnings repeated admissionregistration.v1.ExpressionWarning = 1
admissionregistration.v1.ValidatingAdmissionPolicy: metadata meta.v1.ObjectMeta = 1; spec admissionregistration.v1.ValidatingAdmissionPolicySpec = 2; status admissionregistration.v1.ValidatingAdmissionPolicyStatus = 3
admissionregistration.v1.ValidatingAdmissionPolicyBinding: metadata meta.v1.ObjectMeta = 1; spec admissionregistration.v1.ValidatingAdmissionPolicyBindingSpec = 2
admissionregistration.v1.ValidatingAdmissionPolicyBindingSpec: policyName string = 1; paramRef admissionregistration.v1.ParamRef = 2; matchResources admissionregistration.v1.MatchResources = 3; validationActions repeated string = 4
admissionregistration.v1.ValidatingAdmissionPolicySpec: paramKind admissionregistration.v1.ParamKind = 1; matchConstraints admissionregistration.v1.MatchResources = 2; validations repeated admissionregistration.v1.Validation = 3; failurePolicy string = 4; auditAnnotations repeated admissionregistration.v1.AuditAnnotation = 5; matchConditions repeated admissionregistration.v1.MatchCondition = 6; variables repeated admissionregistration.v1.Variable = 7
admissionregistration.v1.ValidatingAdmissionPolicyStatus: observedGeneration int64 = 1; typeChecking admissionregistration.v1.TypeChecking = 2; conditions repeated meta.v1.Condition = 3
admissionregistration.v1.ValidatingWebhook: name string = 1; clientConfig admissionregistration.v1.WebhookClientConfig = 2; rules repeated admissionregistration.v1.RuleWithOperations = 3; failurePolicy string = 4; namespaceSelector meta.v1.LabelSelector = 5; sideEffects string = 6; timeoutSeconds int32 = 7; admissionReviewVersions repeated string = 8; matchPolicy string = 9; objectSelector meta.v1.LabelSelector = 10; matchConditions repeated admissionregistration.v1.MatchCondition = 11
admissionregistration.v1.ValidatingWebhookConfiguration: metadata meta.v1.ObjectMeta = 1; webhooks repeated admissionregistration.v1.ValidatingWebhook = 2
admissionregistration.v1.Validation: expression string = 1; message string = 2; reason string = 3; messageExpression string = 4
admissionregistration.v1.Variable: name string = 1; expression string = 2
admissionregistration.v1.WebhookClientConfig: service admissionregistration.v1.ServiceReference = 1; caBundle bytes = 2; url string = 3
apps.v1.ControllerRevision: metadata meta.v1.ObjectMeta = 1; data runtime.RawExtension = 2; revision int64 = 3
apps.v1.DaemonSet: metadata meta.v1.ObjectMeta = 1; spec apps.v1.DaemonSetSpec = 2; status apps.v1.DaemonSetStatus = 3
apps.v1.DaemonSetCondition: type string = 1; status string = 2; lastTransitionTime meta.v1.Time = 3; reason string = 4; message string = 5
apps.v1.DaemonSetSpec: selector meta.v1.LabelSelector = 1; template core.v1.PodTemplateSpec = 2; updateStrategy apps.v1.DaemonSetUpdateStrategy = 3; minReadySeconds int32 = 4; revisionHistoryLimit int32 = 6
apps.v1.DaemonSetStatus: currentNumberScheduled int32 = 1; numberMisscheduled int32 = 2; desiredNumberScheduled int32 = 3; numberReady int32 = 4; observedGeneration int64 = 5; updatedNumberScheduled int32 = 6; numberAvailable int32 = 7; numberUnavailable int32 = 8; collisionCount int32 = 9; conditions repeated apps.v1.DaemonSetCondition = 10
apps.v1.DaemonSetUpdateStrategy: type string = 1; rollingUpdate apps.v1.RollingUpdateDaemonSet = 2
apps.v1.Deployment: metadata meta.v1.ObjectMeta = 1; spec apps.v1.DeploymentSpec = 2; status apps.v1.DeploymentStatus = 3
apps.v1.DeploymentCondition: type string = 1; status string = 2; reason string = 4; message string = 5; lastUpdateTime meta.v1.Time = 6; lastTransitionTime meta.v1.Time = 7
apps.v1.DeploymentSpec: replicas int32 = 1; selector meta.v1.LabelSelector = 2; template core.v1.PodTemplateSpec = 3; strategy apps.v1.DeploymentStrategy = 4; minReadySeconds int32 = 5; revisionHistoryLimit int32 = 6; paused bool = 7; progressDeadlineSeconds int32 = 9
apps.v1.DeploymentStatus: observedGeneration int64 = 1; replicas int32 = 2; updatedReplicas int32 = 3; availableReplicas int32 = 4; unavailableReplicas int32 = 5; conditions repeated apps.v1.DeploymentCondition = 6; readyReplicas int32 = 7; collisionCount int32 = 8
apps.v1.DeploymentStrategy: type string = 1; rollingUpdate apps.v1.RollingUpdateDeployment = 2
apps.v1.ReplicaSet: metadata meta.v1.ObjectMeta = 1; spec apps.v1.ReplicaSetSpec = 2; status apps.v1.ReplicaSetStatus = 3
apps.v1.ReplicaSetCondition: type string = 1; status string = 2; lastTransitionTime meta.v1.Time = 3; reason string = 4; message string = 5
apps.v1.ReplicaSetSpec: replicas int32 = 1; selector meta.v1.LabelSelector = 2; template core.v1.PodTemplateSpec = 3; minReadySeconds int32 = 4
apps.v1.ReplicaSetStatus: replicas int32 = 1; fullyLabeledReplicas int32 = 2; observedGeneration int64 = 3; readyReplicas int32 = 4; availableReplicas int32 = 5; conditions repeated apps.v1.ReplicaSetCondition = 6
apps.v1.RollingUpdateDaemonSet: maxUnavailable util.intstr.IntOrString = 1; maxSurge util.intstr.IntOrString = 2
apps.v1.RollingUpdateDeployment: maxUnavailable util.intstr.IntOrString = 1; maxSurge util.intstr.IntOrString = 2
apps.v1.RollingUpdateStatefulSetStrategy: partition int32 = 1; maxUnavailable util.intstr.IntOrString = 2
apps.v1.StatefulSet: metadata meta.v1.ObjectMeta = 1; spec apps.v1.StatefulSetSpec = 2; status apps.v1.StatefulSetStatus = 3
apps.v1.StatefulSetCondition: type string = 1; status string = 2; lastTransitionTime meta.v1.Time = 3; reason string = 4; message string = 5
apps.v1.StatefulSetOrdinals: start int32 = 1
apps.v1.StatefulSetPersistentVolumeClaimRetentionPolicy: whenDeleted string = 1; whenScaled string = 2
apps.v1.StatefulSetSpec: replicas int32 = 1; selector meta.v1.LabelSelector = 2; template core.v1.PodTemplateSpec = 3; volumeClaimTemplates repeated core.v1.PersistentVolumeClaim = 4; serviceName string = 5; podManagementPolicy string = 6; updateStrategy apps.v1.StatefulSetUpdateStrategy = 7; revisionHistoryLimit int32 = 8; minReadySeconds int32 = 9; persistentVolumeClaimRetentionPolicy apps.v1.StatefulSetPersistentVolumeClaimRetentionPolicy = 10; ordinals apps.v1.StatefulSetOrdinals = 11
apps.v1.StatefulSetStatus: observedGeneration int64 = 1; replicas int32 = 2; readyReplicas int32 = 3; currentReplicas int32 = 4; updatedReplicas int32 = 5; currentRevision string = 6; updateRevision string = 7; collisionCount int32 = 9; conditions repeated apps.v1.StatefulSetCondition = 10; availableReplicas int32 = 11
apps.v1.StatefulSetUpdateStrategy: type string = 1; rollingUpdate apps.v1.RollingUpdateStatefulSetStrategy = 2
authentication.v1.BoundObjectReference: kind string = 1; apiVersion string = 2; name string = 3; uid string = 4
authentication.v1.ExtraValue: items repeated string = 1
authentication.v1.SelfSubjectReview: metadata meta.v1.ObjectMeta = 1; status authentication.v1.SelfSubjectReviewStatus = 2
authentication.v1.SelfSubjectReviewStatus: userInfo authentication.v1.UserInfo = 1
authentication.v1.TokenRequest: metadata meta.v1.ObjectMeta = 1; spec authentication.v1.TokenRequestSpec = 2; status authentication.v1.TokenRequestStatus = 3
authentication.v1.TokenRequestSpec: audiences repeated string = 1; boundObjectRef authentication.v1.BoundObjectReference = 3; expirationSeconds int64 = 4
authentication.v1.TokenRequestStatus: token string = 1; expirationTimestamp meta.v1.Time = 2
authentication.v1.TokenReview: metadata meta.v1.ObjectMeta = 1; spec authentication.v1.TokenReviewSpec = 2; status authentication.v1.TokenReviewStatus = 3
authentication.v1.TokenReviewSpec: token string = 1; audiences repeated string = 2
authentication.v1.TokenReviewStatus: authenticated bool = 1; user authentication.v1.UserInfo = 2; error string = 3; audiences repeated string = 4
authentication.v1.UserInfo: username string = 1; uid string = 2; groups repeated string = 3; extra map<string, authentication.v1.ExtraValue> = 4
authorization.v1.ExtraValue: items repeated string = 1
authorization.v1.FieldSelectorAttributes: rawSelector string = 1; requirements repeated meta.v1.FieldSelectorRequirement = 2
authorization.v1.LabelSelectorAttributes: rawSelector string = 1; requirements repeated meta.v1.LabelSelectorRequirement = 2
authorization.v1.LocalSubjectAccessReview: metadata meta.v1.ObjectMeta = 1; spec authorization.v1.SubjectAccessReviewSpec = 2; status authorization.v1.SubjectAccessReviewStatus = 3
authorization.v1.NonResourceAttributes: path string = 1; verb string = 2
authorization.v1.NonResourceRule: verbs repeated string = 1; nonResourceURLs repeated string = 2
authorization.v1.ResourceAttributes: namespace string = 1; verb string = 2; group string = 3; version string = 4; resource string = 5; subresource string = 6; name string = 7; fieldSelector authorization.v1.FieldSelectorAttributes = 8; labelSelector authorization.v1.LabelSelectorAttributes = 9
authorization.v1.ResourceRule: verbs repeated string = 1; apiGroups repeated string = 2; resources repeated string = 3; resourceNames repeated string = 4
authorization.v1.SelfSubjectAccessReview: metadata meta.v1.ObjectMeta = 1; spec authorization.v1.SelfSubjectAccessReviewSpec = 2; status authorization.v1.SubjectAccessReviewStatus = 3
authorization.v1.SelfSubjectAccessReviewSpec: resourceAttributes authorization.v1.ResourceAttributes = 1; nonResourceAttributes authorization.v1.NonResourceAttributes = 2
authorization.v1.SelfSubjectRulesReview: metadata meta.v1.ObjectMeta = 1; spec authorization.v1.SelfSubjectRulesReviewSpec = 2; status authorization.v1.SubjectRulesReviewStatus = 3
authorization.v1.SelfSubjectRulesReviewSpec: namespace string = 1
authorization.v1.SubjectAccessReview: metadata meta.v1.ObjectMeta = 1; spec authorization.v1.SubjectAccessReviewSpec = 2; status authorization.v1.SubjectAccessReviewStatus = 3
authorization.v1.SubjectAccessReviewSpec: resourceAttributes authorization.v1.ResourceAttributes = 1; nonResourceAttributes authorization.v1.NonResourceAttributes = 2; user string = 3; groups repeated string = 4; extra map<string, authorization.v1.ExtraValue> = 5; uid string = 6
authorization.v1.SubjectAccessReviewStatus: allowed bool = 1; reason string = 2; evaluationError string = 3; denied bool = 4
authorization.v1.SubjectRulesReviewStatus: resourceRules repeated authorization.v1.ResourceRule = 1; nonResourceRules repeated authorization.v1.NonResourceRule = 2; incomplete bool = 3; evaluationError string = 4
autoscaling.v1.ContainerResourceMetricSource: name string = 1; targetAverageUtilization int32 = 2; targetAverageValue resource.Quantity = 3; container string = 5
autoscaling.v1.ContainerResourceMetricStatus: name string = 1; currentAverageUtilization int32 = 2; currentAverageValue resource.Quantity = 3; container string = 4
autoscaling.v1.CrossVersionObjectReference: kind string = 1; name string = 2; apiVersion string = 3
autoscaling.v1.ExternalMetricSource: metricName string = 1; metricSelector meta.v1.LabelSelector = 2; targetValue resource.Quantity = 3; targetAverageValue resource.Quantity = 4
autoscaling.v1.ExternalMetricStatus: metricName string = 1; metricSelector meta.v1.LabelSelector = 2; currentValue resource.Quantity = 3; currentAverageValue resource.Quantity = 4
autoscaling.v1.HorizontalPodAutoscaler: metadata meta.v1.ObjectMeta = 1; spec autoscaling.v1.HorizontalPodAutoscalerSpec = 2; status autoscaling.v1.HorizontalPodAutoscalerStatus = 3
autoscaling.v1.HorizontalPodAutoscalerCondition: type string = 1; status string = 2; lastTransitionTime meta.v1.Time = 3; reason string = 4; message string = 5
autoscaling.v1.HorizontalPodAutoscalerSpec: scaleTargetRef autoscaling.v1.CrossVersionObjectReference = 1; minReplicas int32 = 2; maxReplicas int32 = 3; targetCPUUtilizationPercentage int32 = 4
autoscaling.v1.HorizontalPodAutoscalerStatus: observedGeneration int64 = 1; lastScaleTime meta.v1.Time = 2; currentReplicas int32 = 3; desiredReplicas int32 = 4; currentCPUUtilizationPercentage int32 = 5
autoscaling.v1.MetricSpec: type string = 1; object autoscaling.v1.ObjectMetricSource = 2; pods autoscaling.v1.PodsMetricSource = 3; resource autoscaling.v1.ResourceMetricSource = 4; external autoscaling.v1.ExternalMetricSource = 5; containerResource autoscaling.v1.ContainerResourceMetricSource = 7
autoscaling.v1.MetricStatus: type string = 1; object autoscaling.v1.ObjectMetricStatus = 2; pods autoscaling.v1.PodsMetricStatus = 3; resource autoscaling.v1.ResourceMetricStatus = 4; external autoscaling.v1.ExternalMetricStatus = 5; containerResource autoscaling.v1.ContainerResourceMetricStatus = 7
autoscaling.v1.ObjectMetricSource: target autoscaling.v1.CrossVersionObjectReference = 1; metricName string = 2; targetValue resource.Quantity = 3; selector meta.v1.LabelSelector = 4; averageValue resource.Quantity = 5
autoscaling.v1.ObjectMetricStatus: target autoscaling.v1.CrossVersionObjectReference = 1; metricName string = 2; currentValue resource.Quantity = 3; selector meta.v1.LabelSelector = 4; averageValue resource.Quantity = 5
autoscaling.v1.PodsMetricSource: metricName string = 1; targetAverageValue resource.Quantity = 2; selector meta.v1.LabelSelector = 3
autoscaling.v1.PodsMetricStatus: metricName string = 1; currentAverageValue resource.Quantity = 2; selector meta.v1.LabelSelector = 3
autoscaling.v1.ResourceMetricSource: name string = 1; targetAverageUtilization int32 = 2; targetAverageValue resource.Quantity = 3
autoscaling.v1.ResourceMetricStatus: name string = 1; currentAverageUtilization int32 = 2; currentAverageValue resource.Quantity = 3
autoscaling.v1.Scale: metadata meta.v1.ObjectMeta = 1; spec autoscaling.v1.ScaleSpec = 2; status autoscaling.v1.ScaleStatus = 3
autoscaling.v1.ScaleSpec: replicas int32 = 1
autoscaling.v1.ScaleStatus: replicas int32 = 1; selector string = 2
autoscaling.v2.ContainerResourceMetricSource: name string = 1; target autoscaling.v2.MetricTarget = 2; container string = 3
autoscaling.v2.ContainerResourceMetricStatus: name string = 1; current autoscaling.v2.MetricValueStatus = 2; container string = 3
autoscaling.v2.CrossVersionObjectReference: kind string = 1; name string = 2; apiVersion string = 3
autoscaling.v2.ExternalMetricSource: metric autoscaling.v2.MetricIdentifier = 1; target autoscaling.v2.MetricTarget = 2
autoscaling.v2.ExternalMetricStatus: metric autoscaling.v2.MetricIdentifier = 1; current autoscaling.v2.MetricValueStatus = 2
autoscaling.v2.HPAScalingPolicy: type string = 1; value int32 = 2; periodSeconds int32 = 3
autoscaling.v2.HPAScalingRules: selectPolicy string = 1; policies repeated autoscaling.v2.HPAScalingPolicy = 2; stabilizationWindowSeconds int32 = 3
autoscaling.v2.HorizontalPodAutoscaler: metadata meta.v1.ObjectMeta = 1; spec autoscaling.v2.HorizontalPodAutoscalerSpec = 2; status autoscaling.v2.HorizontalPodAutoscalerStatus = 3
autoscaling.v2.HorizontalPodAutoscalerBehavior: scaleUp autoscaling.v2.HPAScalingRules = 1; scaleDown autoscaling.v2.HPAScalingRules = 2
autoscaling.v2.HorizontalPodAutoscalerCondition: type string = 1; status string = 2; lastTransitionTime meta.v1.Time = 3; reason string = 4; message string = 5
autoscaling.v2.HorizontalPodAutoscalerSpec: scaleTargetRef autoscaling.v2.CrossVersionObjectReference = 1; minReplicas int32 = 2; maxReplicas int32 = 3; metrics repeated autoscaling.v2.MetricSpec = 4; behavior autoscaling.v2.HorizontalPodAutoscalerBehavior = 5
autoscaling.v2.HorizontalPodAutoscalerStatus: observedGeneration int64 = 1; lastScaleTime meta.v1.Time = 2; currentReplicas int32 = 3; desiredReplicas int32 = 4; currentMetrics repeated autoscaling.v2.MetricStatus = 5; conditions repeated autoscaling.v2.HorizontalPodAutoscalerCondition = 6
autoscaling.v2.MetricIdentifier: name string = 1; selector meta.v1.LabelSelector = 2
autoscaling.v2.MetricSpec: type string = 1; object autoscaling.v2.ObjectMetricSource = 2; pods autoscaling.v2.PodsMetricSource = 3; resource autoscaling.v2.ResourceMetricSource = 4; external autoscaling.v2.ExternalMetricSource = 5; containerResource autoscaling.v2.ContainerResourceMetricSource = 7
autoscaling.v2.MetricStatus: type string = 1; object autoscaling.v2.ObjectMetricStatus = 2; pods autoscaling.v2.PodsMetricStatus = 3; resource autoscaling.v2.ResourceMetricStatus = 4; external autoscaling.v2.ExternalMetricStatus = 5; containerResource autoscaling.v2.ContainerResourceMetricStatus = 7
autoscaling.v2.MetricTarget: type string = 1; value resource.Quantity = 2; averageValue resource.Quantity = 3; averageUtilization int32 = 4
autoscaling.v2.MetricValueStatus: value resource.Quantity = 1; averageValue resource.Quantity = 2; averageUtilization int32 = 3
autoscaling.v2.ObjectMetricSource: describedObject autoscaling.v2.CrossVersionObjectReference = 1; target autoscaling.v2.MetricTarget = 2; metric autoscaling.v2.MetricIdentifier = 3
autoscaling.v2.ObjectMetricStatus: metric autoscaling.v2.MetricIdentifier = 1; current autoscaling.v2.MetricValueStatus = 2; describedObject autoscaling.v2.CrossVersionObjectReference = 3
autoscaling.v2.PodsMetricSource: metric autoscaling.v2.MetricIdentifier = 1; target autoscaling.v2.MetricTarget = 2
autoscaling.v2.PodsMetricStatus: metric autoscaling.v2.MetricIdentifier = 1; current autoscaling.v2.MetricValueStatus = 2
autoscaling.v2.ResourceMetricSource: name string = 1; target autoscaling.v2.MetricTarget = 2
autoscaling.v2.ResourceMetricStatus: name string = 1; current autoscaling.v2.MetricValueStatus = 2
batch.v1.CronJob: metadata meta.v1.ObjectMeta = 1; spec batch.v1.CronJobSpec = 2; status batch.v1.CronJobStatus = 3
batch.v1.CronJobSpec: schedule string = 1; startingDeadlineSeconds int64 = 2; concurrencyPolicy string = 3; suspend bool = 4; jobTemplate batch.v1.JobTemplateSpec = 5; successfulJobsHistoryLimit int32 = 6; failedJobsHistoryLimit int32 = 7; timeZone string = 8
batch.v1.CronJobStatus: active repeated core.v1.ObjectReference = 1; lastScheduleTime meta.v1.Time = 4; lastSuccessfulTime meta.v1.Time = 5
batch.v1.Job: metadata meta.v1.ObjectMeta = 1; spec batch.v1.JobSpec = 2; status batch.v1.JobStatus = 3
batch.v1.JobCondition: type string = 1; status string = 2; lastProbeTime meta.v1.Time = 3; lastTransitionTime meta.v1.Time = 4; reason string = 5; message string = 6
batch.v1.JobSpec: parallelism int32 = 1; completions int32 = 2; activeDeadlineSeconds int64 = 3; selector meta.v1.LabelSelector = 4; manualSelector bool = 5; template core.v1.PodTemplateSpec = 6; backoffLimit int32 = 7; ttlSecondsAfterFinished int32 = 8; completionMode string = 9; suspend bool = 10; podFailurePolicy batch.v1.PodFailurePolicy = 11; backoffLimitPerIndex int32 = 12; maxFailedIndexes int32 = 13; podReplacementPolicy string = 14; managedBy string = 15; successPolicy batch.v1.SuccessPolicy = 16
batch.v1.JobStatus: conditions repeated batch.v1.JobCondition = 1; startTime meta.v1.Time = 2; completionTime meta.v1.Time = 3; active int32 = 4; succeeded int32 = 5; failed int32 = 6; completedIndexes string = 7; uncountedTerminatedPods batch.v1.UncountedTerminatedPods = 8; ready int32 = 9; failedIndexes string = 10; terminating int32 = 11
batch.v1.JobTemplateSpec: metadata meta.v1.ObjectMeta = 1; spec batch.v1.JobSpec = 2
batch.v1.PodFailurePolicy: rules repeated batch.v1.PodFailurePolicyRule = 1
batch.v1.PodFailurePolicyOnExitCodesRequirement: containerName string = 1; operator string = 2; values repeated int32 = 3
batch.v1.PodFailurePolicyOnPodConditionsPattern: type string = 1; status string = 2
batch.v1.PodFailurePolicyRule: action string = 1; onExitCodes batch.v1.PodFailurePolicyOnExitCodesRequirement = 2; onPodConditions repeated batch.v1.PodFailurePolicyOnPodConditionsPattern = 3
batch.v1.SuccessPolicy: rules repeated batch.v1.SuccessPolicyRule = 1
batch.v1.SuccessPolicyRule: succeededIndexes string = 1; succeededCount int32 = 2
batch.v1.UncountedTerminatedPods: succeeded repeated string = 1; failed repeated string = 2
certificates.v1.CertificateSigningRequest: metadata meta.v1.ObjectMeta = 1; spec certificates.v1.CertificateSigningRequestSpec = 2; status certificates.v1.CertificateSigningRequestStatus = 3
certificates.v1.CertificateSigningRequestCondition: type string = 1; reason string = 2; message string = 3; lastUpdateTime meta.v1.Time = 4; lastTransitionTime meta.v1.Time = 5; status string = 6
certificates.v1.CertificateSigningRequestSpec: request bytes = 1; username string = 2; uid string = 3; groups repeated string = 4; usages repeated string = 5; extra map<string, certificates.v1.ExtraValue> = 6; signerName string = 7; expirationSeconds int32 = 8
certificates.v1.CertificateSigningRequestStatus: conditions repeated certificates.v1.CertificateSigningRequestCondition = 1; certificate bytes = 2
certificates.v1.ExtraValue: items repeated string = 1
coordination.v1.Lease: metadata meta.v1.ObjectMeta = 1; spec coordination.v1.LeaseSpec = 2
coordination.v1.LeaseSpec: holderIdentity string = 1; leaseDurationSeconds int32 = 2; acquireTime meta.v1.MicroTime = 3; renewTime meta.v1.MicroTime = 4; leaseTransitions int32 = 5; strategy string = 6; preferredHolder string = 7
core.v1.AWSElasticBlockStoreVolumeSource: volumeID string = 1; fsType string = 2; partition int32 = 3; readOnly bool = 4
core.v1.Affinity: nodeAffinity core.v1.NodeAffinity = 1; podAffinity core.v1.PodAffinity = 2; podAntiAffinity core.v1.PodAntiAffinity = 3
core.v1.AppArmorProfile: type string = 1; localhostProfile string = 2
core.v1.AttachedVolume: name string = 1; devicePath string = 2
core.v1.AzureDiskVolumeSource: diskName string = 1; diskURI string = 2; cachingMode string = 3; fsType string = 4; readOnly bool = 5; kind string = 6
core.v1.AzureFilePersistentVolumeSource: secretName string = 1; shareName string = 2; readOnly bool = 3; secretNamespace string = 4
core.v1.AzureFileVolumeSource: secretName string = 1; shareName string = 2; readOnly bool = 3
core.v1.Binding: metadata meta.v1.ObjectMeta = 1; target core.v1.ObjectReference = 2
core.v1.CSIPersistentVolumeSource: driver string = 1; volumeHandle string = 2; readOnly bool = 3; fsType string = 4; volumeAttributes map<string, string> = 5; controllerPublishSecretRef core.v1.SecretReference = 6; nodeStageSecretRef core.v1.SecretReference = 7; nodePublishSecretRef core.v1.SecretReference = 8; controllerExpandSecretRef core.v1.SecretReference = 9; nodeExpandSecretRef core.v1.SecretReference = 10
core.v1.CSIVolumeSource: driver string = 1; readOnly bool = 2; fsType string = 3; volumeAttributes map<string, string> = 4; nodePublishSecretRef core.v1.LocalObjectReference = 5
core.v1.Capabilities: add repeated string = 1; drop repeated string = 2
core.v1.CephFSPersistentVolumeSource: monitors repeated string = 1; path string = 2; user string = 3; secretFile string = 4; secretRef core.v1.SecretReference = 5; readOnly bool = 6
core.v1.CephFSVolumeSource: monitors repeated string = 1; path string = 2; user string = 3; secretFile string = 4; secretRef core.v1.LocalObjectReference = 5; readOnly bool = 6
core.v1.CinderPersistentVolumeSource: volumeID string = 1; fsType string = 2; readOnly bool = 3; secretRef core.v1.SecretReference = 4
core.v1.CinderVolumeSource: volumeID string = 1; fsType string = 2; readOnly bool = 3; secretRef core.v1.LocalObjectReference = 4
core.v1.ClientIPConfig: timeoutSeconds int32 = 1
core.v1.ClusterTrustBundleProjection: name string = 1; signerName string = 2; labelSelector meta.v1.LabelSelector = 3; path string = 4; optional bool = 5
core.v1.ConfigMap: metadata meta.v1.ObjectMeta = 1; data map<string, string> = 2; binaryData map<string, bytes> = 3; immutable bool = 4
core.v1.ConfigMapEnvSource: inline_localObjectReference core.v1.LocalObjectReference = 1; optional bool = 2
core.v1.ConfigMapKeySelector: inline_localObjectReference core.v1.LocalObjectReference = 1; key string = 2; optional bool = 3
core.v1.ConfigMapNodeConfigSource: namespace string = 1; name string = 2; uid string = 3; resourceVersion string = 4; kubeletConfigKey string = 5
core.v1.ConfigMapProjection: inline_localObjectReference core.v1.LocalObjectReference = 1; items repeated core.v1.KeyToPath = 2; optional bool = 4
core.v1.ConfigMapVolumeSource: inline_localObjectReference core.v1.LocalObjectReference = 1; items repeated core.v1.KeyToPath = 2; defaultMode int32 = 3; optional bool = 4
core.v1.Container: name string = 1; image string = 2; command repeated string = 3; args repeated string = 4; workingDir string = 5; ports repeated core.v1.ContainerPort = 6; env repeated core.v1.EnvVar = 7; resources core.v1.ResourceRequirements = 8; volumeMounts repeated core.v1.VolumeMount = 9; livenessProbe core.v1.Probe = 10; readinessProbe core.v1.Probe = 11; lifecycle core.v1.Lifecycle = 12; terminationMessagePath string = 13; imagePullPolicy string = 14; securityContext core.v1.SecurityContext = 15; stdin bool = 16; stdinOnce bool = 17; tty bool = 18; envFrom repeated core.v1.EnvFromSource = 19; terminationMessagePolicy string = 20; volumeDevices repeated core.v1.VolumeDevice = 21; startupProbe core.v1.Probe = 22; resizePolicy repeated core.v1.ContainerResizePolicy = 23; restartPolicy string = 24
core.v1.ContainerImage: names repeated string = 1; sizeBytes int64 = 2
core.v1.ContainerPort: name string = 1; hostPort int32 = 2; containerPort int32 = 3; protocol string = 4; hostIP string = 5
core.v1.ContainerResizePolicy: resourceName string = 1; restartPolicy string = 2
core.v1.ContainerState: waiting core.v1.ContainerStateWaiting = 1; running core.v1.ContainerStateRunning = 2; terminated core.v1.ContainerStateTerminated = 3
core.v1.ContainerStateRunning: startedAt meta.v1.Time = 1
core.v1.ContainerStateTerminated: exitCode int32 = 1; signal int32 = 2; reason string = 3; message string = 4; startedAt meta.v1.Time = 5; finishedAt meta.v1.Time = 6; containerID string = 7
core.v1.ContainerStateWaiting: reason string = 1; message string = 2
core.v1.ContainerStatus: name string = 1; state core.v1.ContainerState = 2; lastState core.v1.ContainerState = 3; ready bool = 4; restartCount int32 = 5; image string = 6; imageID string = 7; containerID string = 8; started bool = 9; allocatedResources map<string, resource.Quantity> = 10; resources core.v1.ResourceRequirements = 11; volumeMounts repeated core.v1.VolumeMountStatus = 12; user core.v1.ContainerUser = 13; allocatedResourcesStatus repeated core.v1.ResourceStatus = 14
core.v1.ContainerUser: linux core.v1.LinuxContainerUser = 1
core.v1.DaemonEndpoint: Port int32 = 1
core.v1.DownwardAPIProjection: items repeated core.v1.DownwardAPIVolumeFile = 1
core.v1.DownwardAPIVolumeFile: path string = 1; fieldRef core.v1.ObjectFieldSelector = 2; resourceFieldRef core.v1.ResourceFieldSelector = 3; mode int32 = 4
core.v1.DownwardAPIVolumeSource: items repeated core.v1.DownwardAPIVolumeFile = 1; defaultMode int32 = 2
core.v1.EmptyDirVolumeSource: medium string = 1; sizeLimit resource.Quantity = 2
core.v1.EndpointAddress: ip string = 1; targetRef core.v1.ObjectReference = 2; hostname string = 3; nodeName string = 4
core.v1.EndpointPort: name string = 1; port int32 = 2; protocol string = 3; appProtocol string = 4
core.v1.EndpointSubset: addresses repeated core.v1.EndpointAddress = 1; notReadyAddresses repeated core.v1.EndpointAddress = 2; ports repeated core.v1.EndpointPort = 3
core.v1.Endpoints: metadata meta.v1.ObjectMeta = 1; subsets repeated core.v1.EndpointSubset = 2
core.v1.EnvFromSource: prefix string = 1; configMapRef core.v1.ConfigMapEnvSource = 2; secretRef core.v1.SecretEnvSource = 3
core.v1.EnvVar: name string = 1; value string = 2; valueFrom core.v1.EnvVarSource = 3
core.v1.EnvVarSource: fieldRef core.v1.ObjectFieldSelector = 1; resourceFieldRef core.v1.ResourceFieldSelector = 2; configMapKeyRef core.v1.ConfigMapKeySelector = 3; secretKeyRef core.v1.SecretKeySelector = 4
core.v1.EphemeralContainer: inline_ephemeralContainerCommon core.v1.EphemeralContainerCommon = 1; targetContainerName string = 2
core.v1.EphemeralContainerCommon: name string = 1; image string = 2; command repeated string = 3; args repeated string = 4; workingDir string = 5; ports repeated core.v1.ContainerPort = 6; env repeated core.v1.EnvVar = 7; resources core.v1.ResourceRequirements = 8; volumeMounts repeated core.v1.VolumeMount = 9; livenessProbe core.v1.Probe = 10; readinessProbe core.v1.Probe = 11; lifecycle core.v1.Lifecycle = 12; terminationMessagePath string = 13; imagePullPolicy string = 14; securityContext core.v1.SecurityContext = 15; stdin bool = 16; stdinOnce bool = 17; tty bool = 18; envFrom repeated core.v1.EnvFromSource = 19; terminationMessagePolicy string = 20; volumeDevices repeated core.v1.VolumeDevice = 21; startupProbe core.v1.Probe = 22; resizePolicy repeated core.v1.ContainerResizePolicy = 23; restartPolicy string = 24
core.v1.EphemeralVolumeSource: volumeClaimTemplate core.v1.PersistentVolumeClaimTemplate = 1
core.v1.Event: metadata meta.v1.ObjectMeta = 1; involvedObject core.v1.ObjectReference = 2; reason string = 3; message string = 4; source core.v1.EventSource = 5; firstTimestamp meta.v1.Time = 6; lastTimestamp meta.v1.Time = 7; count int32 = 8; type string = 9; eventTime meta.v1.MicroTime = 10; series core.v1.EventSeries = 11; action string = 12; related core.v1.ObjectReference = 13; reportingComponent string = 14; reportingInstance string = 15
core.v1.EventSeries: count int32 = 1; lastObservedTime meta.v1.MicroTime = 2
core.v1.EventSource: component string = 1; host string = 2
core.v1.ExecAction: command repeated string = 1
core.v1.FCVolumeSource: targetWWNs repeated string = 1; lun int32 = 2; fsType string = 3; readOnly bool = 4; wwids repeated string = 5
core.v1.FlexPersistentVolumeSource: driver string = 1; fsType string = 2; secretRef core.v1.SecretReference = 3; readOnly bool = 4; options map<string, string> = 5
core.v1.FlexVolumeSource: driver string = 1; fsType string = 2; secretRef core.v1.LocalObjectReference = 3; readOnly bool = 4; options map<string, string> = 5
core.v1.FlockerVolumeSource: datasetName string = 1; datasetUUID string = 2
core.v1.GCEPersistentDiskVolumeSource: pdName string = 1; fsType string = 2; partition int32 = 3; readOnly bool = 4
core.v1.GRPCAction: port int32 = 1; service string = 2
core.v1.GitRepoVolumeSource: repository string = 1; revision string = 2; directory string = 3
core.v1.GlusterfsPersistentVolumeSource: endpoints string = 1; path string = 2; readOnly bool = 3; endpointsNamespace string = 4
core.v1.GlusterfsVolumeSource: endpoints string = 1; path string = 2; readOnly bool = 3
core.v1.HTTPGetAction: path string = 1; port util.intstr.IntOrString = 2; host string = 3; scheme string = 4; httpHeaders repeated core.v1.HTTPHeader = 5
core.v1.HTTPHeader: name string = 1; value string = 2
core.v1.HostAlias: ip string = 1; hostnames repeated string = 2
core.v1.HostIP: ip string = 1
core.v1.HostPathVolumeSource: path string = 1; type string = 2
core.v1.ISCSIPersistentVolumeSource: targetPortal string = 1; iqn string = 2; lun int32 = 3; iscsiInterface string = 4; fsType string = 5; readOnly bool = 6; portals repeated string = 7; chapAuthDiscovery bool = 8; secretRef core.v1.SecretReference = 10; chapAuthSession bool = 11; initiatorName string = 12
core.v1.ISCSIVolumeSource: targetPortal string = 1; iqn string = 2; lun int32 = 3; iscsiInterface string = 4; fsType string = 5; readOnly bool = 6; portals repeated string = 7; chapAuthDiscovery bool = 8; secretRef core.v1.LocalObjectReference = 10; chapAuthSession bool = 11; initiatorName string = 12
core.v1.ImageVolumeSource: reference string = 1; pullPolicy string = 2
core.v1.KeyToPath: key string = 1; path string = 2; mode int32 = 3
core.v1.Lifecycle: postStart core.v1.LifecycleHandler = 1; preStop core.v1.LifecycleHandler = 2
core.v1.LifecycleHandler: exec core.v1.ExecAction = 1; httpGet core.v1.HTTPGetAction = 2; tcpSocket core.v1.TCPSocketAction = 3; sleep core.v1.SleepAction = 4
core.v1.LimitRange: metadata meta.v1.ObjectMeta = 1; spec core.v1.LimitRangeSpec = 2
core.v1.LimitRangeItem: type string = 1; max map<string, resource.Quantity> = 2; min map<string, resource.Quantity> = 3; default map<string, resource.Quantity> = 4; defaultRequest map<string, resource.Quantity> = 5; maxLimitRequestRatio map<string, resource.Quantity> = 6
core.v1.LimitRangeSpec: limits repeated core.v1.LimitRangeItem = 1
core.v1.LinuxContainerUser: uid int64 = 1; gid int64 = 2; supplementalGroups repeated int64 = 3
core.v1.LoadBalancerIngress: ip string = 1; hostname string = 2; ipMode string = 3; ports repeated core.v1.PortStatus = 4
core.v1.LoadBalancerStatus: ingress repeated core.v1.LoadBalancerIngress = 1
core.v1.LocalObjectReference: name string = 1
core.v1.LocalVolumeSource: path string = 1; fsType string = 2
core.v1.ModifyVolumeStatus: targetVolumeAttributesClassName string = 1; status string = 2
core.v1.NFSVolumeSource: server string = 1; path string = 2; readOnly bool = 3
core.v1.Namespace: metadata meta.v1.ObjectMeta = 1; spec core.v1.NamespaceSpec = 2; status core.v1.NamespaceStatus = 3
core.v1.NamespaceCondition: type string = 1; status string = 2; lastTransitionTime meta.v1.Time = 4; reason string = 5; message string = 6
core.v1.NamespaceSpec: finalizers repeated string = 1
core.v1.NamespaceStatus: phase string = 1; conditions repeated core.v1.NamespaceCondition = 2
core.v1.Node: metadata meta.v1.ObjectMeta = 1; spec core.v1.NodeSpec = 2; status core.v1.NodeStatus = 3
core.v1.NodeAddress: type string = 1; address string = 2
core.v1.NodeAffinity: requiredDuringSchedulingIgnoredDuringExecution core.v1.NodeSelector = 1; preferredDuringSchedulingIgnoredDuringExecution repeated core.v1.PreferredSchedulingTerm = 2
core.v1.NodeCondition: type string = 1; status string = 2; lastHeartbeatTime meta.v1.Time = 3; lastTransitionTime meta.v1.Time = 4; reason string = 5; message string = 6
core.v1.NodeConfigSource: configMap core.v1.ConfigMapNodeConfigSource = 2
core.v1.NodeConfigStatus: assigned core.v1.NodeConfigSource = 1; active core.v1.NodeConfigSource = 2; lastKnownGood core.v1.NodeConfigSource = 3; error string = 4
core.v1.NodeDaemonEndpoints: kubeletEndpoint core.v1.DaemonEndpoint = 1
core.v1.NodeFeatures: supplementalGroupsPolicy bool = 1
core.v1.NodeRuntimeHandler: name string = 1; features core.v1.NodeRuntimeHandlerFeatures = 2
core.v1.NodeRuntimeHandlerFeatures: recursiveReadOnlyMounts bool = 1; userNamespaces bool = 2
core.v1.NodeSelector: nodeSelectorTerms repeated core.v1.NodeSelectorTerm = 1
core.v1.NodeSelectorRequirement: key string = 1; operator string = 2; values repeated string = 3
core.v1.NodeSelectorTerm: matchExpressions repeated core.v1.NodeSelectorRequirement = 1; matchFields repeated core.v1.NodeSelectorRequirement = 2
core.v1.NodeSpec: podCIDR string = 1; externalID string = 2; providerID string = 3; unschedulable bool = 4; taints repeated core.v1.Taint = 5; configSource core.v1.NodeConfigSource = 6; podCIDRs repeated string = 7
core.v1.NodeStatus: capacity map<string, resource.Quantity> = 1; allocatable map<string, resource.Quantity> = 2; phase string = 3; conditions repeated core.v1.NodeCondition = 4; addresses repeated core.v1.NodeAddress = 5; daemonEndpoints core.v1.NodeDaemonEndpoints = 6; nodeInfo core.v1.NodeSystemInfo = 7; images repeated core.v1.ContainerImage = 8; volumesInUse repeated string = 9; volumesAttached repeated core.v1.AttachedVolume = 10; config core.v1.NodeConfigStatus = 11; runtimeHandlers repeated core.v1.NodeRuntimeHandler = 12; features core.v1.NodeFeatures = 13
core.v1.NodeSystemInfo: machineID string = 1; systemUUID string = 2; bootID string = 3; kernelVersion string = 4; osImage string = 5; containerRuntimeVersion string = 6; kubeletVersion string = 7; kubeProxyVersion string = 8; operatingSystem string = 9; architecture string = 10
core.v1.ObjectFieldSelector: apiVersion string = 1; fieldPath string = 2
core.v1.ObjectReference: kind string = 1; namespace string = 2; name string = 3; uid string = 4; apiVersion string = 5; resourceVersion string = 6; fieldPath string = 7
core.v1.PersistentVolume: metadata meta.v1.ObjectMeta = 1; spec core.v1.PersistentVolumeSpec = 2; status core.v1.PersistentVolumeStatus = 3
core.v1.PersistentVolumeClaim: metadata meta.v1.ObjectMeta = 1; spec core.v1.PersistentVolumeClaimSpec = 2; status core.v1.PersistentVolumeClaimStatus = 3
core.v1.PersistentVolumeClaimCondition: type string = 1; status string = 2; lastProbeTime meta.v1.Time = 3; lastTransitionTime meta.v1.Time = 4; reason string = 5; message string = 6
core.v1.PersistentVolumeClaimSpec: accessModes repeated string = 1; resources core.v1.VolumeResourceRequirements = 2; volumeName string = 3; selector meta.v1.LabelSelector = 4; storageClassName string = 5; volumeMode string = 6; dataSource core.v1.TypedLocalObjectReference = 7; dataSourceRef core.v1.TypedObjectReference = 8; volumeAttributesClassName string = 9
core.v1.PersistentVolumeClaimStatus: phase string = 1; accessModes repeated string = 2; capacity map<string, resource.Quantity> = 3; conditions repeated core.v1.PersistentVolumeClaimCondition = 4; allocatedResources map<string, resource.Quantity> = 5; allocatedResourceStatuses map<string, string> = 7; currentVolumeAttributesClassName string = 8; modifyVolumeStatus core.v1.ModifyVolumeStatus = 9
core.v1.PersistentVolumeClaimTemplate: metadata meta.v1.ObjectMeta = 1; spec core.v1.PersistentVolumeClaimSpec = 2
core.v1.PersistentVolumeClaimVolumeSource: claimName string = 1; readOnly bool = 2
core.v1.PersistentVolumeSource: gcePersistentDisk core.v1.GCEPersistentDiskVolumeSource = 1; awsElasticBlockStore core.v1.AWSElasticBlockStoreVolumeSource = 2; hostPath core.v1.HostPathVolumeSource = 3; glusterfs core.v1.GlusterfsPersistentVolumeSource = 4; nfs core.v1.NFSVolumeSource = 5; rbd core.v1.RBDPersistentVolumeSource = 6; iscsi core.v1.ISCSIPersistentVolumeSource = 7; cinder core.v1.CinderPersistentVolumeSource = 8; cephfs core.v1.CephFSPersistentVolumeSource = 9; fc core.v1.FCVolumeSource = 10; flocker core.v1.FlockerVolumeSource = 11; flexVolume core.v1.FlexPersistentVolumeSource = 12; azureFile core.v1.AzureFilePersistentVolumeSource = 13; vsphereVolume core.v1.VsphereVirtualDiskVolumeSource = 14; quobyte core.v1.QuobyteVolumeSource = 15; azureDisk core.v1.AzureDiskVolumeSource = 16; photonPersistentDisk core.v1.PhotonPersistentDiskVolumeSource = 17; portworxVolume core.v1.PortworxVolumeSource = 18; scaleIO core.v1.ScaleIOPersistentVolumeSource = 19; local core.v1.LocalVolumeSource = 20; storageos core.v1.StorageOSPersistentVolumeSource = 21; csi core.v1.CSIPersistentVolumeSource = 22
core.v1.PersistentVolumeSpec: capacity map<string, resource.Quantity> = 1; inline_persistentVolumeSource core.v1.PersistentVolumeSource = 2; accessModes repeated string = 3; claimRef core.v1.ObjectReference = 4; persistentVolumeReclaimPolicy string = 5; storageClassName string = 6; mountOptions repeated string = 7; volumeMode string = 8; nodeAffinity core.v1.VolumeNodeAffinity = 9; volumeAttributesClassName string = 10
core.v1.PersistentVolumeStatus: phase string = 1; message string = 2; reason string = 3; lastPhaseTransitionTime meta.v1.Time = 4
core.v1.PhotonPersistentDiskVolumeSource: pdID string = 1; fsType string = 2
core.v1.Pod: metadata meta.v1.ObjectMeta = 1; spec core.v1.PodSpec = 2; status core.v1.PodStatus = 3
core.v1.PodAffinity: requiredDuringSchedulingIgnoredDuringExecution repeated core.v1.PodAffinityTerm = 1; preferredDuringSchedulingIgnoredDuringExecution repeated core.v1.WeightedPodAffinityTerm = 2
core.v1.PodAffinityTerm: labelSelector meta.v1.LabelSelector = 1; namespaces repeated string = 2; topologyKey string = 3; namespaceSelector meta.v1.LabelSelector = 4; matchLabelKeys repeated string = 5; mismatchLabelKeys repeated string = 6
core.v1.PodAntiAffinity: requiredDuringSchedulingIgnoredDuringExecution repeated core.v1.PodAffinityTerm = 1; preferredDuringSchedulingIgnoredDuringExecution repeated core.v1.WeightedPodAffinityTerm = 2
core.v1.PodCondition: type string = 1; status string = 2; lastProbeTime meta.v1.Time = 3; lastTransitionTime meta.v1.Time = 4; reason string = 5; message string = 6
core.v1.PodDNSConfig: nameservers repeated string = 1; searches repeated string = 2; options repeated core.v1.PodDNSConfigOption = 3
core.v1.PodDNSConfigOption: name string = 1; value string = 2
core.v1.PodIP: ip string = 1
core.v1.PodOS: name string = 1
core.v1.PodReadinessGate: conditionType string = 1
core.v1.PodResourceClaim: name string = 1; resourceClaimName string = 3; resourceClaimTemplateName string = 4
core.v1.PodResourceClaimStatus: name string = 1; resourceClaimName string = 2
core.v1.PodSchedulingGate: name string = 1
core.v1.PodSecurityContext: seLinuxOptions core.v1.SELinuxOptions = 1; runAsUser int64 = 2; runAsNonRoot bool = 3; supplementalGroups repeated int64 = 4; fsGroup int64 = 5; runAsGroup int64 = 6; sysctls repeated core.v1.Sysctl = 7; windowsOptions core.v1.WindowsSecurityContextOptions = 8; fsGroupChangePolicy string = 9; seccompProfile core.v1.SeccompProfile = 10; appArmorProfile core.v1.AppArmorProfile = 11; supplementalGroupsPolicy string = 12; seLinuxChangePolicy string = 13
core.v1.PodSpec: volumes repeated core.v1.Volume = 1; containers repeated core.v1.Container = 2; restartPolicy string = 3; terminationGracePeriodSeconds int64 = 4; activeDeadlineSeconds int64 = 5; dnsPolicy string = 6; nodeSelector map<string, string> = 7; serviceAccountName string = 8; serviceAccount string = 9; nodeName string = 10; hostNetwork bool = 11; hostPID bool = 12; hostIPC bool = 13; securityContext core.v1.PodSecurityContext = 14; imagePullSecrets repeated core.v1.LocalObjectReference = 15; hostname string = 16; subdomain string = 17; affinity core.v1.Affinity = 18; schedulerName string = 19; initContainers repeated core.v1.Container = 20; automountServiceAccountToken bool = 21; tolerations repeated core.v1.Toleration = 22; hostAliases repeated core.v1.HostAlias = 23; priorityClassName string = 24; priority int32 = 25; dnsConfig core.v1.PodDNSConfig = 26; shareProcessNamespace bool = 27; readinessGates repeated core.v1.PodReadinessGate = 28; runtimeClassName string = 29; enableServiceLinks bool = 30; preemptionPolicy string = 31; overhead map<string, resource.Quantity> = 32; topologySpreadConstraints repeated core.v1.TopologySpreadConstraint = 33; ephemeralContainers repeated core.v1.EphemeralContainer = 34; setHostnameAsFQDN bool = 35; os core.v1.PodOS = 36; hostUsers bool = 37; schedulingGates repeated core.v1.PodSchedulingGate = 38; resourceClaims repeated core.v1.PodResourceClaim = 39; resources core.v1.ResourceRequirements = 40
core.v1.PodStatus: phase string = 1; conditions repeated core.v1.PodCondition = 2; message string = 3; reason string = 4; hostIP string = 5; podIP string = 6; startTime meta.v1.Time = 7; containerStatuses repeated core.v1.ContainerStatus = 8; qosClass string = 9; initContainerStatuses repeated core.v1.ContainerStatus = 10; nominatedNodeName string = 11; podIPs repeated core.v1.PodIP = 12; ephemeralContainerStatuses repeated core.v1.ContainerStatus = 13; resize string = 14; resourceClaimStatuses repeated core.v1.PodResourceClaimStatus = 15; hostIPs repeated core.v1.HostIP = 16
core.v1.PodTemplate: metadata meta.v1.ObjectMeta = 1; template core.v1.PodTemplateSpec = 2
core.v1.PodTemplateSpec: metadata meta.v1.ObjectMeta = 1; spec core.v1.PodSpec = 2
core.v1.PortStatus: port int32 = 1; protocol string = 2; error string = 3
core.v1.PortworxVolumeSource: volumeID string = 1; fsType string = 2; readOnly bool = 3
core.v1.Preconditions: uid string = 1
core.v1.PreferredSchedulingTerm: weight int32 = 1; preference core.v1.NodeSelectorTerm = 2
core.v1.Probe: inline_handler core.v1.ProbeHandler = 1; initialDelaySeconds int32 = 2; timeoutSeconds int32 = 3; periodSeconds int32 = 4; successThreshold int32 = 5; failureThreshold int32 = 6; terminationGracePeriodSeconds int64 = 7
core.v1.ProbeHandler: exec core.v1.ExecAction = 1; httpGet core.v1.HTTPGetAction = 2; tcpSocket core.v1.TCPSocketAction = 3; grpc core.v1.GRPCAction = 4
core.v1.ProjectedVolumeSource: sources repeated core.v1.VolumeProjection = 1; defaultMode int32 = 2
core.v1.QuobyteVolumeSource: registry string = 1; volume string = 2; readOnly bool = 3; user string = 4; group string = 5; tenant string = 6
core.v1.RBDPersistentVolumeSource: monitors repeated string = 1; image string = 2; fsType string = 3; pool string = 4; user string = 5; keyring string = 6; secretRef core.v1.SecretReference = 7; readOnly bool = 8
core.v1.RBDVolumeSource: monitors repeated string = 1; image string = 2; fsType string = 3; pool string = 4; user string = 5; keyring string = 6; secretRef core.v1.LocalObjectReference = 7; readOnly bool = 8
core.v1.ReplicationController: metadata meta.v1.ObjectMeta = 1; spec core.v1.ReplicationControllerSpec = 2; status core.v1.ReplicationControllerStatus = 3
core.v1.ReplicationControllerCondition: type string = 1; status string = 2; lastTransitionTime meta.v1.Time = 3; reason string = 4; message string = 5
core.v1.ReplicationControllerSpec: replicas int32 = 1; selector map<string, string> = 2; template core.v1.PodTemplateSpec = 3; minReadySeconds int32 = 4
core.v1.ReplicationControllerStatus: replicas int32 = 1; fullyLabeledReplicas int32 = 2; observedGeneration int64 = 3; readyReplicas int32 = 4; availableReplicas int32 = 5; conditions repeated core.v1.ReplicationControllerCondition = 6
core.v1.ResourceClaim: name string = 1; request string = 2
core.v1.ResourceFieldSelector: containerName string = 1; resource string = 2; divisor resource.Quantity = 3
core.v1.ResourceHealth: resourceID string = 1; health string = 2
core.v1.ResourceQuota: metadata meta.v1.ObjectMeta = 1; spec core.v1.ResourceQuotaSpec = 2; status core.v1.ResourceQuotaStatus = 3
core.v1.ResourceQuotaSpec: hard map<string, resource.Quantity> = 1; scopes repeated string = 2; scopeSelector core.v1.ScopeSelector = 3
core.v1.ResourceQuotaStatus: hard map<string, resource.Quantity> = 1; used map<string, resource.Quantity> = 2
core.v1.ResourceRequirements: limits map<string, resource.Quantity> = 1; requests map<string, resource.Quantity> = 2; claims repeated core.v1.ResourceClaim = 3
core.v1.ResourceStatus: name string = 1; resources repeated core.v1.ResourceHealth = 2
core.v1.SELinuxOptions: user string = 1; role string = 2; type string = 3; level string = 4
core.v1.ScaleIOPersistentVolumeSource: gateway string = 1; system string = 2; secretRef core.v1.SecretReference = 3; sslEnabled bool = 4; protectionDomain string = 5; storagePool string = 6; storageMode string = 7; volumeName string = 8; fsType string = 9; readOnly bool = 10
core.v1.ScaleIOVolumeSource: gateway string = 1; system string = 2; secretRef core.v1.LocalObjectReference = 3; sslEnabled bool = 4; protectionDomain string = 5; storagePool string = 6; storageMode string = 7; volumeName string = 8; fsType string = 9; readOnly bool = 10
core.v1.ScopeSelector: matchExpressions repeated core.v1.ScopedResourceSelectorRequirement = 1
core.v1.ScopedResourceSelectorRequirement: scopeName string = 1; operator string = 2; values repeated string = 3
core.v1.SeccompProfile: type string = 1; localhostProfile string = 2
core.v1.Secret: metadata meta.v1.ObjectMeta = 1; data map<string, bytes> = 2; type string = 3; stringData map<string, string> = 4; immutable bool = 5
core.v1.SecretEnvSource: inline_localObjectReference core.v1.LocalObjectReference = 1; optional bool = 2
core.v1.SecretKeySelector: inline_localObjectReference core.v1.LocalObjectReference = 1; key string = 2; optional bool = 3
core.v1.SecretProjection: inline_localObjectReference core.v1.LocalObjectReference = 1; items repeated core.v1.KeyToPath = 2; optional bool = 4
core.v1.SecretReference: name string = 1; namespace string = 2
core.v1.SecretVolumeSource: secretName string = 1; items repeated core.v1.KeyToPath = 2; defaultMode int32 = 3; optional bool = 4
core.v1.SecurityContext: capabilities core.v1.Capabilities = 1; privileged bool = 2; seLinuxOptions core.v1.SELinuxOptions = 3; runAsUser int64 = 4; runAsNonRoot bool = 5; readOnlyRootFilesystem bool = 6; allowPrivilegeEscalation bool = 7; runAsGroup int64 = 8; procMount string = 9; windowsOptions core.v1.WindowsSecurityContextOptions = 10; seccompProfile core.v1.SeccompProfile = 11; appArmorProfile core.v1.AppArmorProfile = 12
core.v1.Service: metadata meta.v1.ObjectMeta = 1; spec core.v1.ServiceSpec = 2; status core.v1.ServiceStatus = 3
core.v1.ServiceAccount: metadata meta.v1.ObjectMeta = 1; secrets repeated core.v1.ObjectReference = 2; imagePullSecrets repeated core.v1.LocalObjectReference = 3; automountServiceAccountToken bool = 4
core.v1.ServiceAccountTokenProjection: audience string = 1; expirationSeconds int64 = 2; path string = 3
core.v1.ServicePort: name string = 1; protocol string = 2; port int32 = 3; targetPort util.intstr.IntOrString = 4; nodePort int32 = 5; appProtocol string = 6
core.v1.ServiceSpec: ports repeated core.v1.ServicePort = 1; selector map<string, string> = 2; clusterIP string = 3; type string = 4; externalIPs repeated string = 5; sessionAffinity string = 7; loadBalancerIP string = 8; loadBalancerSourceRanges repeated string = 9; externalName string = 10; externalTrafficPolicy string = 11; healthCheckNodePort int32 = 12; publishNotReadyAddresses bool = 13; sessionAffinityConfig core.v1.SessionAffinityConfig = 14; ipFamilyPolicy string = 17; clusterIPs repeated string = 18; ipFamilies repeated string = 19; allocateLoadBalancerNodePorts bool = 20; loadBalancerClass string = 21; internalTrafficPolicy string = 22; trafficDistribution string = 23
core.v1.ServiceStatus: loadBalancer core.v1.LoadBalancerStatus = 1; conditions repeated meta.v1.Condition = 2
core.v1.SessionAffinityConfig: clientIP core.v1.ClientIPConfig = 1
core.v1.SleepAction: seconds int64 = 1
core.v1.StorageOSPersistentVolumeSource: volumeName string = 1; volumeNamespace string = 2; fsType string = 3; readOnly bool = 4; secretRef core.v1.ObjectReference = 5
core.v1.StorageOSVolumeSource: volumeName string = 1; volumeNamespace string = 2; fsType string = 3; readOnly bool = 4; secretRef core.v1.LocalObjectReference = 5
core.v1.Sysctl: name string = 1; value string = 2
core.v1.TCPSocketAction: port util.intstr.IntOrString = 1; host string = 2
core.v1.Taint: key string = 1; value string = 2; effect string = 3; timeAdded meta.v1.Time = 4
core.v1.Toleration: key string = 1; operator string = 2; value string = 3; effect string = 4; tolerationSeconds int64 = 5
core.v1.TopologySelectorLabelRequirement: key string = 1; values repeated string = 2
core.v1.TopologySelectorTerm: matchLabelExpressions repeated core.v1.TopologySelectorLabelRequirement = 1
core.v1.TopologySpreadConstraint: maxSkew int32 = 1; topologyKey string = 2; whenUnsatisfiable string = 3; labelSelector meta.v1.LabelSelector = 4; minDomains int32 = 5; nodeAffinityPolicy string = 6; nodeTaintsPolicy string = 7; matchLabelKeys repeated string = 8
core.v1.TypedLocalObjectReference: apiGroup string = 1; kind string = 2; name string = 3
core.v1.TypedObjectReference: apiGroup string = 1; kind string = 2; name string = 3; namespace string = 4
core.v1.Volume: name string = 1; inline_volumeSource core.v1.VolumeSource = 2
core.v1.VolumeDevice: name string = 1; devicePath string = 2
core.v1.VolumeMount: name string = 1; readOnly bool = 2; mountPath string = 3; subPath string = 4; mountPropagation string = 5; subPathExpr string = 6; recursiveReadOnly string = 7
core.v1.VolumeMountStatus: name string = 1; mountPath string = 2; readOnly bool = 3; recursiveReadOnly string = 4
core.v1.VolumeNodeAffinity: required core.v1.NodeSelector = 1
core.v1.VolumeProjection: secret core.v1.SecretProjection = 1; downwardAPI core.v1.DownwardAPIProjection = 2; configMap core.v1.ConfigMapProjection = 3; serviceAccountToken core.v1.ServiceAccountTokenProjection = 4; clusterTrustBundle core.v1.ClusterTrustBundleProjection = 5
core.v1.VolumeResourceRequirements: limits map<string, resource.Quantity> = 1; requests map<string, resource.Quantity> = 2
core.v1.VolumeSource: hostPath core.v1.HostPathVolumeSource = 1; emptyDir core.v1.EmptyDirVolumeSource = 2; gcePersistentDisk core.v1.GCEPersistentDiskVolumeSource = 3; awsElasticBlockStore core.v1.AWSElasticBlockStoreVolumeSource = 4; gitRepo core.v1.GitRepoVolumeSource = 5; secret core.v1.SecretVolumeSource = 6; nfs core.v1.NFSVolumeSource = 7; iscsi core.v1.ISCSIVolumeSource = 8; glusterfs core.v1.GlusterfsVolumeSource = 9; persistentVolumeClaim core.v1.PersistentVolumeClaimVolumeSource = 10; rbd core.v1.RBDVolumeSource = 11; flexVolume core.v1.FlexVolumeSource = 12; cinder core.v1.CinderVolumeSource = 13; cephfs core.v1.CephFSVolumeSource = 14; flocker core.v1.FlockerVolumeSource = 15; downwardAPI core.v1.DownwardAPIVolumeSource = 16; fc core.v1.FCVolumeSource = 17; azureFile core.v1.AzureFileVolumeSource = 18; configMap core.v1.ConfigMapVolumeSource = 19; vsphereVolume core.v1.VsphereVirtualDiskVolumeSource = 20; quobyte core.v1.QuobyteVolumeSource = 21; azureDisk core.v1.AzureDiskVolumeSource = 22; photonPersistentDisk core.v1.PhotonPersistentDiskVolumeSource = 23; portworxVolume core.v1.PortworxVolumeSource = 24; scaleIO core.v1.ScaleIOVolumeSource = 25; projected core.v1.ProjectedVolumeSource = 26; storageos core.v1.StorageOSVolumeSource = 27; csi core.v1.CSIVolumeSource = 28; ephemeral core.v1.EphemeralVolumeSource = 29; image core.v1.ImageVolumeSource = 30
core.v1.VsphereVirtualDiskVolumeSource: volumePath string = 1; fsType string = 2; storagePolicyName string = 3; storagePolicyID string = 4
core.v1.WeightedPodAffinityTerm: weight int32 = 1; podAffinityTerm core.v1.PodAffinityTerm = 2
core.v1.WindowsSecurityContextOptions: gmsaCredentialSpecName string = 1; gmsaCredentialSpec string = 2; runAsUserName string = 3; hostProcess bool = 4
discovery.v1.Endpoint: addresses repeated string = 1; conditions discovery.v1.EndpointConditions = 2; hostname string = 3; targetRef core.v1.ObjectReference = 4; deprecatedTopology map<string, string> = 5; nodeName string = 6; zone string = 7; hints discovery.v1.EndpointHints = 8
discovery.v1.EndpointConditions: ready bool = 1; serving bool = 2; terminating bool = 3
discovery.v1.EndpointHints: forZones repeated discovery.v1.ForZone = 1
discovery.v1.EndpointPort: name string = 1; protocol string = 2; port int32 = 3; appProtocol string = 4
discovery.v1.EndpointSlice: metadata meta.v1.ObjectMeta = 1; endpoints repeated discovery.v1.Endpoint = 2; ports repeated discovery.v1.EndpointPort = 3; addressType string = 4
discovery.v1.ForZone: name string = 1
events.v1.Event: metadata meta.v1.ObjectMeta = 1; eventTime meta.v1.MicroTime = 2; series events.v1.EventSeries = 3; reportingController string = 4; reportingInstance string = 5; action string = 6; reason string = 7; regarding core.v1.ObjectReference = 8; related core.v1.ObjectReference = 9; note string = 10; type string = 11; deprecatedSource core.v1.EventSource = 12; deprecatedFirstTimestamp meta.v1.Time = 13; deprecatedLastTimestamp meta.v1.Time = 14; deprecatedCount int32 = 15
events.v1.EventSeries: count int32 = 1; lastObservedTime meta.v1.MicroTime = 2
flowcontrol.v1.ExemptPriorityLevelConfiguration: nominalConcurrencyShares int32 = 1; lendablePercent int32 = 2
flowcontrol.v1.FlowDistinguisherMethod: type string = 1
flowcontrol.v1.FlowSchema: metadata meta.v1.ObjectMeta = 1; spec flowcontrol.v1.FlowSchemaSpec = 2; status flowcontrol.v1.FlowSchemaStatus = 3
flowcontrol.v1.FlowSchemaCondition: type string = 1; status string = 2; lastTransitionTime meta.v1.Time = 3; reason string = 4; message string = 5
flowcontrol.v1.FlowSchemaSpec: priorityLevelConfiguration flowcontrol.v1.PriorityLevelConfigurationReference = 1; matchingPrecedence int32 = 2; distinguisherMethod flowcontrol.v1.FlowDistinguisherMethod = 3; rules repeated flowcontrol.v1.PolicyRulesWithSubjects = 4
flowcontrol.v1.FlowSchemaStatus: conditions repeated flowcontrol.v1.FlowSchemaCondition = 1
flowcontrol.v1.GroupSubject: name string = 1
flowcontrol.v1.LimitResponse: type string = 1; queuing flowcontrol.v1.QueuingConfiguration = 2
flowcontrol.v1.LimitedPriorityLevelConfiguration: nominalConcurrencyShares int32 = 1; limitResponse flowcontrol.v1.LimitResponse = 2; lendablePercent int32 = 3; borrowingLimitPercent int32 = 4
flowcontrol.v1.NonResourcePolicyRule: verbs repeated string = 1; nonResourceURLs repeated string = 6
flowcontrol.v1.PolicyRulesWithSubjects: subjects repeated flowcontrol.v1.Subject = 1; resourceRules repeated flowcontrol.v1.ResourcePolicyRule = 2; nonResourceRules repeated flowcontrol.v1.NonResourcePolicyRule = 3
flowcontrol.v1.PriorityLevelConfiguration: metadata meta.v1.ObjectMeta = 1; spec flowcontrol.v1.PriorityLevelConfigurationSpec = 2; status flowcontrol.v1.PriorityLevelConfigurationStatus = 3
flowcontrol.v1.PriorityLevelConfigurationCondition: type string = 1; status string = 2; lastTransitionTime meta.v1.Time = 3; reason string = 4; message string = 5
flowcontrol.v1.PriorityLevelConfigurationReference: name string = 1
flowcontrol.v1.PriorityLevelConfigurationSpec: type string = 1; limited flowcontrol.v1.LimitedPriorityLevelConfiguration = 2; exempt flowcontrol.v1.ExemptPriorityLevelConfiguration = 3
flowcontrol.v1.PriorityLevelConfigurationStatus: conditions repeated flowcontrol.v1.PriorityLevelConfigurationCondition = 1
flowcontrol.v1.QueuingConfiguration: queues int32 = 1; handSize int32 = 2; queueLengthLimit int32 = 3
flowcontrol.v1.ResourcePolicyRule: verbs repeated string = 1; apiGroups repeated string = 2; resources repeated string = 3; clusterScope bool = 4; namespaces repeated string = 5
flowcontrol.v1.ServiceAccountSubject: namespace string = 1; name string = 2
flowcontrol.v1.Subject: kind string = 1; user flowcontrol.v1.UserSubject = 2; group flowcontrol.v1.GroupSubject = 3; serviceAccount flowcontrol.v1.ServiceAccountSubject = 4
flowcontrol.v1.UserSubject: name string = 1
meta.v1.Condition: type string = 1; status string = 2; observedGeneration int64 = 3; lastTransitionTime meta.v1.Time = 4; reason string = 5; message string = 6
meta.v1.DeleteOptions: gracePeriodSeconds int64 = 1; preconditions meta.v1.Preconditions = 2; orphanDependents bool = 3; propagationPolicy string = 4; dryRun repeated string = 5; ignoreStoreReadErrorWithClusterBreakingPotential bool = 6
meta.v1.Duration: duration int64 = 1
meta.v1.FieldSelectorRequirement: key string = 1; operator string = 2; values repeated string = 3
meta.v1.FieldsV1: Raw bytes = 1
meta.v1.GroupResource: group string = 1; resource string = 2
meta.v1.LabelSelector: matchLabels map<string, string> = 1; matchExpressions repeated meta.v1.LabelSelectorRequirement = 2
meta.v1.LabelSelectorRequirement: key string = 1; operator string = 2; values repeated string = 3
meta.v1.ListMeta: selfLink string = 1; resourceVersion string = 2; continue string = 3; remainingItemCount int64 = 4
meta.v1.ManagedFieldsEntry: manager string = 1; operation string = 2; apiVersion string = 3; time meta.v1.Time = 4; fieldsType string = 6; fieldsV1 meta.v1.FieldsV1 = 7; subresource string = 8
meta.v1.MicroTime: seconds int64 = 1; nanos int32 = 2
meta.v1.ObjectMeta: name string = 1; generateName string = 2; namespace string = 3; selfLink string = 4; uid string = 5; resourceVersion string = 6; generation int64 = 7; creationTimestamp meta.v1.Time = 8; deletionTimestamp meta.v1.Time = 9; deletionGracePeriodSeconds int64 = 10; labels map<string, string> = 11; annotations map<string, string> = 12; ownerReferences repeated meta.v1.OwnerReference = 13; finalizers repeated string = 14; managedFields repeated meta.v1.ManagedFieldsEntry = 17
meta.v1.OwnerReference: kind string = 1; name string = 3; uid string = 4; apiVersion string = 5; controller bool = 6; blockOwnerDeletion bool = 7
meta.v1.Patch: (empty)
meta.v1.Preconditions: uid string = 1; resourceVersion string = 2
meta.v1.Time: seconds int64 = 1; nanos int32 = 2
networking.v1.HTTPIngressPath: path string = 1; backend networking.v1.IngressBackend = 2; pathType string = 3
networking.v1.HTTPIngressRuleValue: paths repeated networking.v1.HTTPIngressPath = 1
networking.v1.IPBlock: cidr string = 1; except repeated string = 2
networking.v1.Ingress: metadata meta.v1.ObjectMeta = 1; spec networking.v1.IngressSpec = 2; status networking.v1.IngressStatus = 3
networking.v1.IngressBackend: resource core.v1.TypedLocalObjectReference = 3; service networking.v1.IngressServiceBackend = 4
networking.v1.IngressClass: metadata meta.v1.ObjectMeta = 1; spec networking.v1.IngressClassSpec = 2
networking.v1.IngressClassParametersReference: apiGroup string = 1; kind string = 2; name string = 3; scope string = 4; namespace string = 5
networking.v1.IngressClassSpec: controller string = 1; parameters networking.v1.IngressClassParametersReference = 2
networking.v1.IngressLoadBalancerIngress: ip string = 1; hostname string = 2; ports repeated networking.v1.IngressPortStatus = 4
networking.v1.IngressLoadBalancerStatus: ingress repeated networking.v1.IngressLoadBalancerIngress = 1
networking.v1.IngressPortStatus: port int32 = 1; protocol string = 2; error string = 3
networking.v1.IngressRule: host string = 1; inline_ingressRuleValue networking.v1.IngressRuleValue = 2
networking.v1.IngressRuleValue: http networking.v1.HTTPIngressRuleValue = 1
networking.v1.IngressServiceBackend: name string = 1; port networking.v1.ServiceBackendPort = 2
networking.v1.IngressSpec: defaultBackend networking.v1.IngressBackend = 1; tls repeated networking.v1.IngressTLS = 2; rules repeated networking.v1.IngressRule = 3; ingressClassName string = 4
networking.v1.IngressStatus: loadBalancer networking.v1.IngressLoadBalancerStatus = 1
networking.v1.IngressTLS: hosts repeated string = 1; secretName string = 2
networking.v1.NetworkPolicy: metadata meta.v1.ObjectMeta = 1; spec networking.v1.NetworkPolicySpec = 2
networking.v1.NetworkPolicyEgressRule: ports repeated networking.v1.NetworkPolicyPort = 1; to repeated networking.v1.NetworkPolicyPeer = 2
networking.v1.NetworkPolicyIngressRule: ports repeated networking.v1.NetworkPolicyPort = 1; from repeated networking.v1.NetworkPolicyPeer = 2
networking.v1.NetworkPolicyPeer: podSelector meta.v1.LabelSelector = 1; namespaceSelector meta.v1.LabelSelector = 2; ipBlock networking.v1.IPBlock = 3
networking.v1.NetworkPolicyPort: protocol string = 1; port util.intstr.IntOrString = 2; endPort int32 = 3
networking.v1.NetworkPolicySpec: podSelector meta.v1.LabelSelector = 1; ingress repeated networking.v1.NetworkPolicyIngressRule = 2; egress repeated networking.v1.NetworkPolicyEgressRule = 3; policyTypes repeated string = 4
networking.v1.ServiceBackendPort: name string = 1; number int32 = 2
node.v1.Overhead: podFixed map<string, resource.Quantity> = 1
node.v1.RuntimeClass: metadata meta.v1.ObjectMeta = 1; handler string = 2; overhead node.v1.Overhead = 3; scheduling node.v1.Scheduling = 4
node.v1.Scheduling: nodeSelector map<string, string> = 1; tolerations repeated core.v1.Toleration = 2
policy.v1.Eviction: metadata meta.v1.ObjectMeta = 1; deleteOptions meta.v1.DeleteOptions = 2
policy.v1.PodDisruptionBudget: metadata meta.v1.ObjectMeta = 1; spec policy.v1.PodDisruptionBudgetSpec = 2; status policy.v1.PodDisruptionBudgetStatus = 3
policy.v1.PodDisruptionBudgetSpec: minAvailable util.intstr.IntOrString = 1; selector meta.v1.LabelSelector = 2; maxUnavailable util.intstr.IntOrString = 3; unhealthyPodEvictionPolicy string = 4
policy.v1.PodDisruptionBudgetStatus: observedGeneration int64 = 1; disruptedPods map<string, meta.v1.Time> = 2; disruptionsAllowed int32 = 3; currentHealthy int32 = 4; desiredHealthy int32 = 5; expectedPods int32 = 6; conditions repeated meta.v1.Condition = 7
rbac.v1.AggregationRule: clusterRoleSelectors repeated meta.v1.LabelSelector = 1
rbac.v1.ClusterRole: metadata meta.v1.ObjectMeta = 1; rules repeated rbac.v1.PolicyRule = 2; aggregationRule rbac.v1.AggregationRule = 3
rbac.v1.ClusterRoleBinding: metadata meta.v1.ObjectMeta = 1; subjects repeated rbac.v1.Subject = 2; roleRef rbac.v1.RoleRef = 3
rbac.v1.PolicyRule: verbs repeated string = 1; apiGroups repeated string = 2; resources repeated string = 3; resourceNames repeated string = 4; nonResourceURLs repeated string = 5
rbac.v1.Role: metadata meta.v1.ObjectMeta = 1; rules repeated rbac.v1.PolicyRule = 2
rbac.v1.RoleBinding: metadata meta.v1.ObjectMeta = 1; subjects repeated rbac.v1.Subject = 2; roleRef rbac.v1.RoleRef = 3
rbac.v1.RoleRef: apiGroup string = 1; kind string = 2; name string = 3
rbac.v1.Subject: kind string = 1; apiGroup string = 2; name string = 3; namespace string = 4
resource.Quantity: string string = 1
runtime.RawExtension: raw bytes = 1
runtime.TypeMeta: apiVersion string = 1; kind string = 2
runtime.Unknown: typeMeta runtime.TypeMeta = 1; raw bytes = 2; contentEncoding string = 3; contentType string = 4
scheduling.v1.PriorityClass: metadata meta.v1.ObjectMeta = 1; value int32 = 2; globalDefault bool = 3; description string = 4; preemptionPolicy string = 5
storage.v1.CSIDriver: metadata meta.v1.ObjectMeta = 1; spec storage.v1.CSIDriverSpec = 2
storage.v1.CSIDriverSpec: attachRequired bool = 1; podInfoOnMount bool = 2; volumeLifecycleModes repeated string = 3; storageCapacity bool = 4; fsGroupPolicy string = 5; tokenRequests repeated storage.v1.TokenRequest = 6; requiresRepublish bool = 7; seLinuxMount bool = 8
storage.v1.CSINode: metadata meta.v1.ObjectMeta = 1; spec storage.v1.CSINodeSpec = 2
storage.v1.CSINodeDriver: name string = 1; nodeID string = 2; topologyKeys repeated string = 3; allocatable storage.v1.VolumeNodeResources = 4
storage.v1.CSINodeSpec: drivers repeated storage.v1.CSINodeDriver = 1
storage.v1.CSIStorageCapacity: metadata meta.v1.ObjectMeta = 1; nodeTopology meta.v1.LabelSelector = 2; storageClassName string = 3; capacity resource.Quantity = 4; maximumVolumeSize resource.Quantity = 5
storage.v1.StorageClass: metadata meta.v1.ObjectMeta = 1; provisioner string = 2; parameters map<string, string> = 3; reclaimPolicy string = 4; mountOptions repeated string = 5; allowVolumeExpansion bool = 6; volumeBindingMode string = 7; allowedTopologies repeated core.v1.TopologySelectorTerm = 8
storage.v1.TokenRequest: audience string = 1; expirationSeconds int64 = 2
storage.v1.VolumeAttachment: metadata meta.v1.ObjectMeta = 1; spec storage.v1.VolumeAttachmentSpec = 2; status storage.v1.VolumeAttachmentStatus = 3
storage.v1.VolumeAttachmentSource: persistentVolumeName string = 1; inlineVolumeSpec core.v1.PersistentVolumeSpec = 2
storage.v1.VolumeAttachmentSpec: attacher string = 1; source storage.v1.VolumeAttachmentSource = 2; nodeName string = 3
storage.v1.VolumeAttachmentStatus: attached bool = 1; attachmentMetadata map<string, string> = 2; attachError storage.v1.VolumeError = 3; detachError storage.v1.VolumeError = 4
storage.v1.VolumeError: time meta.v1.Time = 1; message string = 2
storage.v1.VolumeNodeResources: count int32 = 1
util.intstr.IntOrString: type int64 = 1; intVal int32 = 2; strVal string = 3
"""
