"""The section `data`: where the photos lie, and how they become the network's input."""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import AfterValidator, PlainValidator, WithJsonSchema
from pydantic import model_validator as validator

from birdsonnx.config.color_codes import GRAY, RGB
from birdsonnx.config.section import PositiveInt, Section, Text, one_of
from birdsonnx.config.transform_list import parse_transforms
from birdsonnx.config.transforms import Normalize, RandomTransform, Transform, color_steps
from birdsonnx.config.wording import refusal, shown


def _one_folder(value: str) -> str:
    if "/" in value or "\\" in value or value.startswith("."):
        raise refusal(f"{shown(value)} is not the name of one visible folder, such as train")
    return value


OTHER_DATA = {
    "numpy": "numpy arrays",
    "hdf5": "HDF5 arrays",
    "mnist": "MNIST's binary files",
    "pde": "PDE solvers",
}

ImageType = Annotated[
    Literal["images"],
    one_of("images", elsewhere=OTHER_DATA, hint=" (the input birdsonnx reads)"),
]

LabelType = Annotated[
    Literal["labels"],
    one_of(
        "labels",
        elsewhere={**OTHER_DATA, "images": "segmentation", "mask": "segmentation", "masks": "segmentation"},
        hint=" (class folders)",
    ),
]

Tag = Annotated[
    Text,
    AfterValidator(_one_folder),
    WithJsonSchema({"type": "string", "pattern": r"^[^./\\][^/\\]*$"}),
]


class Data(Section):
    """Where the photos lie, and how they become the network's input."""

    input_type: ImageType = "images"
    """What birdsonnx reads: photos."""
    target_type: LabelType = "labels"
    """The name of a photo's class folder says what it shows."""
    input_path: Text | None = None
    """Folder of class folders to train on; without it nothing is trained."""
    test_input_path: Text | None = None
    """Folder to evaluate or predict; without it (and `test_tag`) nothing is evaluated."""
    training_tag: Tag | None = None
    """Name of folders, anywhere in a photo's path: below `input_path`, the photos in them are the training
    photos, and the folder directly below is the class. Photos under neither tag are left out, and counted.
    Names in results stay relative to `input_path`."""
    test_tag: Tag | None = None
    """The same for the test photos, below `test_input_path`, or without that below `input_path`."""
    test_output_path: Text | None = None
    """Folder for HDF5 predictions; without it none are kept."""
    batch_size: PositiveInt = 64
    """Training photos per step, over all ranks."""
    test_batch_size: PositiveInt = 64
    """Evaluation photos per step, over all ranks."""
    preload: bool = False
    """Keep decoded photos in memory where they are read more than once (only with `cache: false`)."""
    grayscale: bool = False
    """Photos become one channel of gray, as networks of one channel get them anyway; a network of three needs
    the transform `{"convert_color": "GRAY2RGB"}` too."""
    transforms: Annotated[
        tuple[Transform, ...] | None, PlainValidator(parse_transforms, json_schema_input_type=list[Any])
    ] = None
    """What becomes of each photo, in order; default: a plain resize to the network's input. At most 32 steps,
    which make at most 67 million pixels of a photo."""

    @property
    def test_folder(self) -> str | None:
        """Where the test photos lie, if there are any."""
        return self.test_input_path or (self.input_path if self.test_tag else None)

    @property
    def augments(self) -> bool:
        """Whether random transforms change a photo in each epoch of training."""
        return any(isinstance(step, RandomTransform) for step in self.transforms or ())

    @property
    def lasting_transforms(self) -> tuple[Transform, ...] | None:
        """What becomes of a photo's pixels everywhere, not only in training; a trained model records it.
        Without `normalize`, which lives in the graph. None: a plain resize to the network's input."""
        if self.transforms is None:
            return None
        return tuple(step for step in self.transforms if not isinstance(step, RandomTransform | Normalize))

    synonyms: ClassVar[dict[str, str]] = {
        "type": "input_type",
        "input_transforms": "transforms",
        "input_grayscale": "grayscale",
        "testing_tag": "test_tag",
    }
    elsewhere: ClassVar[dict[str, str]] = {
        "target_path": "segmentation",
        "test_target_path": "segmentation",
        "target_is_mask": "segmentation",
        "target_transforms": "segmentation",
        "target_grayscale": "segmentation",
        "slicers": "numpy arrays",
        "hdf5_outfile": "numpy arrays",
        "domain_size": "PDE solvers",
        "num_examples": "PDE solvers",
        "num_test_examples": "PDE solvers",
        "bc_frequency": "PDE solvers",
        "bc_type": "PDE solvers",
    }

    @validator(mode="after")
    def _tags_tell_the_sets_apart(self) -> Self:
        if self.test_tag and not self.test_folder:
            raise refusal("there is no folder to look in; give test_input_path or input_path", "test_tag")
        if self.test_tag and not self.test_input_path:
            if self.training_tag is None:
                raise refusal(
                    "without test_input_path the test photos lie in input_path; give training_tag too, so "
                    "that the two sets differ",
                    "test_tag",
                )
            if self.training_tag == self.test_tag:
                raise refusal("is training_tag too: the same photos would train and test", "test_tag")
        return self

    @validator(mode="after")
    def _colors_follow_from_each_other(self) -> Self:
        try:
            color_steps(self.transforms or (), GRAY if self.grayscale else RGB)
        except ValueError as error:
            why = "grayscale is true" if self.grayscale else "grayscale is not true"
            raise refusal(f"{error} ({why})", "transforms") from None
        return self
