"""The README and the documentation: commands parse, code runs, configs and links exist."""

import argparse
import configparser
import fnmatch
import importlib
import logging
import re
import runpy
import shlex
from pathlib import Path

import pytest
import test_imports
from documents import FENCE, LINKING, PAGES, ROOT, blocks, inline_code, name_of, outside_code
from made import make_picture
from PIL import Image

from deepfill_jax import cli, config, flags

WITH_FLAGS = ("train", "evaluate", "doctor", "main")  # Read by flags.py, the others by argparse.
IMAGES = {"photo.jpg", "photo.png", "mask.png", "lines.png"}  # That Python code may read.
# Flags in running text that belong to other programs.
FOREIGN = {
    "--nodes",
    "--ntasks-per-node",
    "--cpus-per-task",
    "--gpus-per-node",
    "--target",
    "--env",
    "--no-deps",
}
FOLDERS = "benchmarks|configs|docs|launch|tests"


def commands():
    """The words of every command in a shell block, with its page, continued lines joined."""
    for path in PAGES:
        for block in blocks(path, "bash"):
            for line in block.replace("\\\n", " ").splitlines():
                if words := shlex.split(line, comments=True):
                    yield pytest.param(words, id=f"{name_of(path)}: {' '.join(words[:3])}")


class Parsed(BaseException):
    """Ends a command after it has parsed its arguments."""


@pytest.fixture
def parse(monkeypatch):
    """Parses arguments with a command's own parser and returns that parser."""
    original = argparse.ArgumentParser.parse_args

    def parse_args(parser, *arguments):
        original(parser, *arguments)
        raise Parsed(parser)

    def parse(module, arguments):
        with monkeypatch.context() as patch, pytest.raises(Parsed) as parsed:
            patch.setattr(argparse.ArgumentParser, "parse_args", parse_args)
            importlib.import_module(module).main(arguments)
        return parsed.value.args[0]

    return parse


def check_config(spec):
    """A config by name or file, with its variant, exists and is complete."""
    name, colon, variant = spec.partition(":")
    path = ROOT / name if name.endswith(".py") else ROOT / "configs" / f"{name}.py"
    config.check(runpy.run_path(str(path))["get_config"](*([variant] if colon else [])))


def check_flags(arguments):
    """Flags of training and evaluation exist, and their values can be read."""
    config.check_overrides(arguments)
    kinds = dict(config._leaves(config.KEYS, "config"))
    for argument in arguments:
        assert argument.startswith("--")
        name, _, value = argument[2:].partition("=")
        if name == "config":
            check_config(value)
        elif name in kinds:
            kind = getattr(kinds[name], "kind", kinds[name])
            assert value in ("True", "False") if kind is bool else kind(value) != ""
        else:
            assert name in flags.FLAGS, f"--{name}"
            if value:
                flags.FLAGS[name].parser.parse(value)


