"""Tests of what the HTTP API says about itself, its models and its results."""

import gradio as gr
import pytest
from app_fixtures import LOCAL, WIDTH, ask, guarded_client, make_request, refused
from fastapi.testclient import TestClient
from made import make_model

from deepfill_jax import trained, weights
from deepfill_jax.app import layout
from deepfill_jax.app.api import make_api
from deepfill_jax.app.guard import Login
from deepfill_jax.app.layout import Layout
from deepfill_jax.app.registry import available
from deepfill_jax.app.service import Service
from deepfill_jax.inpaint.classical import Classical

pytest_plugins = ["app_fixtures"]


def test_models_are_listed(client):
    listed = client.get("/api/models").json()
    assert [model["name"] for model in listed] == ["tiny", "same", "guided"]
    assert [model["guided"] for model in listed] == [False, False, True]
    assert listed[0] | {"name": ""} == {
        "name": "",
        "purpose": None,
        "architecture": "official",
        "working_size": 256,
        "guided": False,
        "license": None,
    }


def test_classical_methods_have_no_working_size():
    service = Service({"telea": Classical("telea")})
    with TestClient(make_api(service), base_url=LOCAL) as client:
        (listed,) = client.get("/api/models").json()
        assert listed["architecture"] == "classical" and listed["working_size"] is None
        about = client.get("/openapi.json").json()["components"]["schemas"]["About"]
    types = about["properties"]["working_size"]["anyOf"]
    assert types == [{"type": "integer"}, {"type": "null"}]
    assert "a classical method" in layout.about(service, "telea")


def test_response_headers_say_how_the_image_was_filled(client):
    picture, mask, files = make_request()
    answer = ask(client, files, model="same", strategy="resize")
    names = ("model", "strategy", "scale")
    assert [answer.headers[f"deepfill-{name}"] for name in names] == ["same", "resize", "1"]
    assert 0 < float(answer.headers["deepfill-seconds"]) < 600
    assert float(answer.headers["deepfill-megapixels"]) == pytest.approx(mask.size / 1e6, abs=1e-3)
    model = make_model("official")
    small = Service(
        {"wälder": weights.Model(model.variant, model.generator, None, {"image_size": 16})}
    )
    with TestClient(make_api(small), base_url=LOCAL) as other:
        answer = ask(other, files, strategy="resize")
    assert answer.headers["deepfill-model"] == "w%C3%A4lder"
    assert answer.headers["deepfill-strategy"] == "resize"
    assert float(answer.headers["deepfill-scale"]) == pytest.approx(16 / WIDTH, rel=1e-3)
    small.worker.close()


def test_default_model_is_for_photographs():
    assert trained.names()[0] == trained.DEFAULT == "scenes"
    assert set(trained.PURPOSES) == set(trained.names())
    service = Service(available([]))
    assert list(service.models) == ["scenes", "faces", "guided"]
    assert [service.purpose(name) for name in service.models] == list(trained.PURPOSES.values())
    schema = make_api(service).openapi()["components"]["schemas"]
    assert schema["Body_inpaint"]["properties"]["model"]["default"] == "scenes"
    with gr.Blocks():
        parts = Layout(service)
    assert parts.model.value == "scenes"
    assert parts.model.choices[0] == ("scenes: photographs", "scenes")
    assert "for photographs" in parts.about.value


def test_texts_end_with_one_period(client):
    for name in trained.names():
        text = layout.about(Service(available([name])), name)
        assert text.endswith(".") and ".." not in text
    broken = client.post(
        "/api/inpaint", content=b"--", headers={"content-type": "multipart/form-data"}
    )
    assert ".." not in refused(broken, 400)


def test_openapi_describes_the_api(client):
    described = client.get("/openapi.json").json()
    operations = [x for path in described["paths"].values() for x in path.values()]
    assert [x["operationId"] for x in operations] == ["health", "list_models", "inpaint"]
    post = described["paths"]["/api/inpaint"]["post"]
    assert set(post["responses"]) == {"200", "400", "408", "413", "422", "500", "503"}
    binary = {"type": "string", "format": "binary"}
    completed = post["responses"]["200"]
    assert completed["content"]["image/png"] == {"schema": binary}
    assert all(content["schema"] == binary for content in completed["content"].values())
    answer = ask(client, make_request()[2])
    assert set(map(str.lower, completed["headers"])) <= set(answer.headers)
    body = described["components"]["schemas"]["Body_inpaint"]["properties"]
    for name in ("image", "mask", "sketch"):
        assert binary.items() <= body[name].items() and "contentMediaType" not in body[name]
    assert described["components"]["schemas"]["Model"]["enum"] == ["tiny", "same", "guided"]
    assert "securitySchemes" not in described["components"] and "security" not in post
    assert client.get("/docs").status_code == 404


def test_openapi_describes_the_password(service):
    described = make_api(service, login=True).openapi()
    (scheme,) = described["components"]["securitySchemes"].items()
    assert (
        scheme[0] == "password" and scheme[1]["type"] == "http" and scheme[1]["scheme"] == "basic"
    )
    for path in ("/api/models", "/api/inpaint"):
        (operation,) = described["paths"][path].values()
        assert operation["security"] == [{"password": []}] and "401" in operation["responses"]
    assert "security" not in described["paths"]["/health"]["get"]


def test_health_and_help(client, app):
    protected = guarded_client(app, login=Login("me", "secret"))
    assert protected.get("/health").json() == {"status": "ok"}
    assert protected.get("/help").status_code == 401
    text = client.get("/help").text
    assert all(word in text for word in ("dilate", "feather", "Cancel", "Start over"))
