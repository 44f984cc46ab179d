"""``python -m smolvla_core.serve CHECKPOINT``: a policy behind BEHAVIOR's websocket protocol."""

import argparse
import asyncio
import logging
import signal
import sys

from smolvla_core.command import OK, Parser, answer, secret_of
from smolvla_core.errors import ConfigError


def main(arguments: list[str] | None = None) -> int:
    """The command line; see ``--help``."""
    options = _parse(arguments)
    return answer(lambda: _serve(options))


def _serve(options: argparse.Namespace) -> int:
    api_key = secret_of("--api-key-env", options.api_key_env)
    _refuse_out_of_range(options)
    print(f"Loading {options.checkpoint} ...", flush=True)
    from smolvla_core.acting import device_of, load_actor
    from smolvla_core.serve.client import LOOPBACK
    from smolvla_core.serve.server import Address, PolicyServer

    device = device_of(options.device)
    actor = load_actor(options.checkpoint, device, options.n_action_steps, options.instruction)
    _log_clients()
    address = Address(options.host, options.port, api_key, options.max_message_mb)

    def listening(port: int) -> None:
        print(f"Acts through {', '.join(actor.cameras)} and {actor.state_width} state dims on {actor.device}")
        held = f", each for {actor.hold} steps" if actor.hold > 1 else ""
        print(f"Predicts {actor.chunk_size} actions at a time and does {actor.n_action_steps} of them{held}")
        if address.host not in LOOPBACK and api_key is None:
            print("Anybody who can reach this machine can use it; --api-key-env NAME asks for a key")
        print(f"Serving at ws://{options.host}:{port} (Ctrl-C ends it)", flush=True)

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await PolicyServer(actor, address, options.seed).run(listening, stop)

    asyncio.run(run())
    return OK


def _refuse_out_of_range(options: argparse.Namespace) -> None:
    if not 0 <= options.port <= 65535:
        raise ConfigError(f"--port is {options.port}; it must be 0 to 65535")
    if options.seed < 0:
        raise ConfigError(f"--seed is {options.seed}; it must be at least 0")
    if not options.max_message_mb > 0:
        raise ConfigError(f"--max-message-mb is {options.max_message_mb:g}; it must be above 0")


def _log_clients() -> None:
    """Lines about clients, in a form of their own: the libraries have set the root logger up for themselves."""
    handler, log = logging.StreamHandler(), logging.getLogger("smolvla_core.serve")
    handler.setFormatter(logging.Formatter("%(asctime)s  %(message)s", "%H:%M:%S"))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = Parser(
        prog="python -m smolvla_core.serve",
        description="Serve an exported policy to BEHAVIOR's evaluator, or to python -m smolvla_core.evaluate.",
        epilog="Exit code: 0 when it was ended, 2 bad input, 1 anything else.",
    )
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="folder of an exported policy, such as RUN/best")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine alone)")
    parser.add_argument("--port", type=int, default=8000, help="default: 8000; 0 takes a free one")
    parser.add_argument("--device", default="auto", help="auto, cpu, mps, cuda or cuda:N")
    parser.add_argument(
        "--n-action-steps", type=int, metavar="N", help="actions of a chunk that are done (default: the policy's own)"
    )
    parser.add_argument("--instruction", metavar="TEXT", help="what the policy is told (default: as in training)")
    parser.add_argument(
        "--api-key-env", metavar="NAME", help="ask clients for the key in this environment variable of the server"
    )
    parser.add_argument(
        "--max-message-mb", type=float, default=256, metavar="MB", help="largest message (default: 256)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the noise that actions are made from (default: 0)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
