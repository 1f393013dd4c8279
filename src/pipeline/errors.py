"""The errors a run can end with, and the exit code that each one means."""


class UserError(Exception):
    """Bad configuration or input: the message says what was passed, what was expected and what to do (exit code 2)."""

    exit_code = 2


class Diverged(Exception):
    """The loss became NaN or infinite (exit code 3)."""

    exit_code = 3


class Interrupted(BaseException):
    """A signal ended the run after its state was saved.

    Not an Exception, as KeyboardInterrupt is none: a signal can arrive inside a library that reports every
    Exception as an error of its own (OmegaConf does).

    Args:
        exit_code: 130 for SIGINT (Ctrl-C), 143 for SIGTERM.
    """

    def __init__(self, exit_code: int) -> None:
        super().__init__(
            {130: "interrupted (Ctrl-C)", 143: "terminated (SIGTERM)"}.get(exit_code, "interrupted")
        )
        self.exit_code = exit_code


def reason_of(error: BaseException) -> str:
    """The first line of what an error says, as the reason in a message of ours; its kind where it says nothing."""
    return (str(error) or type(error).__name__).strip().splitlines()[0]