def check_command(words, parse):
    """One command: ours by its parser, others by the files and targets that they name."""
    program, *arguments = words
    if program == "deepfill":
        command, *arguments = arguments
        assert command in cli.COMMANDS, command
        module = cli.COMMANDS[command][0]
        check_flags(arguments) if command in WITH_FLAGS else parse(module, arguments)
    elif words[:2] == ["python", "-m"] and arguments[1].startswith("deepfill_jax"):
        module, *arguments = arguments[1:]
        if module.removeprefix("deepfill_jax.") in WITH_FLAGS:
            return check_flags(arguments)
        package = (ROOT / Path(*module.split("."))).is_dir()
        parse(f"{module}.__main__" if package else module, arguments)
    elif program.startswith("launch/"):
        assert (ROOT / program).is_file()
        check_flags([argument for argument in arguments if argument.startswith("--")])
    elif program == "sbatch" and "launch/slurm.sh" in arguments:
        assert any(x.startswith("--cpus-per-task=") for x in arguments)
        check_flags(arguments[arguments.index("launch/slurm.sh") + 1 :])
    elif program == "sbatch":
        check_command(shlex.split(arguments[-1].replace("$SLURM_ARRAY_TASK_ID", "3")), parse)
    elif program == "make":
        assert re.search(rf"^{arguments[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
    elif words[:2] == ["pip", "install"]:
        extras = re.findall(r"\.\[(.*)\]", arguments[1])
        setup = configparser.ConfigParser()
        setup.read(ROOT / "setup.cfg")
        assert set(",".join(extras).split(",")) <= {"", *setup["options.extras_require"]}
    elif program == "docker":
        targets = re.findall(r"^FROM \S+ AS (\w+)", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
        (named,) = {word.split(":")[1] for word in words if word.startswith("deepfill_jax:")}
        assert named in targets, words
    elif program.endswith("python"):
        assert arguments[:2] == ["-m", "pytest"] or arguments[1] == "pytorch_fid", words
    else:
        assert program in ("curl", "schemathesis", "openapi-python-client"), words


@pytest.mark.parametrize("words", list(commands()))
def test_command_parses(words, parse):
    check_command(words, parse)


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_inline_code_names_what_exists(path):
    keys = [key for key, _ in config._leaves(config.KEYS, "config")]
    keys += ["config.optimizer", "config.discriminator_optimizer", "config.masks.weights"]
    for code in inline_code(path):
        for key in re.findall(r"(?:--)?(config\.[a-z][\w.*]*\w|config\.[\w.]+\*)", code):
            assert fnmatch.filter(keys, key) or key in ("config.KEYS", "config.py"), code
        if found := re.match(r"deepfill (\w+)", code):
            assert found[1] in cli.COMMANDS, code
        if found := re.match(r"make ([\w-]+)", code):
            assert re.search(rf"^{found[1]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), code
        if found := re.match(rf"(?:python )?((?:{FOLDERS})/[\w./]+\.(?:py|sh|md|yaml))", code):
            assert (ROOT / found[1]).exists(), code


def test_flags_in_text_exist(parse):
    samples = {
        "inpaint": ["--model=m", "--images=i", "--output=o"],
        "convert": ["source", "--output=o.safetensors"],
        "inspect": [],
        "models": [],
        "export": ["model", "--output=o.onnx"],
        "app": [],
    }
    parsers = [parse(cli.COMMANDS[name][0], words) for name, words in samples.items()]
    known = {f"--{name}" for name in flags.FLAGS}.union(
        FOREIGN, *(parser._option_string_actions for parser in parsers)
    )
    for path in PAGES:
        text = outside_code(path)
        used = {flag for code in inline_code(path) for flag in re.findall(r"--[a-z][\w-]*", code)}
        assert used <= known, f"{name_of(path)}: {used - known}"
        assert text.count("```") == 0


def python_blocks():
    return [
        pytest.param(body, id=f"{name_of(path)}-{i}")
        for path in PAGES
        for i, body in enumerate(blocks(path, "python"))
    ]


@pytest.fixture
def image_files(tmp_path, monkeypatch):
    """The files that the code of the documentation reads, in the working directory."""
    image, mask = make_picture(64, 64)
    for name in IMAGES:
        Image.fromarray(image if name.startswith("photo") else mask).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def log_level():
    """Restores the level of the package's log, which a block of the documentation changes."""
    logger = logging.getLogger("deepfill_jax")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.mark.parametrize("code", python_blocks())
def test_python_runs(code, image_files, log_level):
    compiled = compile(code, "documentation", "exec")
    files = set(re.findall(r'"([\w./]+\.\w+)"', code))
    if not files <= IMAGES:
        pytest.skip(f"it compiles; it reads {', '.join(sorted(files - IMAGES))}")
    values = {}
    exec(compiled, values)
    if "completed" in values:
        assert values["completed"].shape == (64, 64, 3)


def anchors(path):
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", outside_code(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-") for text in headings}


@pytest.mark.parametrize("path", LINKING, ids=name_of)
def test_links_resolve(path):
    for link in re.findall(r"\]\(([^)\s]+)\)", outside_code(path)):
        if re.match(r"https?:", link):
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_markdown_style(path):
    """Fenced blocks with a language, none by indentation; one sentence a line."""
    languages = [language for language, _ in FENCE.findall(path.read_text())]
    assert all(languages)
    for line in outside_code(path).splitlines():
        assert not line.startswith("    "), line
        assert line.startswith("|") or not re.search(r"[a-z`)][.!?] [A-Z`]", line), line


def test_readme_is_short_and_lists_every_page():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 200
    for path in [*(ROOT / "docs").glob("*.md"), *(ROOT / "deepfill_jax" / "trained").glob("*.md")]:
        assert f"({name_of(path)})" in text, path


def test_contributing_quotes_the_layers():
    (quoted,) = blocks(ROOT / "CONTRIBUTING.md", "text")
    assert [set(line.split()) for line in quoted.splitlines()] == test_imports.LAYERS


def test_contributing_quotes_who_imports_tensorflow():
    text = (ROOT / "CONTRIBUTING.md").read_text()
    (line,) = re.findall(r"^Only (.*) import packages of the `train` extra", text, re.MULTILINE)
    assert set(re.findall(r"`([\w.]+)`", line)) == test_imports.TRAINERS


def test_test_all_runs_what_test_leaves_out():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["tool:pytest"]["markers"].strip().splitlines()
    makefile = (ROOT / "Makefile").read_text()
    (selected,) = re.findall(r'pytest -rs -m "(.*)"', makefile)
    assert set(selected.split(" or ")) == {line.partition(":")[0] for line in lines}


def test_screenshot_is_small():
    path = ROOT / "docs" / "web-ui.png"
    assert path.stat().st_size < 300_000
    with Image.open(path) as image:
        assert image.width == 1200
