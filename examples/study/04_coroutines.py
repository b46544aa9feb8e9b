"""Coroutines as generators.

Run it from the repository's root:   python3 examples/study/04_coroutines.py

A function that can stop in the middle, keep its variables, and go on later is a coroutine. Python's
are generators: they stop at each `yield` (PEP 255); who lets them go on may hand them something
(PEP 342).

- next(g), or g.send(value): go on up to the next yield. `yield` gives the value that was sent.
- g.throw(error): go on, with this error raised where it stopped. (Cancellation will be this: page
  13.)
- `return value` ends it: whoever asked gets StopIteration(value).

A few generators and a queue are all that a scheduler needs: whoever stopped goes to the end of the
queue. Nobody is interrupted: each stops where it says so. That is cooperative multitasking.
"""

from collections import deque
from collections.abc import Generator


def average() -> Generator[float, float, str]:
    """Gets numbers, gives their average so far."""
    total, count = 0.0, 0
    try:
        number = yield 0.0
        while True:
            total, count = total + number, count + 1
            number = yield total / count
    except ValueError as error:
        return f"ended by {error!r} after {count} numbers"


a = average()
next(a)  # up to the first yield: before that nothing can be sent
print("sent 10:", a.send(10))
print("sent 20:", a.send(20))
try:
    a.throw(ValueError("enough"))
except StopIteration as stop:
    print("returned:", stop.value)


def countdown(name: str, n: int) -> Generator[None, None, None]:
    while n > 0:
        print(name, n)
        yield  # let the others run
        n -= 1


def run(*tasks: Generator[None, None, None]) -> None:
    """A scheduler."""
    ready = deque(tasks)
    while ready:
        task = ready.popleft()
        try:
            next(task)
        except StopIteration:
            continue
        ready.append(task)


run(countdown("a", 3), countdown("b", 2))

# Prints:
#   sent 10: 10.0
#   sent 20: 15.0
#   returned: ended by ValueError('enough') after 2 numbers
#   a 3
#   b 2
#   a 2
#   b 1
#   a 1
