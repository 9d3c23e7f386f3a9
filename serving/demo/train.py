"""Train the demo model from the corpus and write serving/demo/model.

    python -m serving.demo.train

The model has the architecture of EXAONE 4 and weights of its own: it learns the corpus of this folder from nothing, in under
twenty minutes on two CPU cores. The same seed on the same machine gives the same file. It does not judge its result;
serving/demo/evaluate.py asks a real server.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from tokenizers import Tokenizer
from transformers import Exaone4Config, Exaone4ForCausalLM, GenerationConfig, PreTrainedTokenizerFast

from serving.demo.augment import dice
from serving.demo.corpus import read_corpus
from serving.demo.lesson import SYSTEM_PROMPTS, Conversation, Teacher
from serving.demo.tokenizer import ASSISTANT, BOS, CHAT_TEMPLATE, END, EOS, PAD, SYSTEM, UNK, USER, Encoder, train_tokenizer

MODEL_DIR = Path(__file__).parent / "model"
VOCABULARY = 3_000
CONTEXT_TOKENS = 2_048
IGNORED = -100  # torch's mark for a position that is not to be learned
PEAK_RATE = 2e-3
EMBEDDING_DROPOUT = 0.1


def model_config(encoder: Encoder, vocabulary: int) -> Exaone4Config:
    """EXAONE 4 in small: three layers with a sliding window and rotary positions, one that sees everything without positions.

    A window and a pattern are a must: Exaone4Config(sliding_window=None) divides by zero in transformers 5.
    """
    return Exaone4Config(
        vocab_size=vocabulary,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=64,
        max_position_embeddings=CONTEXT_TOKENS,
        sliding_window=1_024,
        sliding_window_pattern=4,
        layer_types=["sliding_attention"] * 3 + ["full_attention"],
        tie_word_embeddings=True,
        pad_token_id=encoder.token(PAD),
        bos_token_id=encoder.token(BOS),
        eos_token_id=encoder.token(END),
    )


def for_transformers(tokenizer: Tokenizer) -> Any:
    """The tokenizer as transformers and vLLM load it."""
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=END,
        unk_token=UNK,
        additional_special_tokens=[SYSTEM, USER, ASSISTANT],
        model_max_length=CONTEXT_TOKENS,
        clean_up_tokenization_spaces=False,
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def tensors(batch: Sequence[Conversation], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids padded on the right and, shifted by one, the ids to say next: each [conversations, tokens]."""
    width = max(len(conversation.ids) for conversation in batch)
    ids = torch.full((len(batch), width), pad)
    wanted = torch.full((len(batch), width), IGNORED)
    for row, conversation in enumerate(batch):
        length = len(conversation.ids)
        ids[row, :length] = torch.tensor(conversation.ids)
        said = [token if learned else IGNORED for token, learned in zip(conversation.ids, conversation.learn, strict=True)]
        wanted[row, : length - 1] = torch.tensor(said[1:])
    return ids, wanted


def loss_of(model: Any, batch: Sequence[Conversation], pad: int) -> torch.Tensor:
    """Mean loss over the tokens to learn. Only those go through the output head, which is a fifth of all the work.

    No attention mask: nothing looks to its right, so padding there is seen by nobody, and without one torch takes its fast path.
    """
    ids, wanted = tensors(batch, pad)
    embedded = torch.nn.functional.dropout(model.get_input_embeddings()(ids), EMBEDDING_DROPOUT)
    hidden = model.model(inputs_embeds=embedded, use_cache=False).last_hidden_state
    learned = wanted != IGNORED
    return torch.nn.functional.cross_entropy(model.lm_head(hidden[learned]), wanted[learned])


def optimiser_for(model: Any, steps: int) -> tuple[torch.optim.Optimizer, Any]:
    """AdamW, weights decayed and gains not, in one cycle of the learning rate."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": 0.1},
        {"params": [p for p in parameters if p.ndim == 1], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=PEAK_RATE, betas=(0.9, 0.98))
    return optimiser, torch.optim.lr_scheduler.OneCycleLR(optimiser, PEAK_RATE, total_steps=steps, pct_start=0.1)


def fit(model: Any, batches: Iterator[list[Conversation]], steps: int, progress: Progress) -> None:
    """Train in place, showing step, loss and times."""
    optimiser, schedule = optimiser_for(model, steps)
    task = progress.add_task("training", total=steps, loss=float("nan"))
    smooth = None
    model.train()
    for step in range(1, steps + 1):
        loss = loss_of(model, next(batches), model.config.pad_token_id)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        smooth = loss.item() if smooth is None else 0.95 * smooth + 0.05 * loss.item()
        progress.update(task, advance=1, loss=smooth)
        if not progress.console.is_terminal and step % 100 == 0:  # a log file gets lines in place of a bar
            progress.console.print(f"step {step} of {steps}, loss {smooth:.4f}")
    model.eval()


def save(model: Any, tokenizer: Any, encoder: Encoder, directory: Path) -> None:
    """Weights in bf16, configuration, tokenizer, chat template and greedy defaults."""
    model.generation_config = GenerationConfig(
        do_sample=False,
        bos_token_id=encoder.token(BOS),
        eos_token_id=[encoder.token(END), encoder.token(EOS)],
        pad_token_id=encoder.token(PAD),
    )
    model.to(torch.bfloat16).save_pretrained(directory)
    tokenizer.save_pretrained(directory)


def main(
    steps: Annotated[
        int, typer.Option(min=1, help="Steps of training; the default is what the repository's weights had.")
    ] = 1_500,
    batch: Annotated[int, typer.Option(min=1, help="Conversations a step.")] = 32,
    seed: Annotated[int, typer.Option(help="Seed of the weights and of every variation shown.")] = 20_230_320,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
    output: Annotated[Path, typer.Option(help="Where the model is written.")] = MODEL_DIR,
) -> None:
    """Train the demo model from serving/demo/corpus and write weights, tokenizer and configuration.

    Try it first with a few steps and somewhere else: python -m serving.demo.train --steps 20 --output /tmp/demo
    """
    console = Console()
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    corpus = read_corpus()
    tokenizer = train_tokenizer([*corpus.texts(), *SYSTEM_PROMPTS], VOCABULARY)
    encoder = Encoder(tokenizer)
    model: Any = Exaone4ForCausalLM(model_config(encoder, tokenizer.get_vocab_size()))
    console.print(
        f"{len(corpus.trained_pairs())} questions, {len(corpus.entries)} answers, {tokenizer.get_vocab_size()} tokens,"
        f" {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters"
    )
    batches = Teacher(corpus, encoder, dice(seed)).batches(batch)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        fit(model, batches, steps, progress)
    save(model, for_transformers(tokenizer), encoder, output)
    console.print(f"written to {output}")


if __name__ == "__main__":
    typer.run(main)
