"""Whom the doctor looks at."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from braidstream.cli import plugins
from braidstream.doctor.settings import DoctorSettings
from braidstream.pipelines import Pipeline


@dataclass(frozen=True)
class Case:
    """A pipeline under the settings of one place; `pipeline_name` is how the user named it, `folder` where that was."""

    settings: DoctorSettings
    pipeline: Pipeline[Any]
    pipeline_name: str | None
    folder: Path

    @property
    def topics(self) -> list[str]:
        """The full names of the pipeline's topics."""
        names = (*(topic.name for topic in self.pipeline.topics), self.pipeline.dead_letters)
        return [self.settings.named(name) for name in names]

    def command(self, command: str) -> str:
        """A command of this package, for this pipeline."""
        return f"braidstream {command}{f' --pipeline {self.pipeline_name}' if self.pipeline_name else ''}"

    def kafka(self, tool: str, arguments: str) -> str:
        """A command of Kafka's own, as its distribution has them in `bin`."""
        return f"kafka-{tool}.sh --bootstrap-server {self.settings.bootstrap_servers} {arguments}"

    def set_topic(self, topic: str, setting: str) -> str:
        """The command that changes a topic's setting, given as `name=value`."""
        return self.kafka("configs", f"--alter --entity-type topics --entity-name {topic} --add-config {setting}")

    def start(self, group: str) -> tuple[str, ...]:
        """The command that starts a group's workers: START_COMMAND, or else by their module, if it is found."""
        name = group.removeprefix(self.settings.topic_prefix)
        if self.settings.start_command:
            return (self.settings.start_command.replace("{group}", name),)
        return tuple(f"python -m {module}" for module in self._modules(name))

    def train(self, model: str) -> tuple[str, ...]:
        """The command that replaces a model, where its module is found; else nothing. It may want data, too."""
        return tuple(f"python -m {module} --force" for module in self._modules(model, ".train"))

    def _modules(self, name: str, part: str = "") -> list[str]:
        package = plugins.address(self.pipeline_name).partition(".")[0]
        modules = (f"consumers.{name}", name, f"{name}_service", f"{package}.{name}")
        return [f"{module}{part}" for module in modules if self._runs(f"{module}{part}")][:1]

    def _runs(self, module: str) -> bool:
        path = self.folder / module.replace(".", "/")
        return (path / "__main__.py").exists() or path.with_suffix(".py").exists()
