"""CaCoVID (arXiv 2602.01649): the policy, the selection that it feeds, and its checkpoints."""
