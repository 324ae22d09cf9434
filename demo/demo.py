#!/usr/bin/env python3
"""A small cluster on this machine loses a host, goes on, and gets it back.

One manager and two agents as real processes on loopback; one group is a web server with an address
of its own, which a client asks all the while. Nothing outside a temporary folder is touched, and
nothing is left. Exit status 0 when every step happened within its deadline.
"""

from __future__ import annotations

import asyncio
import sys
import time

from stage import Stage, item, main, note, say


class Demo(Stage):
    """The processes, and the story they tell."""

    async def tell(self) -> None:
        """All steps, each within its deadline."""
        begun = time.monotonic()
        say("Two hosts, alpha and beta, and a manager, as processes of this machine.")
        self.start_agents()
        self.spawn_manager(
            *("--socket", str(self.socket), "--statefile", str(self.folder / "halo.state"))
        )
        async with self.step("both groups run at home"):
            await self.until(website="Running on alpha", files="Running on beta")
        await self.show("halo", "status")
        asking = asyncio.create_task(self.client.run())
        try:
            async with self.step(f"a client asks http://{self.address}:8080 every 20 ms"):
                await self.wait_for(lambda: self.client.last_answer() == "alpha")
            await self.lose_alpha()
            await self.get_alpha_back()
        finally:
            asking.cancel()
        say(f"Done in {time.monotonic() - begun:.1f} s.")

    async def lose_alpha(self) -> None:
        """Cut the power of a host and watch the other take over."""
        say("")
        say("Now the power of alpha is cut: its agent and all that ran there are gone.")
        cut = time.monotonic()
        self.cut_power("alpha")
        async with self.step("alpha is fenced: confirmed to be off"):
            await self.until_event("fence", "alpha")
        async with self.step("both groups run on beta", cut):
            await self.until(website="Running (Failed Over) on beta", files="Running on beta")
        async with self.step("the website answers from beta", cut):
            await self.wait_for(lambda: self.client.last_answer() == "beta")
        note(self.client.outage(cut))
        await self.show("halo", "status")

    async def get_alpha_back(self) -> None:
        """Switch the host on again and move its group home."""
        say("")
        say("The power comes back, and the operator moves the website home.")
        async with self.step("alpha is connected again"):
            await self.show("halo", "power", "on", "alpha")
            await self.until_status(lambda s: item(s, "hosts", "alpha").get("connected") is True)
        await self.show("halo", "reset", "alpha", "--reason", "power is back")
        moved = time.monotonic()
        async with self.step("the website runs on alpha"):
            await self.show("halo", "failback", "--onto", "alpha", "--reason", "end of the demo")
            await self.until(website="Running on alpha", files="Running on beta")
        async with self.step("the website answers from alpha", moved):
            await self.wait_for(lambda: self.client.last_answer() == "alpha")
        note(self.client.outage(moved))
        await self.show("halo", "status")


if __name__ == "__main__":
    sys.exit(main(Demo))
