from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError
from ray.serve.schema import ServeDeploySchema

import serve_app
from serve_app import autoscaling
from serve_app.config import ServeConfig

FOLDER = Path(serve_app.__file__).parent


def keys_of(model, values, path=""):
    """Yield keys that Ray's schema does not know; Ray itself drops them in silence."""
    for name, value in values.items():
        field = type(model).model_fields.get(name)
        if field is None:
            yield f"{path}{name}"
            continue
        inner = getattr(model, name)
        if hasattr(type(inner), "model_fields") and isinstance(value, dict):
            yield from keys_of(inner, value, f"{path}{name}.")
        if isinstance(inner, list):
            for one, given in zip(inner, value, strict=True):
                if hasattr(type(one), "model_fields"):
                    yield from keys_of(one, given, f"{path}{name}.")


@pytest.mark.parametrize("name", ["serve.yaml", "local.yaml"])
def test_the_shipped_files_hold_no_typo_and_stay_on_loopback(name):
    values = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
    schema = ServeDeploySchema.model_validate(values)
    assert list(keys_of(schema, values)) == []
    assert schema.http_options.host == "127.0.0.1"
    (application_,) = schema.applications
    assert application_.import_path == "serve_app:app"
    ServeConfig.model_validate(application_.args)


def test_production_pins_the_commit_of_its_model():
    values = yaml.safe_load((FOLDER / "serve.yaml").read_text(encoding="utf-8"))
    scorer = values["applications"][0]["args"]["scorer"]
    assert scorer["model"] == "BAAI/bge-reranker-v2-m3"
    assert len(scorer["revision"]) == 40


def test_scorer_fields_may_stand_at_the_top_level_as_on_the_command_line():
    config = ServeConfig.model_validate({"model": "lexical", "max_length": "64"})
    assert (config.scorer.model, config.scorer.max_length) == ("lexical", 64)


@pytest.mark.parametrize(
    "settings",
    [
        {"modle": "lexical"},
        {"model": "lexical", "scorer": {"model": "embedded"}},
        {"limits": {"max_document": 3}},
        {"limits": {"max_documents": 0}},
        {"scaling": {"min_replicas": 3, "max_replicas": 2}},
        {"scorer": {"model": "lexical", "dtype": "int3"}},
    ],
)
def test_typos_and_contradictions_are_refused(settings):
    with pytest.raises(ValidationError):
        ServeConfig.model_validate(settings)


def test_a_folder_is_served_under_its_own_name_without_its_path(tmp_path):
    folder = tmp_path / "my-model"
    folder.mkdir()
    config = ServeConfig.model_validate({"model": str(folder), "models": {"b": {}}})
    assert list(config.served) == ["my-model", "b"]
    elsewhere = ServeConfig.model_validate({"model": "/staged/on/workers/my-model"})
    assert list(elsewhere.served) == ["my-model"]


@pytest.mark.parametrize(
    ("settings", "resources", "gpus"),
    [
        ({"model": "m"}, {"CPU": 2.0}, 0),
        ({"model": "m"}, {"CPU": 2.0, "GPU": 4.0}, 1),
        ({"model": "m", "device": "cpu"}, {"GPU": 4.0}, 0),
        ({"model": "lexical"}, {"GPU": 4.0}, 0),
        ({"model": "m", "scaling": {"gpus_per_replica": 0.5}}, {"CPU": 2.0}, 0.5),
    ],
)
def test_gpus_are_used_where_the_cluster_has_them(monkeypatch, settings, resources, gpus):
    monkeypatch.setattr(autoscaling.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(autoscaling.ray, "cluster_resources", lambda: resources)
    config = ServeConfig.model_validate(settings)
    assert autoscaling.gpus_of(config.scorer, config) == gpus


@pytest.mark.parametrize(
    ("settings", "fused"),
    [
        ({}, True),
        ({"scaling": {"fused": False}}, False),
        ({"scaling": {"max_replicas": 2}}, False),
        ({"scaling": {"min_replicas": 0}}, False),
        ({"scaling": {"gateways": 2}}, False),
        ({"scaling": {"max_gateways": 2}}, False),
        ({"models": {"second": {"model": "lexical"}}}, False),
    ],
)
def test_one_model_with_one_replica_and_one_gateway_is_one_process(settings, fused):
    assert ServeConfig.model_validate({"model": "lexical", **settings}).is_fused is fused


@pytest.mark.parametrize(
    "settings", [{"scaling": {"gateways": 2}}, {"models": {"second": {"model": "lexical"}}}]
)
def test_what_cannot_be_one_process_is_not_called_so(settings):
    scaling = {**settings.get("scaling", {}), "fused": True}
    with pytest.raises(ValidationError, match=r"fused .* one"):
        ServeConfig.model_validate({"model": "lexical", **settings, "scaling": scaling})


SEVERAL = {"model": "lexical", "models": {"large": {"model": "lexical", "max_length": 8}}}


def test_each_of_several_models_has_its_own_settings():
    own = {
        "scaling": {"max_replicas": 4},
        "batching": {"stall_s": 5},
        "limits": {"max_documents": 9},
    }
    config = ServeConfig.model_validate(
        {**SEVERAL, "scaling": {"target_utilisation": 0.5}, "per_model": {"large": own}}
    )
    large = config.by_model["large"]
    assert (large.scaling.max_replicas, large.scaling.target_utilisation) == (4, 0.5)
    assert (large.batching.stall_s, large.limits.max_documents) == (5, 9)
    assert config.by_model["lexical"].model_dump() == config.model_dump()


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({**SEVERAL, "per_model": {"huge": {}}}, "no model is named huge"),
        ({"model": "lexical", "per_model": {"lexical": {}}}, "for several models"),
        ({**SEVERAL, "per_model": {"large": {"scaling": {"gateways": 2}}}}, "scaling.gateways is"),
        ({**SEVERAL, "per_model": {"large": {"scaling": {"fused": False}}}}, "scaling.fused is"),
        ({**SEVERAL, "per_model": {"large": {"limits": {"max_body_bytes": 9}}}}, "max_body_bytes"),
        ({**SEVERAL, "per_model": {"large": {"limits": {"max_documents": 9999}}}}, "is above"),
        ({**SEVERAL, "per_model": {"large": {"batching": {"stall": 1}}}}, "stall"),
    ],
)
def test_what_one_model_cannot_have_is_refused(settings, says):
    with pytest.raises(ValidationError, match=says):
        ServeConfig.model_validate(settings)


def test_the_name_of_a_folder_is_found_once_and_not_by_each_request(tmp_path, monkeypatch):
    config = ServeConfig.model_validate({"model": str(tmp_path / "reranker")})
    monkeypatch.setattr(Path, "resolve", None)
    assert [config.model_for(asked) for asked in (None, "another")] == ["reranker"] * 2
