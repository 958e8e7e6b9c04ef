"""The installed command line as the storm uses it: what is said goes to files, and who is killed is started again."""

from __future__ import annotations

import random
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from tests.command import PROGRAM, environment

# Seconds after which a command that has not come to its end has failed.
LONGEST = 300.0


@dataclass
class Command:
    """One that was started. Its output is in ``output`` and ``errors`` once it has ended."""

    words: tuple[str, ...]
    process: subprocess.Popen[str]
    files: tuple[IO[str], IO[str]]
    # How often the server had gone when it was started.
    restarts: int

    def kill(self) -> bool:
        """Whether there was something to kill."""
        self.process.kill()
        self.process.wait()
        return self.process.returncode == -9

    def wait(self, seconds: float = LONGEST) -> int:
        return self.process.wait(seconds)

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def output(self) -> str:
        return Path(self.files[0].name).read_text(encoding="utf-8")

    @property
    def errors(self) -> str:
        return Path(self.files[1].name).read_text(encoding="utf-8")

    def ended(self, *codes: int) -> None:
        """It ended with one of these; a traceback is never right."""
        assert "Traceback" not in self.errors, self.told
        assert self.process.returncode in codes, self.told

    @property
    def told(self) -> str:
        words = " ".join(self.words)
        return f"{words}: exit code {self.process.returncode}\n{self.output[-4000:]}\n{self.errors[-4000:]}"


@dataclass
class Tool:
    """``kept`` go on for as long as the storm wants them, whatever happens to them. ``kills`` that met a living one."""

    url: str
    folder: Path
    chance: random.Random
    kept: dict[tuple[str, ...], Command] = field(default_factory=dict)
    started: int = 0
    kills: int = 0
    restarts: int = 0

    def start(self, *words: str) -> Command:
        self.started += 1
        name = f"{self.started:04}-{words[0]}"
        files = (
            (self.folder / f"{name}.out").open("w", encoding="utf-8"),
            (self.folder / f"{name}.err").open("w", encoding="utf-8"),
        )
        with files[0], files[1]:
            process = subprocess.Popen(
                [PROGRAM, *words], stdout=files[0], stderr=files[1], text=True, env=environment(self.url)
            )
        return Command(words, process, files, self.restarts)

    def run(self, *words: str, codes: tuple[int, ...] = (0,)) -> Command:
        command = self.start(*words)
        command.wait()
        command.ended(*codes)
        return command

    def keep(self, *commands: tuple[str, ...]) -> None:
        """These, from now on, and no others."""
        for words in [words for words in self.kept if words not in commands]:
            self.strike(words)
        for words in commands:
            if words not in self.kept:
                self.kept[words] = self.start(*words)

    def tend(self) -> None:
        """Start again what has ended. It may end by itself only where the server has gone."""
        for words, command in self.kept.items():
            if not command.alive:
                command.ended(5)
                assert self.restarts > command.restarts, command.told
                self.kept[words] = self.start(*words)

    def strike(self, words: tuple[str, ...] | None = None) -> None:
        """SIGKILL, and what was struck is not kept any more."""
        if words is None:
            words = self.chance.choice(list(self.kept))
        command = self.kept.pop(words)
        if not command.kill():
            command.ended(5)
            assert self.restarts > command.restarts, command.told
        else:
            self.kills += 1
            assert "Traceback" not in command.errors, command.told
