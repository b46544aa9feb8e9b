"""await is yield from.

Run it from the repository's root:   python3 examples/study/05_await.py

A generator that calls a generator has to pass everything through: what the inner yields goes up to
whoever drives the outer, what is sent goes down, and the inner's return value is the outer's to
use. `yield from` does all of that (PEP 380). `await` is the same instruction with two differences
(PEP 492): it stands only in `async def`, and it takes only awaitables, so that a forgotten await or
a list in its place is found.

So a chain of awaits, however deep, is one pipe: at the bottom something yields, at the top a driver
gets what was yielded and sends the answer down. Between them nobody is called for it but the
interpreter itself. The driver here is a short loop. asyncio's is Task.step: page 8.
"""

import inspect
import types
from collections.abc import Coroutine, Generator


# The same program twice. First as generators:
def ask_old(question: str) -> Generator[str, str, str]:
    answer = yield question
    return answer.upper()


def talk_old() -> Generator[str, str, str]:
    first = yield from ask_old("name")
    second = yield from ask_old("colour")
    return f"{first} likes {second}"


# And as coroutines. At the bottom there has to be a `yield`: asyncio's is in Future.__await__.
class Ask:
    def __init__(self, question: str) -> None:
        self.question = question

    def __await__(self) -> Generator[str, str, str]:
        answer = yield self.question
        return answer.upper()


async def talk() -> str:
    first = await Ask("name")
    second = await Ask("colour")
    return f"{first} likes {second}"


@types.coroutine  # makes a generator something that may be awaited
def talk_mixed() -> Generator[str, str, str]:
    return (yield from talk())


def drive(
    coroutine: Generator[str, str, str] | Coroutine[str, str, str], answers: list[str]
) -> str:
    answer = None
    while True:
        try:
            question = coroutine.send(answer)
        except StopIteration as stop:
            return stop.value
        answer = answers.pop(0)
        print(f"  {question}? {answer}")


print("yield from:")
print(drive(talk_old(), ["ann", "red"]))
print("await:")
print(drive(talk(), ["ben", "blue"]))
print("a generator around a coroutine:")
print(drive(talk_mixed(), ["eve", "green"]))

coroutine = talk()
print("called, but not awaited or sent to:", inspect.getcoroutinestate(coroutine))
coroutine.close()  # else Python warns that it was never awaited: mostly an await was forgotten

# Prints:
#   yield from:
#     name? ann
#     colour? red
#   ANN likes RED
#   await:
#     name? ben
#     colour? blue
#   BEN likes BLUE
#   a generator around a coroutine:
#     name? eve
#     colour? green
#   EVE likes GREEN
#   called, but not awaited or sent to: CORO_CREATED
