"""Observers see what a loop calls and how long each call takes. A loop that nobody observes pays
nothing for this.

    from casync import trace

    with trace.chrome_trace(loop, "trace.json"):   # for chrome://tracing or ui.perfetto.dev
        ...
    with trace.observe(loop, trace.SlowCallbacks(0.05)):  # logs what held up the loop for 50 ms
        ...

A Call is one callback: a function given to call_soon() or a similar method, a step of a task, the
callback of a watched descriptor, or a protocol's method that a native transport calls. Observers
see the calls that are scheduled, and the tasks that are woken, while they observe the loop. They
see a StreamReader's native reads as steps of the tasks that read. Callbacks of an observed loop
take the path of debug mode, which costs a few microseconds for each.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .loop import EventLoop

_logger = logging.getLogger("casync")


class Call:
    """A Call describes one callback.

    `callback` is the function and `args` are its arguments. `task` is the task if the call is a
    step of one, else None. `start` is a time of time.monotonic_ns(). `duration` is in nanoseconds;
    it is 0 until the callback has returned.
    """

    __slots__ = ("args", "callback", "duration", "start", "task")

    def __init__(self, callback: Callable[..., object], args: tuple[Any, ...]) -> None:
        owner = getattr(callback, "__self__", None)  # also of the steps that asyncio's C code makes
        self.callback = callback
        self.args = args
        self.task: asyncio.Task[Any] | None = owner if isinstance(owner, asyncio.Task) else None
        self.start = time.monotonic_ns()
        self.duration = 0

    @property
    def name(self) -> str:
        """The name of the function; for a step of a task, the names of its coroutine and of the
        task.
        """
        if self.task is not None:
            coroutine = self.task.get_coro()
            return f"{getattr(coroutine, '__qualname__', coroutine)} ({self.task.get_name()})"
        function = self.callback
        while hasattr(function, "func"):  # functools.partial
            function = function.func
        return getattr(function, "__qualname__", None) or repr(function)


class Observer:
    """observe() takes objects of this class. Override the methods that you need.

    The loop calls them in its thread. If one raises an Exception, that goes to the loop's exception
    handler. Calls nest if a callback runs code of the loop that calls a protocol.
    """

    def before_call(self, call: Call) -> None:
        """The loop calls this method before it calls the callback."""

    def after_call(self, call: Call) -> None:
        """The loop calls this method when the callback has returned or raised. If the call was a
        step of a task, the task may be done now.
        """


@contextmanager
def observe(loop: EventLoop, *observers: Observer) -> Iterator[None]:
    """Tells the observers, while this block lasts, of the calls that the loop makes.

    A loop may have any number of observers, and these blocks may end in any order. Enter and leave
    the block in the loop's thread, or while the loop does not run. Raises TypeError if `loop` is
    not a casync.EventLoop.
    """
    _set_observers(loop, (*_observers_of(loop), *observers))
    try:
        yield
    finally:
        left = list(_observers_of(loop))
        for observer in observers:
            left.remove(observer)
        _set_observers(loop, tuple(left))


class _Observation:
    """An observed loop calls this object in place of its callbacks."""

    def __init__(self, loop: EventLoop, observers: tuple[Observer, ...]) -> None:
        self._loop = weakref.ref(loop)
        self.observers = observers

    def __call__(
        self,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        function: Callable[..., Any],
        *rest: Any,
    ) -> Any:
        call = Call(callback, args or ())
        for observer in self.observers:
            self._tell(observer.before_call, call)
        call.start = time.monotonic_ns()
        try:
            return function(*rest)
        finally:
            call.duration = time.monotonic_ns() - call.start
            for observer in reversed(self.observers):
                self._tell(observer.after_call, call)
            # An exception that a task keeps leads by its frames to this one, and would keep the
            # task.
            del callback, args, function, rest, call

    def _tell(self, method: Callable[[Call], None], call: Call) -> None:
        try:
            method(call)
        except Exception as error:
            loop = self._loop()
            if loop is not None:
                context = {"message": f"Exception in {method.__qualname__}", "exception": error}
                loop.call_exception_handler(context)


def _observers_of(loop: EventLoop) -> tuple[Observer, ...]:
    if not isinstance(loop, EventLoop):
        raise TypeError(f"only a casync.EventLoop can be observed, not {loop!r}")
    observation: Any = loop._observer
    return () if observation is None else observation.observers


def _set_observers(loop: EventLoop, observers: tuple[Observer, ...]) -> None:
    loop._observer = _Observation(loop, observers) if observers else None
    loop._observed = bool(observers)


class SlowCallbacks(Observer):
    """This observer logs each call that takes `seconds` or longer, as a warning of the logger
    "casync". asyncio's debug mode does this too, but costs more.
    """

    def __init__(self, seconds: float = 0.1) -> None:
        self.seconds = seconds

    def after_call(self, call: Call) -> None:
        if call.duration >= self.seconds * 1e9:
            _logger.warning("%s took %.3f seconds", call.name, call.duration / 1e9)


class ChromeTrace(Observer):
    """This observer collects calls and tasks as trace events.

    A task's event lasts from the first of its steps that was observed to the task's end. The
    observer keeps the last `limit` events; each takes about 500 bytes. The format is the "Trace
    Event Format" of the Chromium authors.
    """

    def __init__(self, limit: int = 1_000_000) -> None:
        self._events: deque[dict[str, Any]] = deque(maxlen=limit)
        self._task_ids: weakref.WeakKeyDictionary[asyncio.Task[Any], int] = (
            weakref.WeakKeyDictionary()
        )
        self._task_count = 0

    def before_call(self, call: Call) -> None:
        if call.task is not None and call.task not in self._task_ids:
            self._task_count += 1
            self._task_ids[call.task] = self._task_count
            self._add_task_event("b", call, call.start)

    def after_call(self, call: Call) -> None:
        category = "callback" if call.task is None else "task step"
        self._add("X", call.name, category, call.start, dur=call.duration / 1000)
        if call.task is not None and call.task.done():
            self._add_task_event("e", call, call.start + call.duration)

    def _add_task_event(self, phase: str, call: Call, when: int) -> None:
        assert call.task is not None
        self._add(phase, call.name, "task", when, id=self._task_ids[call.task])

    def _add(self, phase: str, name: str, category: str, when: int, **rest: Any) -> None:
        event = {"ph": phase, "name": name, "cat": category, "ts": when / 1000, "pid": os.getpid()}
        self._events.append({**event, "tid": threading.get_native_id(), **rest})

    def as_json(self) -> str:
        """Returns the events so far, as JSON for chrome://tracing and ui.perfetto.dev."""
        return json.dumps({"traceEvents": list(self._events)})


@contextmanager
def chrome_trace(
    loop: EventLoop, path: str | os.PathLike[str], limit: int = 1_000_000
) -> Iterator[None]:
    """Observes the loop while this block lasts, and writes a Chrome trace to the file `path` at its
    end.

    `limit` is that of ChromeTrace. Enter and leave the block as that of observe(). Raises TypeError
    as observe() does, and OSError if the file cannot be written.
    """
    trace = ChromeTrace(limit)
    try:
        with observe(loop, trace):
            yield
    finally:
        Path(path).write_text(trace.as_json())
