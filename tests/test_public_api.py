"""The public interface: docstrings, annotations, options by keyword only."""

import importlib
import inspect

import pytest

import deepfill_jax


def public_functions():
    """The functions of the public interface, and the methods that the documentation uses."""
    inpainter = deepfill_jax.Inpainter
    found = [inpainter.__init__, inpainter.load, inpainter.__call__, inpainter.predict]
    for module, name in (
        ("deepfill_jax.inpaint.canvas", "extend"),
        ("deepfill_jax.evaluate", "evaluate"),
        ("deepfill_jax.train", "train"),
    ):
        found.append(getattr(importlib.import_module(module), name))
    return [pytest.param(x, id=x.__qualname__) for x in found]


@pytest.mark.parametrize("function", public_functions())
def test_public_function_is_documented(function):
    """Docstrings, annotations, and options (defaults other than None) by keyword only."""
    assert inspect.getdoc(function)
    signature = inspect.signature(function)
    assert function.__name__ == "__init__" or signature.return_annotation is not inspect._empty
    for name, parameter in signature.parameters.items():
        assert name == "self" or parameter.annotation is not inspect._empty, name
        is_option = parameter.default not in (inspect._empty, None)
        assert not is_option or parameter.kind is parameter.KEYWORD_ONLY, name


@pytest.mark.parametrize("name", deepfill_jax.__all__)
def test_public_class_has_a_docstring(name):
    assert inspect.getdoc(getattr(deepfill_jax, name))
