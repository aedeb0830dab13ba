"""Models of a few thousand weights in local folders, made without a network."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import (
    BartConfig,
    BartForCausalLM,
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
)

VOCABULARY, PAD = 40, 39


def gpt2(folder: Path, seed: int = 0, vocabulary: int = VOCABULARY) -> str:
    """A GPT-2 of two layers, whose linear layers keep their weights the other way round."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=vocabulary, n_positions=32, n_embd=16, n_layer=2, n_head=2, bos_token_id=None, eos_token_id=None
    )
    GPT2LMHeadModel(config).save_pretrained(folder)
    return str(folder)


def llama(folder: Path) -> str:
    """A Llama of two layers, with rotary positions."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=32,
        bos_token_id=None,
        eos_token_id=None,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return str(folder)


def bert(folder: Path) -> str:
    """A BERT of two layers with a head of three classes, dropout on."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
        num_labels=3,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    return str(folder)


def bart(folder: Path) -> str:
    """The decoder of a BART of four layers, half of which are left out at random in training; dropout on."""
    torch.manual_seed(0)
    config = BartConfig(
        vocab_size=VOCABULARY,
        d_model=16,
        decoder_layers=4,
        decoder_attention_heads=2,
        decoder_ffn_dim=24,
        max_position_embeddings=32,
        decoder_layerdrop=0.5,
        attention_dropout=0.3,
        activation_dropout=0.3,
        is_decoder=True,
        bos_token_id=None,
        eos_token_id=None,
        forced_eos_token_id=None,
        decoder_start_token_id=None,
    )
    BartForCausalLM(config).save_pretrained(folder)
    return str(folder)
