"""What the tests of MetaServer stand on is in `metaserver_site`."""
