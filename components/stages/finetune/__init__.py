"""Transfer learning: the pretrained network becomes the teacher of the target task."""
