"""A small image-text pair with random weights, as a folder that open_clip reads."""

import json
from pathlib import Path

SIDE, MEAN, STD = 16, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def write_pair(folder: Path, seed: int = 0) -> str:
    """Write a model of 16 pixels and two layers a side; returns its name in params."""
    import open_clip
    import torch
    from safetensors.torch import save_file

    layers = {"width": 64, "layers": 2}
    config = {
        "embed_dim": 32,
        "vision_cfg": {"image_size": SIDE, "patch_size": 4, "head_width": 16, **layers},
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "heads": 4, **layers},
    }
    facts = {"size": SIDE, "mean": MEAN, "std": STD}
    folder.mkdir(parents=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": facts}))
    name = f"local-dir:{folder}"
    torch.manual_seed(seed)
    model = open_clip.create_model(name)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return f"open_clip:{name}"
