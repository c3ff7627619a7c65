"""The model that a request means, opened as it asks: which file, which preprocessing, how many threads."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from birdsonnx.config.cache_folder import user_cache
from birdsonnx.config.computing import EngineName, Precision
from birdsonnx.errors import ConfigError, EngineError, ModelError
from birdsonnx.inference import classifier as classifiers
from birdsonnx.inference import engines, forms, tuning
from birdsonnx.inference.classifier import Classifier
from birdsonnx.inference.forms import Form
from birdsonnx.inference.requests import Request
from birdsonnx.model import calibrated_form, int8_form
from birdsonnx.model.checkpoint_names import HOW_TO_QUANTIZE, default_folder
from birdsonnx.model.file_bytes import read_bytes
from birdsonnx.model.soundness import require_sound
from birdsonnx.runtime import threads
from birdsonnx.runtime.audience import Audience
from birdsonnx.runtime.ranks import Ranks


@dataclass(frozen=True)
class ChosenModel:
    """The model that a request means."""

    content: Path | bytes
    """Its file; or its content, where the config makes another model of the file."""
    where: str
    """The file's name."""

    def read(self) -> bytes:
        """The content. Raises ModelError where it cannot be read, or is unsound."""
        if isinstance(self.content, bytes):
            return self.content
        content = read_bytes(self.content)
        require_sound(content, self.where)
        return content


def choose_model(request: Request, say: Callable[[str], None]) -> ChosenModel:
    """The model to predict with, with the preprocessing that the config asks for.

    Raises:
        BirdsonnxError: there is none, or it cannot be what the config asks for.
    """
    settings = request.settings
    if request.model is None and settings is not None and settings.checkpoints.load is not None:
        from birdsonnx.keras_io import loading  # not at the top: prediction itself starts faster without onnx

        return ChosenModel(*loading.to_predict(settings, say))
    path = request.model
    if path is None:
        saved = None if settings is None else settings.checkpoints.save
        folder = Path(saved) if saved is not None else default_folder(say)
        path = calibrated_form.newest_in(folder, say, int8=request.precision == "int8")
    else:
        source = int8_form.source_beside(path)
        why = int8_form.misfit(path, source) if source is not None else ""
        if why:
            say(f"{path} {why}; it is used because it was named")
    chosen = ChosenModel(path, str(path))
    if settings is None or not request.replaces_preprocessing:
        return chosen
    from birdsonnx.keras_io import loading
    from birdsonnx.model import model_file

    model = model_file.parse(chosen.read(), chosen.where)
    return ChosenModel(loading.with_normalize(model, settings, say).serialized(), chosen.where)


def open_model(
    model: ChosenModel, photos: int, request: Request, ranks: Ranks, audience: Audience
) -> Classifier:
    """Open it for so many photos over all ranks; every rank calls this.

    Raises:
        BirdsonnxError: it cannot be used, or is not what the request asks for.
    """
    share = threads.share(ranks, request.threads)
    if share.note:
        audience.say(share.note)
    most = -(-photos // ranks.size)  # of one rank, if all are as fast
    form = ranks.first(lambda: _form(model, request, most, share.threads, audience))
    engine = ranks.first(lambda: _engine(model, request, photos) if form is None else form.engine)

    def opened(engine: EngineName, form: Form | None, per_run: int) -> Classifier:
        classifier = classifiers.open_classifier(
            model.content,
            model.where,
            most,
            share.threads,
            request.transforms,
            form,
            per_run,
            grayscale=request.grayscale,
            engine=engine,
            bf16=request.bf16,
        )
        require_precision(request.precision, classifier, model.where)
        return classifier

    # Ranks hand each other pieces by their numbers, also where one has more threads than another.
    usual = ranks.first(lambda: forms.chosen(form, engine, most, share.threads).per_run)
    try:
        return ranks.together(lambda: opened(engine, form, request.per_run or usual))
    except EngineError as refusal:  # on all ranks, so that no two compute by different engines
        if request.bf16:
            raise
        audience.say(f"{refusal}; ONNX Runtime does")
        usual = ranks.first(lambda: forms.chosen(None, "onnxruntime", most, share.threads).per_run)
        return ranks.together(lambda: opened("onnxruntime", None, request.per_run or usual))


def _engine(model: ChosenModel, request: Request, photos: int) -> EngineName:
    """Which engine; by all photos, not by a rank's, so that the number of ranks changes no answer."""

    def is_quantized() -> bool:
        return engines.QUANTIZED in model.read()

    return engines.choose(request.engine, request.bf16, photos, is_quantized)


def _form(model: ChosenModel, request: Request, photos: int, threads: int, audience: Audience) -> Form | None:
    """How to spread a rank's photos over cores, as measured now or remembered; None where it was never
    measured, or the photos are too few for it to matter."""
    try:
        memory = tuning.Memory(user_cache())
    except ConfigError:
        if request.tune:
            raise
        return None  # without a home there is nothing to remember
    if not request.tune and (photos < forms.MANY or memory.is_empty):
        return None
    content = model.read()
    among = tuning.Among(
        threads, engines.choosable(request.engine, request.bf16, engines.QUANTIZED in content), request.bf16
    )
    if not request.tune:
        return memory.recall(content, among)
    audience.say("measuring how this machine runs the model fastest …")
    with audience.progress("measuring: forms", sum(1 for _ in among.forms())) as advance:
        found = _probed(content, among, audience, advance)
    memory.keep(content, among, found)
    audience.say(
        f"tuned: {found.form} ({found.images_per_second:.0f} images/s), remembered; used from "
        f"{forms.MANY} photos per rank on"
    )
    return found.form if photos >= forms.MANY else None


def _probed(
    content: bytes, among: tuning.Among, audience: Audience, advance: Callable[[int], None]
) -> tuning.Tuning:
    try:
        return tuning.probe(content, among, advance=advance)
    except EngineError as refusal:
        if among.bf16:
            raise
        audience.say(f"{refusal}; ONNX Runtime does")
        return tuning.probe(content, tuning.Among(among.threads), advance=advance)


def require_precision(precision: Precision | None, classifier: Classifier, where: str) -> None:
    """Raises ModelError where a model is of another kind than was asked for."""
    is_int8 = classifier.metadata.quantization is not None
    if precision == "int8" and not is_int8:
        raise ModelError(f"{where} is a float32 model, --precision asks for int8; {HOW_TO_QUANTIZE}")
    if precision in ("fp32", "bf16") and is_int8:
        raise ModelError(
            f"{where} is an int8 model, --precision asks for {precision}; give the model it was made of"
        )
