"""The OpenAPI document: complete, with examples; and requests made up from it find no fault."""

from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable

from orchard import client_of, write_orchard

schemathesis = pytest.importorskip("schemathesis", reason="schemathesis is not installed")


@pytest.fixture(scope="module")
def client(tmp_path_factory, nano_dir):
    orchard = write_orchard(tmp_path_factory.mktemp("orchard"), nano_dir)
    with client_of(orchard.index, reports=[orchard.report], hosts=()) as client:
        yield client


@pytest.fixture(scope="module")
def document(client):
    return client.get("/openapi.json").json()


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["POSITIVE", "NEGATIVE"])
def test_no_made_up_request_finds_a_fault(client, mode):
    schema = schemathesis.openapi.from_asgi("/openapi.json", client.app)
    for found in schema.get_all_operations():
        with suppress(Unsatisfiable):  # nothing about it could be wrong
            _ask(found.ok(), schemathesis.GenerationMode[mode])


def _ask(operation, mode):
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    # OpenAPI cannot say which bytes are an image.
    excluded = [positive_data_acceptance] if operation.path == "/api/uploads" else []

    @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case):
        case.call_and_validate(excluded_checks=excluded)

    ask()


def _operations(document):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield f"{method} {path}", operation


def test_every_operation_has_a_name_a_sentence_and_its_refusals(document):
    operations = dict(_operations(document))
    assert len({o["operationId"] for o in operations.values()}) == len(operations) > 15
    for name, operation in operations.items():
        assert operation["description"].endswith("."), name
        assert {"401", "403", "422"} <= set(operation["responses"]), name
        assert operation["tags"], name


def test_every_field_and_parameter_is_described_or_speaks_for_itself(document):
    for name, model in document["components"]["schemas"].items():
        assert model.get("description"), name
    for name, operation in _operations(document):
        for parameter in operation.get("parameters", ()):
            assert parameter["in"] == "header" or parameter.get("description"), name


def test_every_number_of_a_request_has_bounds(document):
    schemas = document["components"]["schemas"]
    asked = [s for n, s in schemas.items() if n.endswith(("Question", "Term", "Filter"))]
    for model in asked:
        for name, field in model["properties"].items():
            for kind in [field, *field.get("anyOf", ())]:
                if kind.get("type") in ("integer", "number"):
                    assert {"minimum", "exclusiveMinimum"} & kind.keys(), name
                    assert {"maximum", "exclusiveMaximum"} & set(kind), name
