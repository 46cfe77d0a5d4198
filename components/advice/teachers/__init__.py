"""Teachers: which pretrained network suits a dataset, asked of its labeled images before anything is trained."""
