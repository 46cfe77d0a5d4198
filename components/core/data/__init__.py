"""Examples on disk and their order: a split as a stage reads it, the draws of its views, the batches of a step."""
