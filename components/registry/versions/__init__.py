"""What a model version is made of: files, logged models, scores, and the proof that it answers."""
