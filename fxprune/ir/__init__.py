"""What the passes hand on: the tape, the algebra of dimensions, signatures, groups and the example inputs."""
