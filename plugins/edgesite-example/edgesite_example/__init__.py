"""Example plugin: copy it to begin your own."""
