"""CRI v1 on the wire: the messages of ``runtime.v1`` that edged uses, as `edgesite.kube.protowire` tables.

Source  Names and numbers: k8s.io/cri-api, Kubernetes v1.36. Fields for Windows and for user namespaces are left out: unknown ones are skipped.
"""

from __future__ import annotations

from typing import Final

from edgesite.kube.protowire import Messages

__all__ = ["CONTAINERD", "CRI", "IMAGE_SERVICE", "RUNTIME_SERVICE"]

RUNTIME_SERVICE: Final = "/runtime.v1.RuntimeService/"
IMAGE_SERVICE: Final = "/runtime.v1.ImageService/"

CRI: Final = Messages(
    """
enum Protocol: TCP 0, UDP 1, SCTP 2
enum NamespaceMode: POD 0, CONTAINER 1, NODE 2, TARGET 3
enum SupplementalGroupsPolicy: Merge 0, Strict 1
enum ProfileType: RuntimeDefault 0, Unconfined 1, Localhost 2
enum PodSandboxState: SANDBOX_READY 0, SANDBOX_NOTREADY 1
enum ContainerState: CONTAINER_CREATED 0, CONTAINER_RUNNING 1, CONTAINER_EXITED 2, CONTAINER_UNKNOWN 3
enum MountPropagation: PROPAGATION_PRIVATE 0, PROPAGATION_HOST_TO_CONTAINER 1, PROPAGATION_BIDIRECTIONAL 2
enum Signal: RUNTIME_DEFAULT 0, SIGABRT 1, SIGALRM 2, SIGBUS 3, SIGCHLD 4, SIGCLD 5, SIGCONT 6, SIGFPE 7, SIGHUP 8, SIGILL 9, SIGINT 10, SIGIO 11, SIGIOT 12, SIGKILL 13, SIGPIPE 14, SIGPOLL 15, SIGPROF 16, SIGPWR 17, SIGQUIT 18, SIGSEGV 19, SIGSTKFLT 20, SIGSTOP 21, SIGSYS 22, SIGTERM 23, SIGTRAP 24, SIGTSTP 25, SIGTTIN 26, SIGTTOU 27, SIGURG 28, SIGUSR1 29, SIGUSR2 30, SIGVTALRM 31, SIGWINCH 32, SIGXCPU 33, SIGXFSZ 34, SIGRTMIN 35, SIGRTMINPLUS1 36, SIGRTMINPLUS2 37, SIGRTMINPLUS3 38, SIGRTMINPLUS4 39, SIGRTMINPLUS5 40, SIGRTMINPLUS6 41, SIGRTMINPLUS7 42, SIGRTMINPLUS8 43, SIGRTMINPLUS9 44, SIGRTMINPLUS10 45, SIGRTMINPLUS11 46, SIGRTMINPLUS12 47, SIGRTMINPLUS13 48, SIGRTMINPLUS14 49, SIGRTMINPLUS15 50, SIGRTMAXMINUS14 51, SIGRTMAXMINUS13 52, SIGRTMAXMINUS12 53, SIGRTMAXMINUS11 54, SIGRTMAXMINUS10 55, SIGRTMAXMINUS9 56, SIGRTMAXMINUS8 57, SIGRTMAXMINUS7 58, SIGRTMAXMINUS6 59, SIGRTMAXMINUS5 60, SIGRTMAXMINUS4 61, SIGRTMAXMINUS3 62, SIGRTMAXMINUS2 63, SIGRTMAXMINUS1 64, SIGRTMAX 65
enum CgroupDriver: SYSTEMD 0, CGROUPFS 1
enum ContainerEventType: CONTAINER_CREATED_EVENT 0, CONTAINER_STARTED_EVENT 1, CONTAINER_STOPPED_EVENT 2, CONTAINER_DELETED_EVENT 3
AttachRequest: container_id string = 1; stdin bool = 2; tty bool = 3; stdout bool = 4; stderr bool = 5
AttachResponse: url string = 1
AuthConfig: username string = 1; password string = 2; auth string = 3; server_address string = 4; identity_token string = 5; registry_token string = 6
CDIDevice: name string = 1
Capability: add_capabilities repeated string = 1; drop_capabilities repeated string = 2; add_ambient_capabilities repeated string = 3
Container: id string = 1; pod_sandbox_id string = 2; metadata ContainerMetadata = 3; image ImageSpec = 4; image_ref string = 5; state ContainerState = 6; created_at int64 = 7; labels map<string, string> = 8; annotations map<string, string> = 9; image_id string = 10
ContainerAttributes: id string = 1; metadata ContainerMetadata = 2; labels map<string, string> = 3; annotations map<string, string> = 4
ContainerConfig: metadata ContainerMetadata = 1; image ImageSpec = 2; command repeated string = 3; args repeated string = 4; working_dir string = 5; envs repeated KeyValue = 6; mounts repeated Mount = 7; devices repeated Device = 8; labels map<string, string> = 9; annotations map<string, string> = 10; log_path string = 11; stdin bool = 12; stdin_once bool = 13; tty bool = 14; linux LinuxContainerConfig = 15; CDI_devices repeated CDIDevice = 17; stop_signal Signal = 18
ContainerEventResponse: container_id string = 1; container_event_type ContainerEventType = 2; created_at int64 = 3; pod_sandbox_status PodSandboxStatus = 4; containers_statuses repeated ContainerStatus = 5
ContainerFilter: id string = 1; state ContainerStateValue = 2; pod_sandbox_id string = 3; label_selector map<string, string> = 4
ContainerMetadata: name string = 1; attempt uint32 = 2
ContainerResources: linux LinuxContainerResources = 1
ContainerStateValue: state ContainerState = 1
ContainerStats: attributes ContainerAttributes = 1; cpu CpuUsage = 2; memory MemoryUsage = 3; writable_layer FilesystemUsage = 4
ContainerStatsFilter: id string = 1; pod_sandbox_id string = 2; label_selector map<string, string> = 3
ContainerStatus: id string = 1; metadata ContainerMetadata = 2; state ContainerState = 3; created_at int64 = 4; started_at int64 = 5; finished_at int64 = 6; exit_code int32 = 7; image ImageSpec = 8; image_ref string = 9; reason string = 10; message string = 11; labels map<string, string> = 12; annotations map<string, string> = 13; mounts repeated Mount = 14; log_path string = 15; resources ContainerResources = 16; image_id string = 17; user ContainerUser = 18; stop_signal Signal = 19
ContainerStatusRequest: container_id string = 1; verbose bool = 2
ContainerStatusResponse: status ContainerStatus = 1; info map<string, string> = 2
ContainerUser: linux LinuxContainerUser = 1
CpuUsage: timestamp int64 = 1; usage_core_nano_seconds UInt64Value = 2; usage_nano_cores UInt64Value = 3
CreateContainerRequest: pod_sandbox_id string = 1; config ContainerConfig = 2; sandbox_config PodSandboxConfig = 3
CreateContainerResponse: container_id string = 1
DNSConfig: servers repeated string = 1; searches repeated string = 2; options repeated string = 3
Device: container_path string = 1; host_path string = 2; permissions string = 3
ExecRequest: container_id string = 1; cmd repeated string = 2; tty bool = 3; stdin bool = 4; stdout bool = 5; stderr bool = 6
ExecResponse: url string = 1
ExecSyncRequest: container_id string = 1; cmd repeated string = 2; timeout int64 = 3
ExecSyncResponse: stdout bytes = 1; stderr bytes = 2; exit_code int32 = 3
FilesystemIdentifier: mountpoint string = 1
FilesystemUsage: timestamp int64 = 1; fs_id FilesystemIdentifier = 2; used_bytes UInt64Value = 3; inodes_used UInt64Value = 4
GetEventsRequest: (empty)
HugepageLimit: page_size string = 1; limit uint64 = 2
IDMapping: host_id uint32 = 1; container_id uint32 = 2; length uint32 = 3
Image: id string = 1; repo_tags repeated string = 2; repo_digests repeated string = 3; size uint64 = 4; uid Int64Value = 5; username string = 6; spec ImageSpec = 7; pinned bool = 8
ImageFilter: image ImageSpec = 1
ImageFsInfoRequest: (empty)
ImageFsInfoResponse: image_filesystems repeated FilesystemUsage = 1; container_filesystems repeated FilesystemUsage = 2
ImageSpec: image string = 1; annotations map<string, string> = 2; user_specified_image string = 18; runtime_handler string = 19; image_ref string = 20
ImageStatusRequest: image ImageSpec = 1; verbose bool = 2
ImageStatusResponse: image Image = 1; info map<string, string> = 2
Int64Value: value int64 = 1
KeyValue: key string = 1; value bytes = 2
LinuxContainerConfig: resources LinuxContainerResources = 1; security_context LinuxContainerSecurityContext = 2
LinuxContainerResources: cpu_period int64 = 1; cpu_quota int64 = 2; cpu_shares int64 = 3; memory_limit_in_bytes int64 = 4; oom_score_adj int64 = 5; cpuset_cpus string = 6; cpuset_mems string = 7; hugepage_limits repeated HugepageLimit = 8; unified map<string, string> = 9; memory_swap_limit_in_bytes int64 = 10
LinuxContainerSecurityContext: capabilities Capability = 1; privileged bool = 2; namespace_options NamespaceOption = 3; selinux_options SELinuxOption = 4; run_as_user Int64Value = 5; run_as_group Int64Value = 12; run_as_username string = 6; readonly_rootfs bool = 7; supplemental_groups repeated int64 = 8; supplemental_groups_policy SupplementalGroupsPolicy = 17; no_new_privs bool = 11; masked_paths repeated string = 13; readonly_paths repeated string = 14; seccomp SecurityProfile = 15; apparmor SecurityProfile = 16; apparmor_profile string = 9; seccomp_profile_path string = 10
LinuxContainerUser: uid int64 = 1; gid int64 = 2; supplemental_groups repeated int64 = 3
LinuxPodSandboxConfig: cgroup_parent string = 1; security_context LinuxSandboxSecurityContext = 2; sysctls map<string, string> = 3; overhead LinuxContainerResources = 4; resources LinuxContainerResources = 5
LinuxPodSandboxStatus: namespaces Namespace = 1
LinuxSandboxSecurityContext: namespace_options NamespaceOption = 1; selinux_options SELinuxOption = 2; run_as_user Int64Value = 3; run_as_group Int64Value = 8; readonly_rootfs bool = 4; supplemental_groups repeated int64 = 5; supplemental_groups_policy SupplementalGroupsPolicy = 11; privileged bool = 6; seccomp SecurityProfile = 9; apparmor SecurityProfile = 10; seccomp_profile_path string = 7
ListContainerStatsRequest: filter ContainerStatsFilter = 1
ListContainerStatsResponse: stats repeated ContainerStats = 1
ListContainersRequest: filter ContainerFilter = 1
ListContainersResponse: containers repeated Container = 1
ListImagesRequest: filter ImageFilter = 1
ListImagesResponse: images repeated Image = 1
ListPodSandboxRequest: filter PodSandboxFilter = 1
ListPodSandboxResponse: items repeated PodSandbox = 1
MemoryUsage: timestamp int64 = 1; working_set_bytes UInt64Value = 2; available_bytes UInt64Value = 3; usage_bytes UInt64Value = 4; rss_bytes UInt64Value = 5; page_faults UInt64Value = 6; major_page_faults UInt64Value = 7
Mount: container_path string = 1; host_path string = 2; readonly bool = 3; selinux_relabel bool = 4; propagation MountPropagation = 5; uidMappings repeated IDMapping = 6; gidMappings repeated IDMapping = 7; recursive_read_only bool = 8; image ImageSpec = 9; image_sub_path string = 10
Namespace: options NamespaceOption = 2
NamespaceOption: network NamespaceMode = 1; pid NamespaceMode = 2; ipc NamespaceMode = 3; target_id string = 4; userns_options UserNamespace = 5
PodIP: ip string = 1
PodSandbox: id string = 1; metadata PodSandboxMetadata = 2; state PodSandboxState = 3; created_at int64 = 4; labels map<string, string> = 5; annotations map<string, string> = 6; runtime_handler string = 7
PodSandboxConfig: metadata PodSandboxMetadata = 1; hostname string = 2; log_directory string = 3; dns_config DNSConfig = 4; port_mappings repeated PortMapping = 5; labels map<string, string> = 6; annotations map<string, string> = 7; linux LinuxPodSandboxConfig = 8
PodSandboxFilter: id string = 1; state PodSandboxStateValue = 2; label_selector map<string, string> = 3
PodSandboxMetadata: name string = 1; uid string = 2; namespace string = 3; attempt uint32 = 4
PodSandboxNetworkStatus: ip string = 1; additional_ips repeated PodIP = 2
PodSandboxStateValue: state PodSandboxState = 1
PodSandboxStatus: id string = 1; metadata PodSandboxMetadata = 2; state PodSandboxState = 3; created_at int64 = 4; network PodSandboxNetworkStatus = 5; linux LinuxPodSandboxStatus = 6; labels map<string, string> = 7; annotations map<string, string> = 8; runtime_handler string = 9
PodSandboxStatusRequest: pod_sandbox_id string = 1; verbose bool = 2
PodSandboxStatusResponse: status PodSandboxStatus = 1; info map<string, string> = 2; containers_statuses repeated ContainerStatus = 3; timestamp int64 = 4
PortForwardRequest: pod_sandbox_id string = 1; port repeated int32 = 2
PortForwardResponse: url string = 1
PortMapping: protocol Protocol = 1; container_port int32 = 2; host_port int32 = 3; host_ip string = 4
PullImageRequest: image ImageSpec = 1; auth AuthConfig = 2; sandbox_config PodSandboxConfig = 3
PullImageResponse: image_ref string = 1
RemoveContainerRequest: container_id string = 1
RemoveContainerResponse: (empty)
RemoveImageRequest: image ImageSpec = 1
RemoveImageResponse: (empty)
RemovePodSandboxRequest: pod_sandbox_id string = 1
RemovePodSandboxResponse: (empty)
ReopenContainerLogRequest: container_id string = 1
ReopenContainerLogResponse: (empty)
RunPodSandboxRequest: config PodSandboxConfig = 1; runtime_handler string = 2
RunPodSandboxResponse: pod_sandbox_id string = 1
LinuxRuntimeConfiguration: cgroup_driver CgroupDriver = 1
RuntimeConfigRequest: (empty)
RuntimeConfigResponse: linux LinuxRuntimeConfiguration = 1
RuntimeCondition: type string = 1; status bool = 2; reason string = 3; message string = 4
RuntimeFeatures: supplemental_groups_policy bool = 1; user_namespaces_host_network bool = 2
RuntimeHandler: name string = 1; features RuntimeHandlerFeatures = 2
RuntimeHandlerFeatures: recursive_read_only_mounts bool = 1; user_namespaces bool = 2
RuntimeStatus: conditions repeated RuntimeCondition = 1
SELinuxOption: user string = 1; role string = 2; type string = 3; level string = 4
SecurityProfile: profile_type ProfileType = 1; localhost_ref string = 2
StartContainerRequest: container_id string = 1
StartContainerResponse: (empty)
StatusRequest: verbose bool = 1
StatusResponse: status RuntimeStatus = 1; info map<string, string> = 2; runtime_handlers repeated RuntimeHandler = 3; features RuntimeFeatures = 4
StopContainerRequest: container_id string = 1; timeout int64 = 2
StopContainerResponse: (empty)
StopPodSandboxRequest: pod_sandbox_id string = 1
StopPodSandboxResponse: (empty)
UInt64Value: value uint64 = 1
UpdateContainerResourcesRequest: container_id string = 1; linux LinuxContainerResources = 2; annotations map<string, string> = 4
UpdateContainerResourcesResponse: (empty)
UserNamespace: mode NamespaceMode = 1; uids repeated IDMapping = 2; gids repeated IDMapping = 3
VersionRequest: version string = 1
VersionResponse: version string = 1; runtime_name string = 2; runtime_version string = 3; runtime_api_version string = 4
"""
)

#: containerd's own services: events tell of exits where the CRI plugin has no events (before containerd 1.7), tasks end processes that
#: the CRI plugin has lost sight of, and content tells how far pulls are.
CONTAINERD: Final = Messages(
    """
SubscribeRequest: filters repeated string = 1
Envelope: namespace string = 2; topic string = 3; event Any = 4
Any: type_url string = 1; value bytes = 2
TaskExit: container_id string = 1; id string = 2
DeleteTaskRequest: container_id string = 1
KillRequest: container_id string = 1; signal uint32 = 3; all bool = 4
ListStatusesRequest: filters repeated string = 1
ListStatusesResponse: statuses repeated Ingest = 1
Ingest: ref string = 3; offset int64 = 4; total int64 = 5
Empty: (empty)
"""
)
