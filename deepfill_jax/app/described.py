"""Types of requests, responses and login for the OpenAPI description."""

from collections.abc import Iterable
from typing import Any

from fastapi import UploadFile
from fastapi.openapi.models import HTTPBase
from fastapi.security.base import SecurityBase
from pydantic import BaseModel, Field

_FILE = {"type": "string", "format": "binary"}


class FormFile(UploadFile):
    """A file in a form field."""

    @classmethod
    def __get_pydantic_json_schema__(cls, core_schema: Any, handler: Any) -> dict[str, Any]:
        # OpenAPI 3.1 has `contentMediaType` instead, but generated clients would then send a
        # string; with `format: binary`, tools for 3.0 and for 3.1 both send a file.
        return dict(_FILE)


class Login(SecurityBase):
    """Describes HTTP Basic authentication, which `guard.Guard` checks before the API is called."""

    def __init__(self) -> None:
        self.model = HTTPBase(scheme="basic", description="See --user and --password.")
        self.scheme_name = "password"

    async def __call__(self) -> None:
        """Does nothing."""


class Problem(BaseModel):
    """An error message of one sentence."""

    error: str


class Health(BaseModel):
    """The state of the server."""

    status: str = Field(description='"ok" when the server answers requests.')


class About(BaseModel):
    """The description of a model."""

    name: str
    purpose: str | None = Field(description="What the model is for; null if it is not known.")
    architecture: str
    working_size: int | None = Field(
        description="Side, in pixels, at which the model works best; null for classical methods, "
        "which work at any size."
    )
    guided: bool = Field(description="Whether the model takes a sketch.")
    license: str | None = Field(description="License of the weights; null if it is not known.")


# Headers of a completed image. Names of models are percent-encoded.
HEADERS = {
    "Deepfill-Model": ("string", "Name of the model, percent-encoded."),
    "Deepfill-Strategy": ("string", "The strategy used, which is never `auto`."),
    "Deepfill-Scale": (
        "number",
        "Smallest factor by which the image or a part of it was scaled down before it was filled; "
        "1 if it was filled at full size.",
    ),
    "Deepfill-Megapixels": (
        "number",
        "Millions of pixels that the network processed, which `budget` limits.",
    ),
    "Deepfill-Seconds": ("number", "Seconds that inpainting took, without waiting."),
}


def errors(**reasons: str) -> dict[int | str, dict[str, Any]]:
    """Describes error responses, by status: `_422="A field is invalid."`."""
    return {
        int(status.removeprefix("_")): {"model": Problem, "description": reason}
        for status, reason in reasons.items()
    }


def completed_image(media_types: Iterable[str]) -> dict[str, Any]:
    """Describes the response with the completed image."""
    return {
        "description": "The completed image, of the original or the extended size.",
        "content": {name: {"schema": _FILE} for name in media_types},
        "headers": {
            name: {"description": meaning, "schema": {"type": kind}}
            for name, (kind, meaning) in HEADERS.items()
        },
    }
