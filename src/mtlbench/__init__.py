"""mtlbench: which way of balancing tasks helps, on which tasks, by how much, and is the difference real?"""

__version__ = "0.1.0"
