# SPDX-License-Identifier: Apache-2.0
"""Persona files: the shipped one, mistakes that are named, and texts that stay data."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowact_ros.dialogue.language_model import DIRECTIONS, JSON, PLAIN
from flowact_ros.dialogue.persona import Persona, PersonaError, load_persona, parse_persona

SHIPPED = Path(__file__).resolve().parents[2] / "config" / "persona.yaml"
LEAST = {"name": "Ada", "role": "a guide"}


def test_the_shipped_persona() -> None:
    persona = load_persona(SHIPPED)
    assert persona.fixed_reply("How much is a ticket, please?").startswith("A ticket costs eight")
    assert persona.fixed_reply("What is a clock?") == ""
    assert persona.fixed_reply("Well, hello Nova!").startswith("Hello!")
    assert persona.fixed_reply("Hi, where is the skeleton of the whale?") == ""
    assert persona.refuses("Can you give me MEDICAL  advice?") and not persona.refuses("medic")
    for fact in persona.facts:
        assert fact in persona.system_prompt(JSON)


def test_the_form_of_answers_is_the_models() -> None:
    persona = Persona(**LEAST)
    assert '"say"' in persona.system_prompt(JSON) and "square brackets" in persona.system_prompt(DIRECTIONS)
    assert "bracket" not in persona.system_prompt(PLAIN) and "JSON" not in persona.system_prompt(PLAIN)


@pytest.mark.parametrize("text", ["{name} {0} {}", "%s %(x)d %n", "$HOME `ls`", "{{ x }} <% y %>"])
def test_texts_are_no_templates(text: str) -> None:
    persona = parse_persona({**LEAST, "facts": [text], "replies": [{"words": ["x"], "say": text}]})
    assert text in persona.system_prompt(JSON) and persona.fixed_reply("x") == text


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"fact": ["x"]}, "unknown key 'fact'; known are name, role, facts"),
        ({"name": ""}, "name is empty"),
        ({"name": 7}, "name must be a text, not 7"),
        ({"facts": "one"}, "facts must be a list of texts, not 'one'"),
        ({"facts": ["a", 3]}, r"facts\[1\] must be a text, not 3"),
        ({"facts": ["x" * 3000]}, r"facts\[0\] has 3000 characters, at most 2000"),
        ({"facts": ["x"] * 201}, "facts has 201 entries, at most 200"),
        ({"languages": []}, "languages must have at least one entry"),
        ({"replies": [{"word": "x", "say": "y"}]}, r"replies\[0\] must have the keys words and say"),
        ({"replies": [{"words": [], "say": "y"}]}, r"replies\[0\].words must have at least one entry"),
        ({"replies": "x"}, "replies must be a list"),
        (
            {"replies": [{"words": ["x"], "say": "y", "alone": "no"}]},
            r"replies\[0\].alone must be true or false",
        ),
    ],
)
def test_a_mistake_is_named(change: dict, complaint: str) -> None:
    with pytest.raises(PersonaError, match=complaint) as caught:
        parse_persona({**LEAST, **change})
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("content", [None, [], "text", 5])
def test_a_file_with_something_else_in_it(content: object) -> None:
    with pytest.raises(PersonaError, match="names with values"):
        parse_persona(content)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(PersonaError, match="role is missing"):
        parse_persona({"name": "Ada"})


@pytest.mark.parametrize(
    "data", [b"name: [", b"\xff\xfe", b"!!python/object/apply:os.system [ls]", b"x" * 100_000]
)
def test_files_that_are_no_persona(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "persona.yaml"
    path.write_bytes(data)
    with pytest.raises(PersonaError, match="persona.yaml") as caught:
        load_persona(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PersonaError, match="cannot be read: No such file"):
        load_persona(tmp_path / "none.yaml")
