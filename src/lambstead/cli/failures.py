"""How a command says that it cannot do what was asked."""


class CommandFailed(Exception):
    """A command cannot go on: the fact, then what the user can do. `main` prints both and exits with the code."""

    def __init__(self, fact: str, next_step: str = "", exit_code: int = 2) -> None:
        super().__init__(fact)
        self.fact = fact
        self.next_step = next_step
        self.exit_code = exit_code
