"""The command line itself: help, exit codes, start-up, what each verb imports."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from birdsonnx.model.model_file import BirdModel
from birdsonnx.runtime import gradient_builder
from tests.command import VERBS, birdsonnx, refused, succeed
from tests.tiny import tiny_model


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example(verb):
    text = succeed(verb, "--help", fresh=True)
    assert f"birdsonnx {verb}" in text.split("Example:")[1]
    assert "--json" in text
    assert "--debug" in text


def test_help_names_every_verb():
    text = succeed("--help")
    assert all(f"  {verb} " in text for verb in VERBS)


@pytest.mark.parametrize("columns", ["80", "200"])
def test_help_says_what_every_verb_does_in_whole_sentences(columns):
    text = succeed("--help", environment={"COLUMNS": columns})
    assert "..." not in text.split("Commands:")[1]
    assert max(map(len, text.splitlines())) < 80


@pytest.mark.parametrize("verb", VERBS)
def test_an_option_that_is_misspelt_has_the_nearest_named(verb):
    done = birdsonnx(verb, "--jsno")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == "Error: No such option: --jsno; did you mean '--json'?"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["predict", "x", "--topk", "3"], "No such option: --topk; did you mean '--top-k'?"),
        (["export", "--label", "x"], "No such option: --label; did you mean '--labels'?"),
        (["pedict", "x"], "No such command 'pedict'. Did you mean 'predict'?"),
        (["predict", "x", "--engine", "openvno"], "did you mean 'openvino'?"),
        (["predict", "x", "--precision", "int"], "did you mean 'int8'?"),
        (["export", "--converter", "tf2onx"], "did you mean 'tf2onnx'?"),
        (["quantize", "x", "--calibrate", "x", "--method", "minmx"], "did you mean 'minmax'?"),
    ],
)
def test_the_nearest_word_is_named(words, said):
    assert said in birdsonnx(*words).stderr


def test_version():
    from birdsonnx import __version__

    assert succeed("--version", fresh=True).strip() == f"birdsonnx {__version__}"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize(
    "words", [["--help"], ["info", "--help"], ["--version"], ["schema"], ["schema", "--json"]], ids=" ".join
)
def test_a_stdout_that_takes_nothing_is_one_line(words):
    """Such as a file on a full disk."""
    command = [sys.executable, "-m", "birdsonnx", *words]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        2,
        "birdsonnx: cannot write to stdout: No space left on device\n",
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("closed", ["2>/dev/full", "2>&-", ">&- 2>&-"])
@pytest.mark.parametrize("words", ["info nothing.onnx", "predict nothing --model nothing.onnx", "nonsense"])
def test_an_error_that_nobody_can_be_told_keeps_its_exit_code(words, closed):
    command = f"'{sys.executable}' -m birdsonnx {words} {closed}"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


def test_who_reads_json_may_leave():
    command = f"'{sys.executable}' -m birdsonnx schema --json | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("141\n", "")


def test_help_imports_nothing_heavy():
    code = (
        "import sys\n"
        "from birdsonnx.cli.app import app\n"
        "try:\n    app(['--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'numpy', 'onnx', 'onnxruntime', 'h5py', 'PIL', 'pydantic', 'mpi4py', 'tensorflow'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("words", [["--model", "model.onnx"], [], ["--config", "config.json"]])
def test_predict_imports_nothing_that_it_does_not_need(workspace, words):
    """Neither TensorFlow nor MPI, nor, for a plain float32 model, the onnx package, nor what the runtime's
    training half looks for."""
    model = tiny_model(3)
    checkpoint = BirdModel(model.proto, model.metadata.having(run={"run": 1, "epoch": 1}), "checkpoint")
    checkpoint.save(Path("model_checkpoints_save/model_checkpoint_1.onnx"))
    Path("config.json").write_text('{"neural_network": {"data": {"test_input_path": "data/valid"}}}')
    code = (
        "import sys\n"
        "from birdsonnx.cli.app import app\n"
        "try:\n"
        f"    app(['predict', 'data/valid', *{words}])\n"
        "except SystemExit as end:\n"
        "    print(end.code)\n"
        "heavy = {'tensorflow', 'keras', 'tf2onnx', 'mpi4py', 'matplotlib', 'birdsonnx.model.model_file', "
        "'onnx', 'torch', 'onnxruntime.training', 'openvino'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=workspace
    )
    assert done.stdout.splitlines()[-2:] == ["0", "[]"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train"], "no config given"),
        (["train", "a.json", "--config", "b.json"], "two configs"),
        (["train", "nothing.json"], "there is no such config file"),
        (["predict"], "no photos to name"),
        (["predict", "nothing"], "no such file or folder"),
        (["predict", "."], "no photos in this folder"),
        (["evaluate", "nothing.h5"], "there is no such file or folder"),
        (["info", "nothing.onnx"], "there is no such model"),
        (["benchmark", "nothing.onnx"], "there is no such model"),
        (["benchmark"], "no model_checkpoint_*.onnx there"),
        (["quantize", "nothing.onnx", "--calibrate", "."], "there is no such model"),
        (["plot", "nothing.txt"], "there is no such log"),
        (["sample", "nothing", "there"], "there is no such folder"),
        (["export", "nothing.h5"], "there is no such file"),
        (["plot", "."], ".: names no file"),
        (["plot", "--augmented", "."], ".: "),
        (["quantize", ".", "--calibrate", "."], ".: cannot be read"),
        (["export", "--to", "keras", ".", "--layers", "layers.json"], "--to keras needs an .onnx"),
        (["info", "."], ".: cannot be read"),
        (["schema", "-o", "."], "cannot write .: "),
    ],
)
def test_what_is_missing_is_one_line_and_exit_2(words, expected):
    assert expected in refused(*words)


@pytest.mark.parametrize(
    "words",
    [
        ["info", "model.onnx"],
        ["predict", "data/valid", "--model", "model.onnx", "--json"],
        ["predict", "nothing", "--json"],
        ["plot", "a", "b"],
    ],
    ids=" ".join,
)
def test_a_fork_is_like_a_fresh_process(workspace, words):
    """What most tests here rely on (see `tests.forks`)."""
    fork, fresh = birdsonnx(*words), birdsonnx(*words, fresh=True)
    assert fork.returncode == fresh.returncode
    assert fork.stderr == fresh.stderr
    if "--model" in words:
        named = [json.loads(done.stdout)["predictions"] for done in (fork, fresh)]
        assert named[0] == named[1]
    else:
        assert fork.stdout == fresh.stdout


def test_an_error_under_json_is_one_object():
    done = birdsonnx("predict", "nothing", "--json")
    assert done.returncode == 2
    assert list(json.loads(done.stdout)) == ["error"]


def test_debug_shows_the_traceback():
    done = birdsonnx("predict", "nothing", "--debug")
    assert done.returncode != 0
    assert "Traceback" in done.stderr


def test_doctor_knows_this_installation():
    text = succeed("doctor", fresh=True)
    found = json.loads(succeed("doctor", "--json"))
    assert found["training"]
    assert found["fine_tuning"] == (gradient_builder.is_installed() or found["onednn"] is not None)
    assert ("trains heads and fine-tunes" in text) == found["fine_tuning"]
    assert ("fine-tuning needs onnxruntime-training-cpu" in text) != found["fine_tuning"]


def test_a_launcher_that_mpi_does_not_see_is_refused(workspace):
    # Two processes are announced, but MPI sees one: a foreign mpirun.
    environment = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "0"}
    line = refused("predict", "data/valid", "--model", "model.onnx", environment=environment)
    assert "2 processes" in line
    silent = birdsonnx(
        "predict",
        "data/valid",
        "--model",
        "model.onnx",
        environment={"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"},
    )
    assert (silent.returncode, silent.stderr) == (2, "")
