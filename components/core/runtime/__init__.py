"""The process of a stage: launch, world, checkpoints, journal. Nothing here decides a result."""
