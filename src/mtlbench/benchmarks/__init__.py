"""What the commands of mtlbench.bench measure."""
