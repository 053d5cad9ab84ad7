"""What kinds do differently from the generic registry: one small file for each family of kinds."""
