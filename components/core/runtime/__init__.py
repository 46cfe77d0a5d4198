"""How a stage runs as a process: launch, world, checkpoints, journal. Decides no result."""
