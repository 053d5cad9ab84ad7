"""The StatefulSet controller: pods with names and storage of their own, started and ended in order."""
