"""The stage's self-supervised training runs: of the teacher, of the student, or of both."""

import shutil

from reflux.components.core.images.shards import join, open_shard, read_dataset
from reflux.components.core.models.pixel_model import PixelModel, adapted, parameter_count, seed_everything
from reflux.components.core.models.precision import computing
from reflux.components.core.runtime import history, progress
from reflux.components.core.runtime.device import resolve_device
from reflux.components.core.runtime.stage import BEFORE, CHECKPOINTS, Stage
from reflux.components.core.student import untrained
from reflux.components.core.training import optim
from reflux.components.core.training.loop import Recipe, fit
from reflux.components.core.views.mixing import Views
from reflux.components.pretrain.possible import check_installed, refuse_no_images
from reflux.components.pretrain.simsiam import SimSiam, loss, pairs_of_views

# The paper's for ImageNet: SGD with momentum 0.9, weight decay 1e-4, a cosine without warmup (section 3).
_OPTIMIZER, _SCHEDULE, _WARMUP, _WEIGHT_DECAY = "sgd", "cosine", 0.0, 1e-4
_VALIDATIONS = 10


class Pretraining:
    """Trains networks on all training images, labeled and unlabeled, by ``pretrain``.

    Raises:
        UserError: lightly is not installed, or there are no unlabeled images.
    """

    def __init__(self, stage: Stage) -> None:
        params = stage.params
        check_installed()
        self._stage = stage
        self._dataset = read_dataset(stage.read("ingest/images.json"))
        splits = (stage.read(f"ingest/shards/{split}") for split in ("train", "unlabeled", "val"))
        self._labeled, unlabeled, self._val = (open_shard(split, params.run.workers) for split in splits)
        refuse_no_images(params.pretrain.mode, len(unlabeled))
        self._images = join(self._labeled, unlabeled)
        self._device = resolve_device(params.run.device, params.run.threads, params.run.deterministic)
        stage.environment |= computing(self._device, "auto", params.run.compile)

    @property
    def origin(self) -> dict[str, str | int | None]:
        """What the origin of the weights says of this training."""
        return {"mode": self._stage.params.pretrain.mode, "images": len(self._images)}

    def teach(self, role: str, model: PixelModel | None) -> PixelModel:
        """Train the teacher's or the student's network from its weights, or None for random ones of the student.

        Returns:
            The network with the weights that validation has chosen, by the accuracy of its head on features that the
            labels have not taught; on the CPU.

        Raises:
            UserError: the network can't take the images, or the loss is no longer finite.
        """
        stage, params, dataset = self._stage, self._stage.params, self._dataset
        settings = params.pretrain
        size = params.finetune.image_size if role == "teacher" else params.student.image_size
        seed_everything(params.seed)
        if model is None:
            model = untrained(params.student.model, size, dataset, self._device)
        else:
            model = adapted(model, dataset.classes, size, dataset.channels).to(self._device)
        network = SimSiam(model).to(self._device)
        recipe = Recipe.of(
            settings.model_dump(),
            optimizer=_OPTIMIZER,
            schedule=_SCHEDULE,
            warmup=_WARMUP,
            weight_decay=_WEIGHT_DECAY,
            eval_every=-(-settings.steps // _VALIDATIONS),
            compile=params.run.compile,
        )
        checkpoints = stage.checkpoints("pretrain", "finetune", "student", before=role)
        stage.journal.params({f"{role}_parameters": parameter_count(model), "device": str(self._device)})
        views = Views(self._images, params.seed, settings.augment.model_dump())
        batches = pairs_of_views(views, settings.batch_size, self._device)
        groups = optim.weight_decay_groups(network, recipe.weight_decay)
        optimizer = optim.optimizer(groups, recipe.optimizer, recipe.lr, recipe.weight_decay)
        begun = settings.steps * settings.networks.index(role)
        with progress.bar(stage.name, role, recipe.steps * recipe.batch_size, done=checkpoints.images) as bar:
            fit(
                network,
                optimizer,
                batches,
                loss,
                self._val,
                recipe,
                self._device,
                checkpoints,
                report=history.to_journal(stage.journal, checkpoints, role, begun),
                advance=bar.advance,
                train=self._labeled,
            )
        checkpoints.wait()
        return model.cpu()

    def end(self) -> None:
        """Remove the checkpoints: a training run's last one was its result until all had ended."""
        shutil.rmtree(CHECKPOINTS / f"{self._stage.name}{BEFORE}", ignore_errors=True)
