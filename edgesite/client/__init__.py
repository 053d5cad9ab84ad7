"""One Kubernetes client with two transports (in-process, HTTP); informers, listers, work queues."""
