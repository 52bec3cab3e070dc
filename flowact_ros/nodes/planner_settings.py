# SPDX-License-Identifier: Apache-2.0
"""Parameters of the planner that concern its answers, and the conversation that is made of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from flowact_ros.dialogue.conversation import Conversation, ConversationConfig
from flowact_ros.dialogue.language_model import BACKENDS, LanguageModel, ModelSettings, make_language_model
from flowact_ros.dialogue.persona import Persona, load_persona
from flowact_ros.launcher.resources import config_file
from flowact_ros.nodes.params import Param, ParameterError, Params

RULES = "rules"
SHIPPED = "default"  # as persona: config/persona.yaml
MAX_PICTURE = 8 << 20  # bytes

PARAMETERS = (
    Param(
        "backend",
        RULES,
        "Who writes answers: rules (the persona's own; with no persona nobody answers), openai (any server of that "
        "interface), transformers (a model in this process), embedded (SmolLM2-135M in this process)",
        choices=(RULES, *BACKENDS),
    ),
    Param("persona", "", f"A YAML file, or '{SHIPPED}'; empty: none with backend rules, else '{SHIPPED}'"),
    Param("model", "", "Name, folder or GGUF file of the language model; the name that a server is to use"),
    Param("base_url", "", "Of the server, such as http://127.0.0.1:11434/v1"),
    Param(
        "api_key_variable",
        "OPENAI_API_KEY",
        "Environment variable that holds the server's key, if it wants one",
    ),
    Param("device", "cpu", "cpu, cuda or cuda:N, for a model in this process"),
    Param("threads", 1, "Of torch, for a model in this process", range=(1, 64)),
    Param("temperature", 0.3, "0 writes what is most likely", range=(0.0, 2.0)),
    Param("max_tokens", 160, "Of an answer", range=(8, 4096)),
    Param("max_sentences", 4, "Of an answer", range=(1, 50)),
    Param("history", 8, "Turns of the conversation that the model is told", range=(1, 100)),
    Param(
        "answer_timeout",
        6.0,
        "[s] until the first sentence, then the persona's fallback is said",
        range=(0.5, 120.0),
    ),
    Param("connect_timeout", 3.0, "[s] until a server takes a connection", range=(0.1, 60.0)),
    Param("read_timeout", 15.0, "[s] that a server may send nothing", range=(0.1, 600.0)),
    Param("retries", 2, "Of a request that a server refuses for now", range=(0, 10)),
    Param(
        "max_heard",
        500,
        "Characters of what a user says; more is refused with a sentence",
        range=(20, 20_000),
    ),
    Param("questions_per_minute", 20.0, "That are answered; a quarter of them at once", range=(1.0, 600.0)),
    Param("proactive", False, "Greet who came and says nothing, and invite once to go on after an answer"),
    Param("picture", "", "A JPEG or PNG file that a model is shown that sees; empty: none"),
    Param(
        "hear_voice",
        0.0,
        "[s] of the user's voice that a model is sent that hears; 0: none",
        range=(0.0, 30.0),
    ),
)


class ConversationFactory:
    """Reads and checks everything at configure; makes a conversation at each activation."""

    def __init__(self, params: Params) -> None:
        """Raises ParameterError, PersonaError, LanguageModelError or ConversationError, each with one line."""
        self.backend: str = params["backend"]
        path = params["persona"] or ("" if self.backend == RULES else SHIPPED)
        if path == SHIPPED:
            path = str(config_file("persona.yaml"))
        self.persona: Persona | None = load_persona(path) if path else None
        self._config = ConversationConfig(
            answer_timeout_s=params["answer_timeout"],
            max_heard=params["max_heard"],
            per_minute=params["questions_per_minute"],
            history=params["history"],
            max_sentences=params["max_sentences"],
        )
        self._settings = ModelSettings(
            model=params["model"],
            base_url=params["base_url"],
            key_variable=params["api_key_variable"],
            device=params["device"],
            threads=params["threads"],
            temperature=params["temperature"],
            max_tokens=params["max_tokens"],
            connect_timeout_s=params["connect_timeout"],
            read_timeout_s=params["read_timeout"],
            retries=params["retries"],
            seed=params["seed"],
        )
        self.picture = _picture(params["picture"])
        self.hear_voice_s: float = params["hear_voice"]
        model = self._model()  # a mistake is told at configure
        for name, given, able in (
            ("picture", self.picture, model is not None and model.sees),
            ("hear_voice", self.hear_voice_s, model is not None and model.hears),
        ):
            if given and not able:
                raise ParameterError(
                    f"parameter {name}: backend {self.backend!r} has no use for it; openai may have"
                )

    def _model(self) -> LanguageModel | None:
        return None if self.backend == RULES else make_language_model(self.backend, self._settings)

    def make(self, wake: Callable[[], object], clock: Callable[[], float]) -> Conversation:
        """Where there is a persona. Both are called from any thread."""
        assert self.persona is not None
        return Conversation(self.persona, self._model(), self._config, wake=wake, clock=clock)


def _picture(path: str) -> bytes:
    if not path:
        return b""
    try:
        data = Path(path).expanduser().read_bytes()
    except OSError as error:
        raise ParameterError(f"parameter picture: {path} cannot be read: {error.strerror}") from None
    if len(data) > MAX_PICTURE or not data.startswith((b"\x89PNG", b"\xff\xd8\xff")):
        raise ParameterError(
            f"parameter picture: {path} must be a JPEG or PNG file of at most {MAX_PICTURE} bytes"
        )
    return data
