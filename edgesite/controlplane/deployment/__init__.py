"""The Deployment controller: moves pods from one template to the next, through replica sets that keep the history."""
