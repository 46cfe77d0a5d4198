"""``python -m components.pretrain``: the teacher's starting weights."""

from components.core import stage
from components.core.artifacts import sha256_file, write_json
from components.core.models import parameter_count, save
from components.pretrain.weights import pretrained, weights_file


def main(this: stage.Stage) -> None:
    """Write the network that ``pretrain.model`` names with the weights of ``pretrain.weights``, and their origin."""
    name, source = this.params.pretrain.model, this.params.pretrain.weights
    stage.seed_everything(this.params.seed)
    file = weights_file(name, source)
    model = pretrained(name, source, file)
    save(model, this.out("model.safetensors"))
    origin: dict[str, str | int | None] = {"model": name, "weights": source, "file": file.name if file else None}
    origin |= {"sha256": sha256_file(file) if file else None, "parameters": parameter_count(model)}
    write_json(this.out("model.json"), origin)
    this.journal.tags({f"origin.{key}": str(value) for key, value in origin.items()})


if __name__ == "__main__":
    stage.run("pretrain", main)
