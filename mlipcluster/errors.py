"""Every error that mlipcluster raises on purpose.

Each names the thing, says what was found and ends with the remedy. Each also inherits the built-in error
that a caller would expect, so ``except ValueError`` works as usual.

::

    MLIPClusterError
    ├── InputError (ValueError)             what the user handed in
    │   ├── StructureError                  a structure no calculator can take
    │   └── ProtocolError (TypeError)       not a protocol: cannot be called, pickled or matched with its arguments
    ├── CalculatorError (RuntimeError)
    │   ├── CalculatorStartError            interpreter, import or factory failed
    │   ├── WorkerDiedError                 the calculator's process ended: exit status or signal, last words
    │   ├── CallTimeoutError (TimeoutError) one calculation took longer than allowed
    │   ├── ServerGoneError (ConnectionError) no server of calculators is there, or it ended or is about to
    │   └── RemoteCalculatorError           the calculator itself raised; carries type name and traceback
    ├── RunError (RuntimeError)
    │   ├── RunFolderError                  cannot be written, or belongs to another run
    │   ├── ProtocolTimeoutError (TimeoutError)
    │   ├── ProtocolProcessError            the process that ran the protocol ended: exit status or signal
    │   └── TaskError                       a task's failure whose own exception could not travel
    ├── RecordError (ValueError)            damaged, changed after it was written, or of a newer schema
    ├── MeasureError (RuntimeError)         an environment could not be measured
    ├── EnvironmentBuildError (RuntimeError) an environment could not be built or recreated
    └── MismatchError (RuntimeError)        reproduce(): what is here differs from what the record says
"""

from __future__ import annotations


class MLIPClusterError(Exception):
    """Root of all errors that mlipcluster raises on purpose."""


class InputError(MLIPClusterError, ValueError):
    """Something handed in cannot be used."""


class StructureError(InputError):
    """A structure that no calculator can take: no atoms, NaN positions, a periodic cell without volume."""


class ProtocolError(InputError, TypeError):
    """Not a protocol: it cannot be called, pickled, or matched with the keyword arguments of its tasks."""


class CalculatorError(MLIPClusterError, RuntimeError):
    """The calculator or the process that hosts it failed."""


class CalculatorStartError(CalculatorError):
    """The calculator's process could not be started: interpreter, import or factory."""


class WorkerDiedError(CalculatorError):
    """The calculator's process ended while it was needed; the message quotes its last words."""


class CallTimeoutError(TimeoutError, CalculatorError):  # in this order: its layout is that of OSError, to be unpickled
    """One calculation took longer than the calculator's ``call_timeout``."""


class ServerGoneError(ConnectionError, CalculatorError):  # in this order, as CallTimeoutError
    """No server of calculators answers: it was not started, it ended, or it takes no more work."""


class RemoteCalculatorError(CalculatorError):
    """The calculator raised an exception in its own process.

    Attributes
    ----------
    type_name : str
        Qualified name of the exception's class there, e.g. ``"builtins.KeyError"``.
    remote_traceback : str
        Its traceback there, as text.
    """

    def __init__(self, message: str, type_name: str = "", remote_traceback: str = "") -> None:
        super().__init__(message)
        self.type_name = type_name
        self.remote_traceback = remote_traceback

    def __reduce__(self) -> tuple[type[RemoteCalculatorError], tuple[str, str, str]]:
        return type(self), (str(self), self.type_name, self.remote_traceback)


class RunError(MLIPClusterError, RuntimeError):
    """A run could not go on."""


class RunFolderError(RunError):
    """The output folder cannot be written, or holds another run."""


class ProtocolTimeoutError(TimeoutError, RunError):  # in this order, as CallTimeoutError
    """One call of a protocol took longer than ``timeout``; the process that ran it was ended."""


class ProtocolProcessError(RunError):
    """The process that ran a protocol ended: the message says with which exit status or signal."""


class TaskError(RunError):
    """A task failed with an exception that could not be carried here; the message holds its type and text."""


class RecordError(MLIPClusterError, ValueError):
    """A record is damaged, was changed after it was written, or has a newer schema than this version knows."""


class MeasureError(MLIPClusterError, RuntimeError):
    """An environment could not be measured."""


class EnvironmentBuildError(MLIPClusterError, RuntimeError):
    """An environment could not be built or recreated; nothing of it was left in place."""


class MismatchError(MLIPClusterError, RuntimeError):
    """What is here differs from what a record says.

    Attributes
    ----------
    differences : tuple of str
        One readable line for each thing that differs.
    """

    def __init__(self, message: str, differences: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.differences = differences

    def __reduce__(self) -> tuple[type[MismatchError], tuple[str, tuple[str, ...]]]:
        return type(self), (str(self), self.differences)
