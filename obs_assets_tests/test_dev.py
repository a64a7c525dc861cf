"""What `obs dev` tells Dagster's UI."""

from pytest_httpserver import HTTPServer

from obs_assets.embedded.code_location import LOCATION, reload_code


def test_the_ui_is_asked_to_load_the_code_again(httpserver: HTTPServer) -> None:
    """By its own GraphQL; an answer that is no success, or none, is not taken for one."""
    answers = [
        {"data": {"reloadRepositoryLocation": {"__typename": kind}}}
        for kind in ("WorkspaceLocationEntry", "X")
    ]
    for answer in [*answers, {"errors": [{"message": "no"}], "data": None}]:
        httpserver.expect_oneshot_request("/graphql", method="POST").respond_with_json(answer)
    assert [reload_code(httpserver.url_for("")) for _ in range(3)] == [True, False, False]
    sent = httpserver.log[0][0].get_json()
    assert sent["variables"] == {"location": LOCATION}
    httpserver.stop()
    assert not reload_code(httpserver.url_for(""))
