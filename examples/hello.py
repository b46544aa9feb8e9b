"""asyncio programs need one change: casync.run in place of asyncio.run.

Run it from the repository's root, after `pip install ./python`:   python examples/hello.py
"""

import asyncio

import casync


async def greet(name: str, delay: float) -> str:
    await asyncio.sleep(delay)
    print(f"hello, {name}")
    return name


async def main() -> None:
    print("running on", type(asyncio.get_running_loop()).__module__)
    names = await asyncio.gather(greet("later", 0.2), greet("soon", 0.1))
    print("greeted", names)


if __name__ == "__main__":
    casync.run(main())
