"""The scheduler: gives each pod a node. Decisions (filters, scores, preemption) are pure; `module` is the shell around them."""
