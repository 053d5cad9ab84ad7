"""Who asks an API at the edge, and whether they may."""
