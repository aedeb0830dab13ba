"""The commands for language models: ``generate`` and ``estimate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from securefl.cli.lines import labelled
from securefl.cli.options import AsJson, Folder, console_for
from securefl.errors import BadInput

if TYPE_CHECKING:
    from securefl.llm.base import Precision


def generate(
    folder: Folder,
    prompt: Annotated[str, typer.Option(metavar="TEXT", help="A question, as those that it was tuned on.")] = "",
    tokens: Annotated[int, typer.Option(metavar="N", min=1, help="Tokens of the answer, at most.")] = 100,
    temperature: Annotated[
        float, typer.Option(metavar="T", min=0, help="1: as the model says; less: the likelier; 0: the likeliest.")
    ] = 0.8,
    seed: Annotated[int | None, typer.Option(metavar="N", min=0, help="For the same answer again.")] = None,
    as_json: AsJson = False,
) -> None:
    """Have the language model that a run has tuned answer a question.

    What it says may be wrong, and is no medical advice.

    Example:  [bold]securefl generate runs/clinic-llm-1 --prompt "What causes anemia?"[/]
    """
    from securefl.llm.base import require

    require()
    from securefl.llm.generating import Sampling, sampled, tuned

    console = console_for(as_json)
    with console.status("loading the model", spinner="line"):
        module = tuned(folder)
    with console.status("sampling", spinner="line"):
        said = sampled(module, prompt, Sampling(tokens, temperature, seed))
    if as_json:
        typer.echo(msgspec.json.encode({"prompt": prompt, "answer": said}).decode())
        return
    console.print(said, soft_wrap=True, markup=False, highlight=False)


def estimate(
    model: Annotated[
        str | None,
        typer.Argument(metavar="[MODEL]", help="A config.json, a folder that has one, or a name on the hub."),
    ] = None,
    rank: Annotated[int, typer.Option(metavar="N", min=1, help="Of the adapters.")] = 8,
    layer: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="A layer that gets one, as q_proj; may be repeated. Default: all linear ones."
        ),
    ] = None,
    precision: Annotated[str, typer.Option(metavar="TYPE", help="Of the base: bfloat16 or float32.")] = "bfloat16",
    clients: Annotated[int, typer.Option(metavar="N", min=3, help="Clients of a round.")] = 9,
    tokens: Annotated[int, typer.Option(metavar="N", min=1, help="Tokens of a sequence.")] = 512,
    batch: Annotated[int, typer.Option(metavar="N", min=1, help="Sequences in a step, on average.")] = 64,
    memory: Annotated[float, typer.Option(metavar="GB", min=0.001, help="For a piece of a batch.")] = 1.0,
    hidden: Annotated[int | None, typer.Option(metavar="N", help="Without MODEL: the width.")] = None,
    depth: Annotated[int | None, typer.Option(metavar="N", help="Without MODEL: how many layers.")] = None,
    vocabulary: Annotated[
        int | None, typer.Option(metavar="N", help="Without MODEL: how many tokens it knows.")
    ] = None,
    heads: Annotated[int, typer.Option(metavar="N", help="Without MODEL: heads of attention.")] = 32,
    kv_heads: Annotated[int | None, typer.Option(metavar="N", help="Without MODEL: heads of keys and values.")] = None,
    intermediate: Annotated[
        int | None, typer.Option(metavar="N", help="Without MODEL: width inside a layer. Default: 4 times the width.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what tuning a language model would take, in memory and traffic, before anything is downloaded.

    Of a model on the hub, its config alone is fetched.

    Examples:  [bold]securefl estimate config.json --rank 16[/]

    [bold]securefl estimate --hidden 4096 --depth 32 --vocabulary 128256 --kv-heads 8 --intermediate 14336[/]
    """
    from securefl.llm.base import require

    require()
    from securefl.llm.adapters import Lora
    from securefl.llm.estimate import Setting, Shape, lines, of_config, of_shape

    lora = Lora(rank=rank, scale=2 * rank, layers=tuple(layer or ()))
    setting = Setting(lora, _precision(precision), clients, tokens, batch, _in_bytes(memory))
    if model is not None:
        found = of_config(model, setting)
    elif hidden is None or depth is None or vocabulary is None:
        raise BadInput("name a model or its config.json, or give --hidden, --depth and --vocabulary")
    else:
        found = of_shape(Shape(hidden, depth, vocabulary, heads, kv_heads, intermediate), setting)
    labelled(console_for(as_json), dict(lines(found, setting)))
    if as_json:
        typer.echo(msgspec.json.encode(found).decode())


def _in_bytes(memory: float) -> int:
    if not 0 < memory < 1e9:  # nor a number that is none, which is not less than anything
        raise BadInput(f"--memory {memory}: it is a number of GB above 0, and below a thousand million")
    return int(memory * 1e9)


def _precision(given: str) -> Precision:
    match given:
        case "bfloat16" | "float32":
            return given
    raise BadInput(f"--precision {given!r}: it is bfloat16 or float32")
