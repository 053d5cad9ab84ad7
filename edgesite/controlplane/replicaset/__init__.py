"""The ReplicaSet controller: keeps so many pods of one template."""
