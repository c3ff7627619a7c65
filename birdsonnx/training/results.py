"""What a training run leaves behind: checkpoints, the best model so far, predictions of the test photos."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from birdsonnx import artifacts
from birdsonnx.artifacts import commands
from birdsonnx.artifacts.commands import Command
from birdsonnx.config.settings import Settings
from birdsonnx.inference.keeping import hdf5, hdf5_table
from birdsonnx.model.model_file import BirdModel
from birdsonnx.model.weights import with_weights
from birdsonnx.runtime.phases import OfRanks
from birdsonnx.runtime.ranks import Ranks
from birdsonnx.training import checkpoints, resuming
from birdsonnx.training.epochs import NOT_BEGUN, Begun, Epoch, best_epoch
from birdsonnx.training.loop import Predictions
from birdsonnx.training.plan import Plan


@dataclass(frozen=True)
class Outcome:
    """What came of a run."""

    epochs: list[Epoch]
    checkpoints: list[Path]
    seconds: dict[str, float]
    """Wall time of the parts of the run."""
    phases: OfRanks = field(default_factory=list)
    """What each rank spent its time on (`loop`, `feature_table`): all at the same time as the others, the sum
    with waiting for them."""


class Results:
    """Writes them as the loop goes on (`loop.Keeper`): every rank calls, rank 0 writes.

    Args:
        say: takes a line for each checkpoint.
        command: the one that trains.
        log: the record by which a run that goes on from a checkpoint finds its logs.
    """

    def __init__(
        self,
        settings: Settings,
        ranks: Ranks,
        plan: Plan,
        say: Callable[[str], None],
        command: Command,
        log: str | None = None,
    ) -> None:
        self._settings = settings
        self._ranks = ranks
        self._plan = plan
        self._say = say
        self._command = command
        self._log = log
        self._started = time.perf_counter()
        self.before = [Epoch(**entry) for entry in plan.model.metadata.history]
        """Epochs of the run that is resumed."""
        self.epochs: list[Epoch] = []
        """Those of this process."""
        self.checkpoints: list[Path] = []
        self._predictions: list[Predictions] = []

    @property
    def history(self) -> list[Epoch]:
        """All epochs of the run so far."""
        return [*self.before, *self.epochs]

    def keep_epoch(self, epoch: Epoch, last: bool) -> None:
        """Note an epoch, and write a checkpoint where one is due, and the best model where it is that.

        Raises:
            ArtifactError: it cannot be written; the checkpoints so far are intact.
        """
        self.epochs.append(epoch)
        saving, patience = self._settings.checkpoints, self._settings.birdsonnx.early_stopping
        due = last or epoch.epoch % saving.interval == 0
        best = patience is not None and best_epoch(self.history) == epoch.epoch
        if saving.save is None or not (due or best):
            return
        folder, checkpoint = Path(saving.save), self._model_after({"epoch": epoch.epoch})
        if due:
            path = self._ranks.first(lambda: self._save(folder, checkpoint))
            self.checkpoints.append(path)
            self._say(f"checkpoint {path}")
        if best:
            path = self._ranks.first(lambda: checkpoints.save_best(folder, checkpoint))
            self._say(f"best so far {path}")

    def keep_begun(self, done: int, begun: Begun) -> str:
        """Write where the run stands after some steps of the epoch after `done`; gives a line about it.

        Raises:
            ArtifactError: it cannot be written; the checkpoints so far are intact.
        """
        place = f"interrupted in epoch {done + 1} after batch {begun.steps}"
        save = self._settings.checkpoints.save
        if save is None:
            return f"{place}; nothing is kept without checkpoints.save"
        checkpoint = self._model_after({"epoch": done, "step": begun.steps})
        path = self._ranks.first(lambda: self._save(Path(save), checkpoint, begun))
        return f"{place}; kept in {path}"

    @property
    def keeps_predictions(self) -> bool:
        """Whether anything comes of `keep_predictions`."""
        wanted = self._settings.data.test_output_path is not None or self._settings.birdsonnx.calibrate
        return wanted and self._plan.test is not None

    def keep_predictions(self, epoch: int, predictions: Iterator[Predictions]) -> None:
        """Keep this rank's test predictions until the next epoch's; write `output_<epoch>.h5` with those of
        all ranks, where it is asked for. It names the hash of the epoch's checkpoint, where there is one.

        Raises:
            ArtifactError: it cannot be written; the checkpoints so far are intact.
        """
        self._predictions = list(predictions)
        if self._settings.data.test_output_path is not None:
            every = self.last_predictions()
            self._ranks.first(lambda: self._write_predictions(epoch, every))

    def last_predictions(self) -> list[Predictions]:
        """Those of all ranks for the test photos after the last epoch, on rank 0; every rank calls this."""
        return list(self._ranks.merge(iter(self._predictions)))  # as much as one rank alone has in memory

    def _write_predictions(self, epoch: int, predictions: Sequence[Predictions]) -> None:
        folder, test = self._settings.data.test_output_path, self._plan.test
        assert folder is not None
        assert test is not None
        classes = self._plan.model.metadata.classes
        checkpoint = checkpoints.model_path(Path(self._settings.checkpoints.save or ""), epoch)
        is_there = checkpoint in self.checkpoints and checkpoint.is_file()
        digest, model = (artifacts.sha256(checkpoint), str(checkpoint)) if is_there else (None, None)
        path, record = Path(folder) / f"output_{epoch}.h5", self._command.record(Path(folder))
        replaced = commands.replaces(path, record, hdf5.command_of)
        if replaced:
            self._say(replaced)
        is_table = self._settings.birdsonnx.output_layout == "table"
        table = hdf5_table.Size.of(test.photos) if is_table else None
        with hdf5.writing(path, classes, digest, model, record, table) as writer:
            for rows, log_probs in predictions:
                for row, values in zip(rows, log_probs, strict=True):
                    writer.put(test.photos[row].name, values)

    def _model_after(self, place: Mapping[str, int]) -> BirdModel:
        """The model with the weights as they are now, and its history."""
        entries = [
            {key: value for key, value in asdict(entry).items() if value is not None}
            for entry in self.history
        ]
        trained = with_weights(self._plan.model, self._plan.weights.named)
        record = {"run": self._plan.run, **place}
        metadata = trained.metadata.having(history=tuple(entries), run=record)
        return BirdModel(trained.proto, metadata, trained.where)

    def _save(self, folder: Path, checkpoint: BirdModel, begun: Begun = NOT_BEGUN) -> Path:
        time_s = self._plan.time_s + time.perf_counter() - self._started
        tensors = list(self._plan.choice.boundary.tensors)
        photos = resuming.photos_of(self._plan.train)
        shared = {
            **resuming.shared_settings(self._settings),
            "photos": photos,
            "boundary": tensors,
            "log": self._log,
            "computed_by": self._plan.trained.computed_by,
        }
        return checkpoints.save(folder, checkpoint, self._plan.optimizer, time_s, shared, begun)
