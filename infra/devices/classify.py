"""Classify pictures: python classify.py MODEL.onnx PICTURE…; preprocess.py is on the model card."""

import json
import sys

import onnxruntime
from PIL import Image
from preprocess import preprocess

STORED = {"stored_size": 28, "stored_channels": 1}  # ingest.image_size and ingest.channels of the run

session = onnxruntime.InferenceSession(sys.argv[1])
(pixels,) = session.get_inputs()
_, channels, size, _ = pixels.shape
classes = json.loads(session.get_modelmeta().custom_metadata_map["classes"])
for picture in sys.argv[2:]:
    image = preprocess(Image.open(picture), **STORED, image_size=size, channels=channels)
    (logits,) = session.run(None, {pixels.name: image})
    print(f"{picture}: {classes[logits[0].argmax()]}")
