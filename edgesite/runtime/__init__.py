"""The host: finds plugins, reads configuration, starts, supervises and stops modules."""
