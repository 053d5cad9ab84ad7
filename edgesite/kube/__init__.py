"""Kubernetes API machinery without I/O: resources, selectors, patches, schemas, quantities, tables, errors."""
