"""Model versions: their files, LoggedModels, scores, integrity and smoke test."""
