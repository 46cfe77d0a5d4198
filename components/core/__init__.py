"""What every stage stands on: params, artifacts, image shards, the training loop, tracking."""
