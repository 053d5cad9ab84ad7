"""The kubelet HTTP API of a node: logs, pods, health. `LogSource` is what it asks of edged."""
