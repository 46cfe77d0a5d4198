"""The foundation of every stage: params, artifacts, images, models, training, and how a process runs."""
