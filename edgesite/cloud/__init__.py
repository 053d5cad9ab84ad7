"""Cloud modules: one file or folder each. They never import `edgesite.edge`."""
