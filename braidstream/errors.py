"""The exceptions of this package, by what is to be done about them.

BraidstreamError
├── SettingsError         a setting, file or topic must be mended first: refuse to start, exit code 2
├── PoisonRecord          this record can never be processed: dead letter it, go on with the others
├── RetriableError        passing: abort, go back to the committed offsets, back off, try again
└── FatalError            stop with exit code 1, let the supervisor start a new process
    ├── FencedError       another producer took over, or the transaction ran out
    └── UnavailableError  retried up to the limit that the settings give, still no answer
"""


class BraidstreamError(Exception):
    """Something that this package can name went wrong; the message says what to do."""


class SettingsError(BraidstreamError):
    """A setting, a file or a topic is not as it has to be; the message names it and the fix."""


class PoisonRecord(BraidstreamError):
    """One record cannot be processed, now or later.

    `stage` is where it failed, in Kafka Connect's terms: `VALUE_CONVERTER`, `KEY_CONVERTER` or `TRANSFORMATION`.
    """

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(reason)
        self.stage = stage


class RetriableError(BraidstreamError):
    """The same work may succeed when it is tried again."""


class FatalError(BraidstreamError):
    """This process cannot go on; a new one may."""


class FencedError(FatalError):
    """The producer was fenced by a newer one with its transactional id, or its transaction ran out."""


class UnavailableError(FatalError):
    """The broker or the registry did not answer within the limit."""


def message_of(error: Exception) -> str:
    """What an exception says; one that was raised by somebody's model may fail at that too."""
    try:
        return str(error)
    except Exception as failure:
        return f"(no message: {type(failure).__name__})"


def release(error: BaseException) -> None:
    """Let go of the frames that an exception has come through, and with them of the batch that they hold.

    They hold the exception in turn, so that nothing but the garbage collector would free them.
    """
    chain: list[BaseException | None] = [error]
    while chain:
        if (link := chain.pop()) is not None and link.__traceback__ is not None:
            link.__traceback__ = None
            chain += [link.__cause__, link.__context__]
